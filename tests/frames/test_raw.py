"""Raw encodings against conversions written here, and independently of OpenCV."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from qpde_perception.frames import CameraFrame, FrameError, decode

ORDERS = {"rgb8": "rgb", "bgr8": "bgr", "rgba8": "rgba", "bgra8": "bgra"}
YUV_422 = {"yuv422": "UYVY", "uyvy": "UYVY", "yuv422_yuy2": "YUYV", "yuyv": "YUYV"}
YUV_420 = {"nv12": "UV", "nv21": "VU"}
BAYER = ("bayer_rggb8", "bayer_bggr8", "bayer_gbrg8", "bayer_grbg8")
EVEN = st.integers(1, 12).map(lambda half: 2 * half)
SIDE = st.integers(1, 24)
PADDING = st.integers(0, 9)
SEED = st.integers(0, 2**32 - 1)


def random_rows(rows, row_bytes, padding, seed):
    """Rows of noise with noise in the padding too, the last row without any."""
    rng = np.random.default_rng(seed)
    padded = rng.integers(0, 256, (rows, row_bytes + padding), dtype=np.uint8)
    return padded[:, :row_bytes], padded.tobytes()[: padded.size - padding]


def raw(encoding, height, width, step, data, *, is_bigendian=False):
    return CameraFrame(
        stamp_ns=1,
        frame_id="camera",
        encoding=encoding,
        height=height,
        width=width,
        step=step,
        data=memoryview(data),
        is_bigendian=is_bigendian,
    )


def bt601_limited(y, u, v):
    """Return BGR of limited-range luma and chroma by the equations of BT.601."""
    y, u, v = (plane.astype(np.float64) for plane in (y, u, v))
    # Below 16 lies nothing but the foot room of synchronisation: black.
    luma = (np.maximum(y, 16.0) - 16.0) * 255.0 / 219.0
    red = luma + 1.402 * 255.0 / 224.0 * (v - 128.0)
    blue = luma + 1.772 * 255.0 / 224.0 * (u - 128.0)
    green = (luma - 0.299 * red - 0.114 * blue) / 0.587
    return np.clip(np.stack([blue, green, red], axis=-1), 0.0, 255.0)


@pytest.mark.parametrize("encoding", ORDERS)
@given(height=SIDE, width=SIDE, padding=PADDING, seed=SEED)
@settings(max_examples=25, deadline=None)
def test_interleaved_pixels_are_a_view_on_the_frame(encoding, height, width, padding, seed):
    channels = len(ORDERS[encoding])
    rows, data = random_rows(height, width * channels, padding, seed)
    picture = decode(raw(encoding, height, width, width * channels + padding, data))

    assert picture.order == ORDERS[encoding]
    assert_array_equal(picture.pixels, rows.reshape(height, width, channels))
    assert np.shares_memory(picture.pixels, np.frombuffer(data, np.uint8))
    assert (picture.scale, picture.height, picture.width) == (1, height, width)


@given(height=SIDE, width=SIDE, padding=PADDING, seed=SEED)
@settings(max_examples=25, deadline=None)
def test_mono8_is_a_view_on_the_frame(height, width, padding, seed):
    rows, data = random_rows(height, width, padding, seed)
    picture = decode(raw("mono8", height, width, width + padding, data))

    assert picture.order == "mono"
    assert_array_equal(picture.pixels, rows)
    assert np.shares_memory(picture.pixels, np.frombuffer(data, np.uint8))


@given(height=SIDE, width=SIDE, padding=PADDING, seed=SEED, is_bigendian=st.booleans())
@settings(max_examples=40, deadline=None)
def test_mono16_keeps_the_high_byte_of_either_byte_order(
    height, width, padding, seed, is_bigendian
):
    rows, data = random_rows(height, 2 * width, padding, seed)
    frame = raw("mono16", height, width, 2 * width + padding, data, is_bigendian=is_bigendian)
    picture = decode(frame)

    values = np.ascontiguousarray(rows).view(">u2" if is_bigendian else "<u2")
    assert picture.order == "mono"
    assert_array_equal(picture.pixels, values // 256)
    assert np.shares_memory(picture.pixels, np.frombuffer(data, np.uint8))


@pytest.mark.parametrize("encoding", YUV_422)
@given(height=SIDE, width=EVEN, padding=PADDING, seed=SEED)
@settings(max_examples=25, deadline=None)
def test_yuv_422_is_bt601_with_limited_range(encoding, height, width, padding, seed):
    rows, data = random_rows(height, 2 * width, padding, seed)
    picture = decode(raw(encoding, height, width, 2 * width + padding, data))

    pairs = rows.reshape(height, width // 2, 4)
    layout = YUV_422[encoding]
    luma = pairs[..., [i for i in range(4) if layout[i] == "Y"]].reshape(height, width)
    u, v = (np.repeat(pairs[..., layout.index(name)], 2, axis=1) for name in "UV")
    assert picture.order == "bgr"
    assert_allclose(picture.pixels, bt601_limited(luma, u, v), atol=2)


@pytest.mark.parametrize("encoding", YUV_420)
@given(height=EVEN, width=EVEN, padding=PADDING, seed=SEED)
@settings(max_examples=25, deadline=None)
def test_yuv_420_is_bt601_with_limited_range(encoding, height, width, padding, seed):
    rows, data = random_rows(height * 3 // 2, width, padding, seed)
    picture = decode(raw(encoding, height, width, width + padding, data))

    chroma = rows[height:].reshape(height // 2, width // 2, 2)
    u, v = (
        np.kron(chroma[..., YUV_420[encoding].index(name)], np.ones((2, 2), np.uint8))
        for name in "UV"
    )
    assert picture.order == "bgr"
    expected = bt601_limited(rows[:height], u, v)
    assert_allclose(picture.pixels, expected, atol=2)


def bilinear_demosaic(mosaic, pattern):
    """Return BGR of the inner pixels: the mean of the nearest samples of each colour."""
    height, width = mosaic.shape
    colour = np.empty(mosaic.shape, "U1")
    for index, name in enumerate(pattern):
        colour[index // 2 :: 2, index % 2 :: 2] = name
    inner = np.empty((height - 2, width - 2, 3))
    rings = ([(0, 0)], [(-1, 0), (1, 0), (0, -1), (0, 1)], [(-1, -1), (-1, 1), (1, -1), (1, 1)])
    for row in range(1, height - 1):
        for column in range(1, width - 1):
            for channel, name in enumerate("bgr"):
                for ring in rings:
                    near = [
                        float(mosaic[row + dy, column + dx])
                        for dy, dx in ring
                        if colour[row + dy, column + dx] == name
                    ]
                    if near:
                        inner[row - 1, column - 1, channel] = np.mean(near)
                        break
    return inner


@pytest.mark.parametrize("encoding", BAYER)
@given(height=st.integers(3, 9), width=st.integers(3, 9), padding=PADDING, seed=SEED)
@settings(max_examples=15, deadline=None)
def test_bayer_pattern_begins_with_the_colour_it_is_named_after(
    encoding, height, width, padding, seed
):
    rows, data = random_rows(height, width, padding, seed)
    picture = decode(raw(encoding, height, width, width + padding, data))

    assert picture.order == "bgr"
    expected = bilinear_demosaic(rows, encoding[6:10])
    assert_allclose(picture.pixels[1:-1, 1:-1], expected, atol=1)


@pytest.mark.parametrize(
    ("encoding", "shape", "step", "size", "said"),
    [
        ("bgr8", (0, 4), 12, 48, "no pixels"),
        ("bgr8", (4, 0), 12, 48, "no pixels"),
        ("bgr8", (4, 4), 11, 48, "step is 11 bytes, a row needs 12"),
        ("bgr8", (4, 4), 0, 48, "step is 0 bytes"),
        ("bgr8", (4, 4), 12, 47, "47 bytes of data, 48 needed"),
        ("mono16", (4, 4), 7, 48, "step is 7 bytes, a row needs 8"),
        ("bgr8", (4, 4), 2**32 - 1, 48, "12884901897 needed"),
        ("nv12", (4, 4), 4, 23, "23 bytes of data, 24 needed"),
        ("nv12", (4, 3), 4, 99, "width must be even"),
        ("nv21", (3, 4), 4, 99, "height must be even"),
        ("uyvy", (4, 3), 8, 99, "width must be even"),
        ("bayer_rggb8", (2, 4), 4, 99, "needs 3x3"),
        ("mono8", (1, 20_000), 20_000, 20_000, "larger than"),
        ("mono8", (2**32 - 1, 2**32 - 1), 2**32 - 1, 9, "larger than"),
        ("", (4, 4), 12, 48, "unknown"),
        ("BGR8", (4, 4), 12, 48, "known are rgb8, bgr8"),
        ("32FC1", (4, 4), 16, 64, "'32FC1' is unknown"),
    ],
)
def test_frame_that_contradicts_itself_is_refused(encoding, shape, step, size, said):
    with pytest.raises(FrameError, match=said):
        decode(raw(encoding, *shape, step, bytes(size)))


@pytest.mark.parametrize("encoding", [*ORDERS, "mono8", "mono16", *YUV_422, *YUV_420, *BAYER])
def test_last_row_may_lack_its_padding_but_not_a_pixel(encoding):
    height, width, step = 4, 6, 40
    row = width * {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4}.get(encoding, 1)
    row = 2 * width if encoding == "mono16" or encoding in YUV_422 else row
    rows = height * 3 // 2 if encoding in YUV_420 else height
    needed = (rows - 1) * step + row

    assert decode(raw(encoding, height, width, step, bytes(needed))).pixels.shape[:2] == (4, 6)
    with pytest.raises(FrameError, match=f"{needed} needed"):
        decode(raw(encoding, height, width, step, bytes(needed - 1)))
