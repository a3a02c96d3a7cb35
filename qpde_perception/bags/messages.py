"""From recorded messages to the values of this project, and back for boxes."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from qpde_perception.bags.definitions import (
    COMPRESSED_IMAGE,
    DETECTION_2D_ARRAY,
    IMAGE,
    typestore,
)
from qpde_perception.bags.errors import BagError
from qpde_perception.frames import CameraFrame, FrameError, Regions, compressed_encoding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qpde_perception.bags.drive import RecordedMessage

CAMERA_TYPES = (IMAGE, COMPRESSED_IMAGE)
UNKNOWN_CLASS = -1


@dataclass(frozen=True, slots=True)
class Labels:
    """What is truly on a frame.

    Attributes:
        regions: The labelled boxes.
        class_indices: One class per box, `UNKNOWN_CLASS` for what the model cannot know.
    """

    regions: Regions
    class_indices: tuple[int, ...]


def camera_frame(recorded: RecordedMessage) -> CameraFrame:
    """Return the frame of an `Image` or `CompressedImage`; the pixels or the file are not copied.

    A compression that is neither JPEG nor PNG is kept as the encoding, for decoding to refuse it.

    Raises:
        BagError: If the message is of another type.
    """
    if recorded.type not in CAMERA_TYPES:
        msg = f"{recorded.topic} carries {recorded.type}; a camera topic carries one of: " + (
            ", ".join(CAMERA_TYPES)
        )
        raise BagError(msg)
    return frame_in(recorded.message, compressed=recorded.type == COMPRESSED_IMAGE)


def frame_in(message: Any, *, compressed: bool) -> CameraFrame:
    """Return the frame of an `Image`, or of a `CompressedImage`; see `camera_frame`."""
    stamp_ns, frame_id = stamp_of(message), message.header.frame_id
    data = memoryview(message.data)
    if compressed:
        encoding = _compression(message.format, data)
        return CameraFrame(stamp_ns, frame_id, encoding, height=0, width=0, step=0, data=data)
    return CameraFrame(
        stamp_ns=stamp_ns,
        frame_id=frame_id,
        encoding=message.encoding,
        height=int(message.height),
        width=int(message.width),
        step=int(message.step),
        data=data,
        is_bigendian=bool(message.is_bigendian),
    )


def regions_of(recorded: RecordedMessage) -> tuple[int, Regions]:
    """Return the stamp in nanoseconds and the boxes of a `Detection2DArray`.

    Raises:
        BagError: If the message is of another type, or of a version without `bbox.center.position`.
    """
    if recorded.type != DETECTION_2D_ARRAY:
        msg = f"{recorded.topic} carries {recorded.type}; boxes are read from {DETECTION_2D_ARRAY}"
        raise BagError(msg)
    try:
        return stamp_of(recorded.message), boxes_in(recorded.message)
    except AttributeError as error:
        msg = f"{recorded.topic}: {error}; record its boxes with vision_msgs 4"
        raise BagError(msg) from None


def boxes_in(message: Any) -> Regions:
    """Return the boxes of a `Detection2DArray`; the boxes' orientation is ignored.

    Raises:
        AttributeError: If it is of a version without `bbox.center.position`.
    """
    boxes = np.array(
        [
            (
                each.bbox.center.position.x - each.bbox.size_x / 2,
                each.bbox.center.position.y - each.bbox.size_y / 2,
                each.bbox.center.position.x + each.bbox.size_x / 2,
                each.bbox.center.position.y + each.bbox.size_y / 2,
            )
            for each in message.detections
        ],
        dtype=np.float32,
    )
    return Regions(boxes.reshape(-1, 4), tuple(each.id for each in message.detections))


def labels_of(recorded: RecordedMessage) -> tuple[int, Labels]:
    """Return the stamp in nanoseconds and the labelled boxes of a `Detection2DArray`.

    The class is the first result's `class_id`, a number as text; a box without results is unknown.

    Raises:
        BagError: As `regions_of`, and if a `class_id` is not a number.
    """
    stamp_ns, regions = regions_of(recorded)
    message: Any = recorded.message
    try:
        classes = tuple(
            int(each.results[0].hypothesis.class_id) if each.results else UNKNOWN_CLASS
            for each in message.detections
        )
    except (ValueError, AttributeError) as error:
        msg = f"{recorded.topic}: a label is the class index as text ({error})"
        raise BagError(msg) from None
    return stamp_ns, Labels(regions, classes)


def detections(
    stamp_ns: int, frame_id: str, regions: Regions, class_indices: Sequence[int] | None = None
) -> object:
    """Return a `Detection2DArray` of boxes, with their true classes where these are given."""
    types = typestore().types
    point, pose = types["vision_msgs/msg/Point2D"], types["vision_msgs/msg/Pose2D"]
    header = header_of(stamp_ns, frame_id)
    found = []
    for index, box in enumerate(regions.boxes):
        x_min, y_min, x_max, y_max = (float(value) for value in box)
        center = pose(position=point(x=(x_min + x_max) / 2, y=(y_min + y_max) / 2), theta=0.0)
        bbox = types["vision_msgs/msg/BoundingBox2D"](
            center=center, size_x=x_max - x_min, size_y=y_max - y_min
        )
        results = [] if class_indices is None else [_hypothesis(class_indices[index])]
        found.append(
            types["vision_msgs/msg/Detection2D"](
                header=header, results=results, bbox=bbox, id=regions.ids[index]
            )
        )
    return types[DETECTION_2D_ARRAY](header=header, detections=found)


def header_of(stamp_ns: int, frame_id: str) -> Any:
    """Return a `std_msgs/Header`."""
    types = typestore().types
    seconds, nanoseconds = divmod(stamp_ns, 1_000_000_000)
    stamp = types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=nanoseconds)
    return types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame_id)


def stamp_of(message: Any) -> int:
    """Return the header stamp of a message in nanoseconds."""
    stamp = message.header.stamp
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def stamp_in(cdr: bytes) -> int:
    """Return the stamp of a serialized message that begins with a header, nanoseconds."""
    seconds, nanoseconds = struct.unpack_from(f"{_byte_order(cdr)}iI", cdr, 4)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


def restamped(cdr: bytes, stamp_ns: int) -> bytes:
    """Return a serialized message with another stamp.

    Args:
        cdr: The bytes of a message that begins with a `std_msgs/Header`.
        stamp_ns: The stamp in nanoseconds.
    """
    seconds, nanoseconds = divmod(stamp_ns, 1_000_000_000)
    return cdr[:4] + struct.pack(f"{_byte_order(cdr)}iI", seconds, nanoseconds) + cdr[12:]


def _byte_order(cdr: bytes) -> str:
    return "<" if cdr[1] & 1 else ">"


def _hypothesis(class_index: int) -> Any:
    types = typestore().types
    hypothesis = types["vision_msgs/msg/ObjectHypothesis"](class_id=str(class_index), score=1.0)
    return types["vision_msgs/msg/ObjectHypothesisWithPose"](hypothesis=hypothesis, pose=_no_pose())


@cache
def _no_pose() -> Any:
    types = typestore().types
    return types["geometry_msgs/msg/PoseWithCovariance"](
        pose=types["geometry_msgs/msg/Pose"](
            position=types["geometry_msgs/msg/Point"](x=0.0, y=0.0, z=0.0),
            orientation=types["geometry_msgs/msg/Quaternion"](x=0.0, y=0.0, z=0.0, w=1.0),
        ),
        covariance=np.zeros(36),
    )


def _compression(description: str, data: memoryview) -> str:
    if not description.strip():  # some drivers leave it empty
        return "png" if bytes(data[:4]) == b"\x89PNG" else "jpeg"
    try:
        return compressed_encoding(description)
    except FrameError:
        return description
