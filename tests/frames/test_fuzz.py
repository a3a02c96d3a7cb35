"""Nothing that arrives raises anything but a FrameError."""

from __future__ import annotations

import contextlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qpde_perception.frames import (
    CameraFrame,
    FrameError,
    InputSpec,
    Regions,
    compressed_encoding,
    decode,
    frame_size,
    minimum_size,
    prepare,
)
from qpde_perception.frames.raw import RAW_ENCODINGS

SPEC = InputSpec(height=8, width=8, region_margin=0.15)
UINT32 = st.one_of(st.integers(0, 40), st.integers(0, 2**32 - 1))
BOX = st.lists(st.floats(width=32), min_size=4, max_size=4)
BOXES = st.none() | st.lists(BOX, max_size=3)
SEEDS = tuple(
    cv2.imencode(suffix, np.random.default_rng(3).integers(0, 256, shape, np.uint8), options)[1]
    for suffix, shape, options in (
        (".jpg", (17, 23, 3), []),
        (".jpg", (40, 33), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
        (".jpg", (24, 24, 3), [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]),
        (".png", (9, 11, 3), []),
        (".png", (9, 11, 4), []),
    )
)


def walk_the_road(frame, boxes):
    """Decode and prepare; return the number of items, or None for a refused frame."""
    regions = None
    if boxes is not None:
        array = np.array(boxes, np.float32).reshape(-1, 4)
        regions = Regions(array, ("",) * len(boxes))
    try:
        picture = decode(frame, minimum=minimum_size(frame_size(frame), regions, SPEC))
        prepared = prepare(picture, regions, SPEC)
    except FrameError:
        return None
    assert prepared.batch.shape[1:] == (8, 8, 3)
    assert len(prepared.batch) == len(prepared.boxes) == len(prepared.ids)
    return len(prepared.batch)


@pytest.mark.parametrize("encoding", RAW_ENCODINGS)
@given(
    sizes=st.tuples(UINT32, UINT32, UINT32),
    data=st.binary(max_size=4000),
    is_bigendian=st.booleans(),
    boxes=BOXES,
)
@settings(max_examples=100, deadline=None)
def test_any_raw_frame_is_decoded_or_refused(encoding, sizes, data, is_bigendian, boxes):
    view = memoryview(data)
    frame = CameraFrame(0, "camera", encoding, *sizes, view, is_bigendian=is_bigendian)
    walk_the_road(frame, boxes)


@pytest.mark.parametrize("encoding", RAW_ENCODINGS)
@given(half_height=st.integers(2, 12), half_width=st.integers(2, 12), padding=st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_any_true_raw_frame_is_decoded(encoding, half_height, half_width, padding):
    height, width = 2 * half_height, 2 * half_width
    step = 4 * width + padding
    data = memoryview(bytes(step * height * 3 // 2))
    frame = CameraFrame(0, "camera", encoding, height, width, step, data)

    assert walk_the_road(frame, None) == 1
    assert walk_the_road(frame, [[0, 0, width, height], [1, 1, 3, 2]]) == 2


@given(
    seed=st.sampled_from(SEEDS),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    kept=st.one_of(st.just(1.0), st.floats(0, 1)),
    tail=st.binary(max_size=20),
    boxes=BOXES,
)
@settings(max_examples=1000, deadline=None)
def test_any_damaged_file_is_decoded_or_refused(seed, changes, kept, tail, boxes):
    data = bytearray(seed.tobytes())
    for place, value in changes:
        data[int(place * len(data))] = value
    data = bytes(data[: int(kept * len(data))]) + tail
    encoding = "jpeg" if seed[0] == 0xFF else "png"
    walk_the_road(CameraFrame(0, "camera", encoding, 0, 0, 0, memoryview(data)), boxes)


@given(encoding=st.sampled_from(["jpeg", "png"]), data=st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_any_bytes_behind_a_true_beginning_are_decoded_or_refused(encoding, data):
    start = b"\xff\xd8" if encoding == "jpeg" else b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
    walk_the_road(CameraFrame(0, "camera", encoding, 0, 0, 0, memoryview(start + data)), None)


@given(st.text(max_size=30))
@settings(deadline=None)
def test_any_format_field_is_understood_or_refused(description):
    with contextlib.suppress(FrameError):
        assert compressed_encoding(description) in {"jpeg", "png"}
