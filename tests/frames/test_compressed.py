"""JPEG and PNG: what is decoded, and what is refused."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from qpde_perception.frames import CameraFrame, FrameError, compressed_encoding, decode, frame_size

HEIGHT, WIDTH = 123, 205
EXIF_TURNED_BY_90_DEGREES = (
    b"\xff\xe1\x00\x22Exif\x00\x00MM\x00\x2a\x00\x00\x00\x08"
    b"\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00"
)
VARIANTS = {
    "baseline": [],
    "progressive": [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
    "restarts": [cv2.IMWRITE_JPEG_RST_INTERVAL, 4],
}


def scene(height=HEIGHT, width=WIDTH):
    """Return a smooth picture with structure in every channel."""
    noise = np.random.default_rng(7).integers(0, 256, (height, width, 3), dtype=np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 4)
    return cv2.normalize(smooth, None, 20, 230, cv2.NORM_MINMAX)


def jpeg(pixels, *options):
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95, *options])[1].tobytes()


def png(pixels):
    return cv2.imencode(".png", pixels)[1].tobytes()


def compressed(encoding, data, height=0, width=0):
    return CameraFrame(1, "camera", encoding, height, width, 0, memoryview(data))


def with_jpeg_size(data, height, width):
    """Return the file with another size in its header."""
    start = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2")) + 5
    return data[:start] + struct.pack(">HH", height, width) + data[start + 4 :]


def with_png_size(data, height, width):
    """Return the file with another size in its header, and the checksum to go with it."""
    header = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


@pytest.mark.parametrize(
    ("description", "encoding"),
    [
        ("jpeg", "jpeg"),
        ("jpg", "jpeg"),
        ("JPEG", "jpeg"),
        ("png", "png"),
        ("bgr8; jpeg compressed bgr8", "jpeg"),
        ("rgb8; jpeg compressed ", "jpeg"),
        ("mono8;jpeg compressed", "jpeg"),
        ("rgb8; png compressed", "png"),
        ("mono16; png compressed mono16", "png"),
    ],
)
def test_format_field_names_the_codec(description, encoding):
    assert compressed_encoding(description) == encoding


@pytest.mark.parametrize(
    "description", ["", ";", "bgr8", "h264", "16UC1; compressedDepth png", "jpeg; webp", "jpegxl"]
)
def test_unknown_format_field_is_refused_with_the_known_ones(description):
    with pytest.raises(FrameError, match="known are jpeg and png"):
        compressed_encoding(description)


@pytest.mark.parametrize("variant", VARIANTS)
def test_jpeg_is_decoded_to_bgr(variant):
    picture = decode(compressed("jpeg", jpeg(scene(), *VARIANTS[variant])))

    assert (picture.order, picture.scale) == ("bgr", 1)
    assert (picture.height, picture.width) == (HEIGHT, WIDTH)
    assert_allclose(picture.pixels, scene(), atol=12)


def test_png_is_decoded_exactly():
    picture = decode(compressed("png", png(scene())), minimum=(1, 1))

    assert (picture.order, picture.scale) == ("bgr", 1)
    assert_array_equal(picture.pixels, scene())


def test_grey_and_transparent_files_become_three_channels():
    grey = scene()[..., 0]
    expected = np.repeat(grey[..., None], 3, axis=-1)

    assert_array_equal(decode(compressed("png", png(grey))).pixels, expected)
    assert_allclose(decode(compressed("jpeg", jpeg(grey))).pixels, expected, atol=12)
    transparent = np.dstack([scene(), grey])
    assert_array_equal(decode(compressed("png", png(transparent))).pixels, scene())


@pytest.mark.parametrize("scale", [1, 2, 4, 8])
@pytest.mark.parametrize("variant", VARIANTS)
def test_reduced_jpeg_is_close_to_the_average_of_the_full_one(variant, scale):
    data = jpeg(scene(256, 384), *VARIANTS[variant])
    minimum = (256 // scale, 384 // scale)
    picture = decode(compressed("jpeg", data), minimum=minimum)

    assert picture.scale == scale
    assert picture.pixels.shape == (*minimum, 3)
    assert (picture.height, picture.width) == (256, 384)
    average = scene(256, 384).reshape(minimum[0], scale, minimum[1], scale, 3).mean(axis=(1, 3))
    assert np.abs(picture.pixels - average).mean() < 3.0


@given(rows=st.integers(1, 200), columns=st.integers(1, 300))
@settings(max_examples=60, deadline=None)
def test_reduction_is_the_largest_that_leaves_the_minimum(rows, columns):
    data = jpeg(np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    picture = decode(compressed("jpeg", data), minimum=(rows, columns))

    enough = [s for s in (8, 4, 2, 1) if rows * s <= HEIGHT and columns * s <= WIDTH]
    assert picture.scale == (enough or [1])[0]
    assert picture.pixels.shape[:2] == (-(-HEIGHT // picture.scale), -(-WIDTH // picture.scale))


def test_orientation_of_the_file_is_ignored():
    plain = jpeg(scene())
    turned = plain[:2] + EXIF_TURNED_BY_90_DEGREES + plain[2:]
    obeyed = cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR)
    assert obeyed.shape == (WIDTH, HEIGHT, 3)

    for minimum in (None, (30, 30)):
        picture = decode(compressed("jpeg", turned), minimum=minimum)
        unturned = decode(compressed("jpeg", plain), minimum=minimum)
        assert_array_equal(picture.pixels, unturned.pixels)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated_jpeg_is_refused(variant, share):
    data = jpeg(scene(), *VARIANTS[variant])
    with pytest.raises(FrameError, match="truncated"):
        decode(compressed("jpeg", data[: int(len(data) * share)]))


@pytest.mark.parametrize("variant", ["baseline", "restarts"])
@pytest.mark.parametrize("minimum", [None, (15, 25)])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated_jpeg_with_an_end_marker_put_on_is_refused(variant, share, minimum):
    data = jpeg(scene(), *VARIANTS[variant])
    short = data[: int(len(data) * share)] + b"\xff\xd9"
    with pytest.raises(FrameError, match="too few data"):
        decode(compressed("jpeg", short), minimum=minimum)


@pytest.mark.parametrize("variant", VARIANTS)
def test_jpeg_whose_header_claims_more_rows_is_refused(variant):
    data = with_jpeg_size(jpeg(scene(), *VARIANTS[variant]), 2 * HEIGHT, WIDTH)
    with pytest.raises(FrameError, match="too few data"):
        decode(compressed("jpeg", data))


@pytest.mark.parametrize("variant", VARIANTS)
def test_picture_that_is_truly_grey_is_not_taken_for_padding(variant):
    pixels = scene()
    pixels[64:, 64:] = 128
    data = jpeg(pixels, *VARIANTS[variant])
    picture = decode(compressed("jpeg", data))

    assert np.all(picture.pixels[-1, -1] == 128)
    assert_allclose(picture.pixels, pixels, atol=40)


def test_buffer_of_fixed_size_may_have_zeros_after_the_jpeg():
    plain = jpeg(scene())
    picture = decode(compressed("jpeg", plain + bytes(5000)))

    assert_array_equal(picture.pixels, decode(compressed("jpeg", plain)).pixels)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated_png_is_refused(share):
    data = png(scene())
    with pytest.raises(FrameError, match="truncated or damaged"):
        decode(compressed("png", data[: int(len(data) * share)]))


def test_png_whose_header_claims_more_rows_is_refused():
    with pytest.raises(FrameError, match="truncated or damaged"):
        decode(compressed("png", with_png_size(png(scene()), 2 * HEIGHT, WIDTH)))


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("jpeg", with_jpeg_size(jpeg(scene()), 60_000, 60_000)),
        ("jpeg", with_jpeg_size(jpeg(scene()), 16_000, 16_000)),
        ("png", with_png_size(png(scene()), 60_000, 60_000)),
        ("png", with_png_size(png(scene()), 2**32 - 1, 2**32 - 1)),
    ],
)
def test_absurd_size_is_refused_before_anything_is_decoded(encoding, data, monkeypatch):
    monkeypatch.delattr(cv2, "imdecode")
    with pytest.raises(FrameError, match="larger than"):
        decode(compressed(encoding, data))


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("jpeg", with_jpeg_size(jpeg(scene()), 0, WIDTH)),
        ("png", with_png_size(png(scene()), HEIGHT, 0)),
    ],
)
def test_compressed_size_of_zero_is_refused(encoding, data):
    with pytest.raises(FrameError, match="no pixels"):
        decode(compressed(encoding, data))


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("jpeg", b""),
        ("png", b""),
        ("jpeg", b"\xff\xd8"),
        ("jpeg", b"\xff\xd8\xff\xd9"),
        ("png", png(scene())[:20]),
        ("jpeg", png(scene())),
        ("png", jpeg(scene())),
    ],
)
def test_data_of_another_kind_are_refused(encoding, data):
    with pytest.raises(FrameError, match="header"):
        decode(compressed(encoding, data))


@pytest.mark.parametrize("encoding", ["h264", "16UC1; compressedDepth"])
def test_unknown_compression_is_called_unknown_and_not_empty(encoding):
    with pytest.raises(FrameError, match=f"encoding '{encoding}' is unknown; known are"):
        decode(compressed(encoding, b"\0\0\0\1"))


def test_size_is_read_from_the_header_and_held_against_the_announced_one():
    for encoding, data in (("jpeg", jpeg(scene())), ("png", png(scene()))):
        assert frame_size(compressed(encoding, data)) == (HEIGHT, WIDTH)
        assert frame_size(compressed(encoding, data, HEIGHT, WIDTH)) == (HEIGHT, WIDTH)
        with pytest.raises(FrameError, match="announced as 205x480, its header says 205x123"):
            decode(compressed(encoding, data, 480, WIDTH))
