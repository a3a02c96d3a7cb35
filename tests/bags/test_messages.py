"""Messages become frames, regions and labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpde_perception.bags import BagError, camera_frame, labels_of, regions_of, typestore
from qpde_perception.bags.drive import RecordedMessage
from qpde_perception.bags.messages import detections, header_of, stamp_of
from qpde_perception.frames import Regions

COORDINATE = st.floats(0, 4000, width=32)


def _recorded(message: object) -> RecordedMessage:
    return RecordedMessage("/topic", message.__msgtype__, 1, message, b"")


@pytest.mark.parametrize(
    ("description", "data", "encoding"),
    [
        ("jpeg", b"x", "jpeg"),
        ("bgr8; jpeg compressed bgr8", b"x", "jpeg"),
        ("rgb8; png compressed ", b"x", "png"),
        ("", b"\xff\xd8\xff", "jpeg"),
        ("", b"\x89PNG", "png"),
        ("16UC1; compressedDepth png", b"x", "16UC1; compressedDepth png"),
        ("h264", b"x", "h264"),
    ],
)
def test_compressed_image_says_its_encoding(description, data, encoding):
    message = typestore().types["sensor_msgs/msg/CompressedImage"](
        header=header_of(1_600_000_000_123_456_789, "front"),
        format=description,
        data=np.frombuffer(data, np.uint8),
    )
    frame = camera_frame(_recorded(message))
    assert (frame.encoding, frame.frame_id) == (encoding, "front")
    assert frame.stamp_ns == 1_600_000_000_123_456_789
    assert bytes(frame.data) == data


def test_raw_image_keeps_its_bytes_where_they_are():
    pixels = np.arange(2 * 20, dtype=np.uint8)
    message = typestore().types["sensor_msgs/msg/Image"](
        header=header_of(5, "left"),
        height=2,
        width=6,
        encoding="bgr8",
        is_bigendian=1,
        step=20,
        data=pixels,
    )
    frame = camera_frame(_recorded(message))
    assert (frame.height, frame.width, frame.step, frame.is_bigendian) == (2, 6, 20, True)
    assert np.shares_memory(np.frombuffer(frame.data, np.uint8), pixels)


def test_other_types_are_no_frames_and_no_boxes():
    header = header_of(1, "front")
    for read in (camera_frame, regions_of, labels_of):
        with pytest.raises(BagError, match="/topic carries std_msgs/msg/Header"):
            read(_recorded(header))


@given(
    st.integers(0, 2**31 * 10**9 - 1),
    st.lists(
        st.tuples(
            COORDINATE, COORDINATE, COORDINATE, COORDINATE, st.text(max_size=4), st.integers(-1, 99)
        ),
        max_size=5,
    ),
)
def test_boxes_and_labels_survive_the_way_through_a_message(stamp_ns, rows):
    corners = np.array(
        [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d, _, _ in rows], np.float32
    ).reshape(-1, 4)
    regions = Regions(corners, tuple(row[4] for row in rows))
    message = detections(stamp_ns, "front", regions, [row[5] for row in rows])
    kind = message.__msgtype__
    raw = typestore().serialize_cdr(message, kind)
    back = typestore().deserialize_cdr(raw, kind)
    stamp, labels = labels_of(_recorded(back))
    assert stamp == stamp_ns == stamp_of(back)
    assert labels.class_indices == tuple(row[5] for row in rows)
    assert labels.regions.ids == regions.ids
    assert labels.regions.boxes == pytest.approx(corners, abs=1e-3)


def test_boxes_of_a_detector_carry_no_classes():
    regions = Regions(np.array([[1, 2, 3, 4]], np.float32), ("7",))
    message = detections(1, "front", regions)
    assert message.detections[0].results == []
    assert labels_of(_recorded(message))[1].class_indices == (-1,)


def test_label_that_is_no_number_is_refused():
    message = detections(1, "f", Regions(np.zeros((1, 4), np.float32), ("",)), [3])
    message.detections[0].results[0].hypothesis.class_id = "stop"
    with pytest.raises(BagError, match="class index as text"):
        labels_of(_recorded(message))
