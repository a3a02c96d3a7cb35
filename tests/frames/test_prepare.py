"""Preparation of the network's input."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from qpde_perception.frames import (
    CameraFrame,
    FrameError,
    InputSpec,
    Picture,
    Regions,
    decode,
    frame_size,
    minimum_size,
    prepare,
    resize,
)

HEIGHT, WIDTH = 60, 90
SPEC = InputSpec(height=16, width=12)


def picture(order="bgr", scale=1, seed=5):
    channels = {"mono": ()}.get(order, (len(order),))
    rng = np.random.default_rng(seed)
    shape = (-(-HEIGHT // scale), -(-WIDTH // scale), *channels)
    return Picture(rng.integers(0, 256, shape, np.uint8), order, scale, HEIGHT, WIDTH)


def coordinates(scale=1):
    """Return a picture whose pixels say where they are: (column, row, 0)."""
    rows, columns = np.mgrid[: -(-HEIGHT // scale), : -(-WIDTH // scale)].astype(np.uint8)
    return Picture(np.dstack([columns, rows, 0 * rows]), "bgr", scale, HEIGHT, WIDTH)


def regions(*boxes):
    array = np.array(boxes, np.float32).reshape(-1, 4)
    return Regions(array, tuple(f"track {index}" for index in range(len(boxes))))


def crop_of(box, *, margin=0.0, scale=1):
    """Return (x_min, y_min, x_max, y_max) of the pixels that a box covers, or None."""
    spec = InputSpec(height=400, width=400, interpolation="linear", region_margin=margin)
    prepared = prepare(coordinates(scale), regions(box), spec)
    if prepared.rejected:
        return None
    (item,) = prepared.batch
    columns, rows = item[..., 2], item[..., 1]
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


@pytest.mark.parametrize("interpolation", ["area", "linear"])
@pytest.mark.parametrize("channel_order", ["rgb", "bgr"])
@pytest.mark.parametrize("order", ["bgr", "rgb", "bgra", "rgba", "mono"])
def test_whole_frame_is_resized_and_its_channels_ordered(order, channel_order, interpolation):
    spec = SPEC.model_copy(update={"channel_order": channel_order, "interpolation": interpolation})
    source = picture(order)
    prepared = prepare(source, None, spec)

    method = {"area": cv2.INTER_AREA, "linear": cv2.INTER_LINEAR}[interpolation]
    small = cv2.resize(source.pixels, (12, 16), interpolation=method)
    planes = [small if order == "mono" else small[..., order.index(c)] for c in channel_order]
    assert_array_equal(prepared.batch, np.stack(planes, axis=-1)[None])
    assert prepared.batch.flags.c_contiguous
    assert (prepared.boxes, prepared.ids, prepared.rejected) == ((None,), ("",), ())


def test_area_resize_by_a_whole_factor_is_the_mean():
    pixels = picture().pixels[:48, :48]
    small = resize(pixels, SPEC)

    mean = pixels.reshape(16, 3, 12, 4, 3).mean(axis=(1, 3))
    assert np.abs(small - mean).max() <= 0.5 + 1e-9


def test_regions_are_cut_out_and_resized_like_training_images():
    source = picture()
    prepared = prepare(source, regions([10, 20, 40, 50], [0, 0, 90, 60]), SPEC)

    crops = (source.pixels[20:50, 10:40], source.pixels)
    expected = [resize(np.ascontiguousarray(crop), SPEC)[..., ::-1] for crop in crops]
    assert_array_equal(prepared.batch, np.stack(expected))
    assert prepared.boxes == ((10.0, 20.0, 40.0, 50.0), (0.0, 0.0, 90.0, 60.0))
    assert prepared.ids == ("track 0", "track 1")


def test_bad_boxes_are_left_out_and_the_others_kept():
    bad = ([np.nan, 0, 9, 9], [0, 0, np.inf, 9], [20, 5, 20, 30], [30, 5, 20, 30])
    outside = ([-9, 5, 0, 30], [90, 5, 99, 30], [5, -9, 30, 0], [5, 60, 30, 99])
    good = [10, 20, 40, 50]
    prepared = prepare(picture(), regions(*bad, good, *outside), SPEC)

    assert prepared.boxes == ((10.0, 20.0, 40.0, 50.0),)
    assert prepared.ids == ("track 4",)
    assert prepared.rejected == (0, 1, 2, 3, 5, 6, 7, 8)
    assert_array_equal(prepared.batch, prepare(picture(), regions(good), SPEC).batch)


def test_no_regions_are_an_empty_batch():
    prepared = prepare(picture(), regions(), SPEC)

    assert prepared.batch.shape == (0, 16, 12, 3)
    assert (prepared.boxes, prepared.ids, prepared.rejected) == ((), (), ())


def test_regions_whose_ids_and_boxes_do_not_match_are_refused():
    wrong = Regions(np.zeros((2, 4), np.float32), ("one",))
    with pytest.raises(FrameError, match=r"1 ids for boxes of shape \(2, 4\)"):
        prepare(picture(), wrong, SPEC)


@pytest.mark.parametrize(
    ("box", "margin", "scale", "expected"),
    [
        ([10, 20, 40, 50], 0.0, 1, (10, 20, 40, 50)),
        ([10.4, 19.6, 40.4, 50.4], 0.0, 1, (10, 20, 40, 50)),
        ([10, 20, 40, 40], 0.1, 1, (7, 18, 43, 42)),
        ([10, 20, 40, 40], 1.0, 1, (0, 0, 70, 60)),
        ([-20, -20, 200, 200], 0.0, 1, (0, 0, 90, 60)),
        ([10.1, 20.1, 10.2, 20.2], 0.0, 1, (10, 20, 11, 21)),
        ([89.9, 59.9, 95, 95], 0.0, 1, (89, 59, 90, 60)),
        ([-5, -5, 0.1, 0.1], 0.0, 1, (0, 0, 1, 1)),
        ([-3e38, -3e38, 3e38, 3e38], 1.0, 1, (0, 0, 90, 60)),
        ([16, 24, 48, 56], 0.0, 8, (2, 3, 6, 7)),
        ([16, 24, 17, 25], 0.0, 8, (2, 3, 3, 4)),
        ([80, 50, 90, 60], 0.0, 8, (10, 6, 11, 8)),
        ([20, 20, 40, 40], 0.2, 4, (4, 4, 11, 11)),
    ],
)
def test_box_covers_these_pixels(box, margin, scale, expected):
    assert crop_of(box, margin=margin, scale=scale) == expected


@given(
    corners=st.lists(st.floats(-150, 150, width=32), min_size=4, max_size=4),
    margin=st.floats(0, 1),
    scale=st.sampled_from([1, 2, 4, 8]),
)
@settings(max_examples=200, deadline=None)
def test_a_box_is_kept_exactly_if_it_has_a_part_in_the_frame(corners, margin, scale):
    x_min, y_min, x_max, y_max = corners
    inside = x_min < x_max and y_min < y_max
    inside &= x_min < WIDTH and x_max > 0 and y_min < HEIGHT and y_max > 0
    spec = InputSpec(height=4, width=4, region_margin=margin)
    prepared = prepare(picture(scale=scale), regions(corners), spec)

    assert len(prepared.batch) == int(inside)
    assert prepared.rejected == (() if inside else (0,))


@given(
    corners=st.lists(st.integers(0, HEIGHT - 1), min_size=4, max_size=4),
    margin=st.floats(0, 0.5),
    minimum_share=st.floats(0.01, 1),
)
@settings(max_examples=100, deadline=None)
def test_reduced_decoding_leaves_twice_the_input_of_the_smallest_region(
    corners, margin, minimum_share
):
    (x_min, x_max), (y_min, y_max) = sorted(corners[:2]), sorted(corners[2:])
    boxes = regions([0, 0, WIDTH, HEIGHT], [x_min, y_min, x_max + 1, y_max + 1])
    side = max(1, int(HEIGHT * minimum_share / 4))
    spec = InputSpec(height=side, width=side, region_margin=margin)
    rows, columns = minimum_size((HEIGHT, WIDTH), boxes, spec)

    def sides(index, scale):
        x0, y0, x1, y1 = crop_of(boxes.boxes[index], margin=margin, scale=scale)
        return x1 - x0, y1 - y0

    scale = next((s for s in (8, 4, 2) if HEIGHT // s >= rows and WIDTH // s >= columns), 1)
    if scale > 1:
        # Rounding to pixels of the reduced picture may cost one of them.
        assert min(*sides(0, scale), *sides(1, scale)) >= 2 * side - 1
    else:
        assert min(*sides(0, 1), *sides(1, 1)) < 4 * side + 2


@pytest.mark.parametrize(
    ("boxes", "scale"),
    [
        (None, 8),
        (regions(), 8),
        (regions([0, 0, 800, 600]), 8),
        (regions([0, 0, 800, 600], [10, 10, 90, 500]), 2),
        (regions([0, 0, 800, 600], [10, 10, 50, 20]), 1),
        (regions([0, 0, 800, 600], [-50, -50, -40, -40]), 8),
    ],
)
def test_smallest_usable_region_decides_the_reduction_of_a_jpeg(boxes, scale):
    noise = np.random.default_rng(2).integers(0, 256, (600, 800, 3), np.uint8)
    pixels = cv2.GaussianBlur(noise, (0, 0), 6)
    data = cv2.imencode(".jpg", pixels)[1]
    frame = CameraFrame(0, "camera", "jpeg", 0, 0, 0, memoryview(data))
    reduced = decode(frame, minimum=minimum_size(frame_size(frame), boxes, SPEC))
    assert reduced.scale == scale

    reduced_batch = prepare(reduced, boxes, SPEC).batch.astype(np.int16)
    full_batch = prepare(decode(frame), boxes, SPEC).batch.astype(np.int16)
    if reduced_batch.size:
        assert np.abs(reduced_batch - full_batch).mean() < 1.5


@pytest.mark.parametrize(("order", "channels"), [("bgr", 3), ("rgba", 4), ("mono", 1)])
def test_a_view_with_padded_rows_is_prepared_like_its_copy(order, channels):
    data = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH * channels + 7), np.uint8)
    encoding = {"bgr": "bgr8", "rgba": "rgba8", "mono": "mono8"}[order]
    step = WIDTH * channels + 7
    view = decode(CameraFrame(0, "c", encoding, HEIGHT, WIDTH, step, memoryview(data.tobytes())))
    copy = Picture(np.ascontiguousarray(view.pixels), order, 1, HEIGHT, WIDTH)

    boxes = regions([3, 4, 50, 44])
    assert_array_equal(prepare(view, boxes, SPEC).batch, prepare(copy, boxes, SPEC).batch)


@pytest.mark.parametrize(
    ("encoding", "channels"), [("bgr8", 3), ("rgb8", 3), ("bgra8", 4), ("rgba8", 4), ("mono8", 1)]
)
@pytest.mark.parametrize("padding", [0, 64])
@pytest.mark.parametrize("boxes", [None, regions([0, 0, 1280, 720])], ids=["whole", "region"])
def test_no_raw_frame_is_copied_before_the_resize(encoding, channels, padding, boxes):
    step = 1280 * channels + padding
    frame = CameraFrame(0, "c", encoding, 720, 1280, step, memoryview(bytes(step * 720)))
    prepare(decode(frame), boxes, SPEC)
    tracemalloc.start()
    try:
        prepare(decode(frame), boxes, SPEC)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The smallest of these frames has 900 kB; the samples of one have 150.
    assert peak < 200_000


@pytest.mark.parametrize("rows", [1, 50, 8 * SPEC.height - 1])
def test_every_pixel_of_a_small_picture_counts(rows):
    pixels = np.random.default_rng(rows).integers(0, 256, (rows, 60, 3), np.uint8)
    averaged = cv2.resize(pixels, (SPEC.width, SPEC.height), interpolation=cv2.INTER_AREA)
    assert_array_equal(resize(pixels, SPEC), averaged)


@pytest.mark.parametrize("shape", [(1080, 1920), (1080, 200), (200, 1920), (384, 384)])
def test_what_is_left_out_of_a_large_picture_changes_little(shape):
    spec = InputSpec(height=48, width=48)
    # As in photographs, the coarser the detail the stronger it is.
    rng = np.random.default_rng(1)
    pixels = np.full((*shape, 3), 128, np.float32)
    for grain in (4, 8, 16, 32, 64):
        noise = rng.normal(0, grain, (shape[0] // grain + 1, shape[1] // grain + 1, 3))
        pixels += cv2.resize(noise.astype(np.float32), shape[::-1], interpolation=cv2.INTER_CUBIC)
    pixels = pixels.clip(0, 255).astype(np.uint8)
    averaged = cv2.resize(pixels, (48, 48), interpolation=cv2.INTER_AREA).astype(int)
    difference = resize(pixels, spec) - averaged
    assert np.sqrt((difference**2).mean()) < 2.5
    # Reading four pixels for each of the network's makes another picture.
    linear = cv2.resize(pixels, (48, 48), interpolation=cv2.INTER_LINEAR) - averaged
    assert np.sqrt((difference**2).mean()) < 0.25 * np.sqrt((linear**2).mean())


ROADS = Path(__file__).resolve().parents[3] / "shared" / "data" / "road_drive"


@pytest.mark.skipif(not ROADS.is_dir(), reason="the road videos of ../shared/data are not here")
@pytest.mark.parametrize("name", ["highway_1280x720_25fps.mp4", "highway_960x540_25fps.mp4"])
def test_on_a_road_the_samples_are_near_the_average_of_all_pixels(name):
    video, errors = cv2.VideoCapture(str(ROADS / name)), {"sampled": [], "linear": []}
    for _ in range(20):
        read, pixels = video.read()
        assert read
        averaged = cv2.resize(pixels, (48, 48), interpolation=cv2.INTER_AREA).astype(int)
        linear = cv2.resize(pixels, (48, 48), interpolation=cv2.INTER_LINEAR)
        errors["sampled"].append(resize(pixels, InputSpec(height=48, width=48)) - averaged)
        errors["linear"].append(linear - averaged)
    sampled, linear = (float(np.sqrt(np.mean(np.square(each)))) for each in errors.values())
    # What docs/nodes.md says of the road.
    print(f"{name}: off the average: sampled {sampled:.2f}, linear {linear:.2f}")  # noqa: T201
    assert sampled < 2.5
    assert linear > 5


@settings(max_examples=60)
@given(rows=st.integers(1, 900), columns=st.integers(1, 900))
def test_an_even_picture_of_any_size_stays_even(rows, columns):
    pixels = np.full((rows, columns, 3), (7, 130, 250), np.uint8)
    assert_array_equal(
        resize(pixels, SPEC), np.broadcast_to(pixels[0, 0], (SPEC.height, SPEC.width, 3))
    )
