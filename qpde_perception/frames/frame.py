"""A camera frame as it arrives, before anything is decoded."""

from __future__ import annotations

from dataclasses import dataclass

COMPRESSED_ENCODINGS = ("jpeg", "png")


@dataclass(frozen=True, slots=True)
class CameraFrame:
    """One image of a camera, raw or compressed, with the bytes left where they are.

    Attributes:
        stamp_ns: Capture time in the source's clock, nanoseconds.
        frame_id: Coordinate frame of the camera, as the source names it.
        encoding: A raw encoding of `sensor_msgs/Image` (`bgr8`, `nv12`, ...), or `jpeg` / `png`.
        height: Rows in pixels; 0 where the compressed stream says it.
        width: Columns in pixels; 0 where the compressed stream says it.
        step: Bytes from one row to the next, padding included; 0 for compressed frames.
        data: The bytes, not copied.
        is_bigendian: Byte order of encodings wider than one byte.
    """

    stamp_ns: int
    frame_id: str
    encoding: str
    height: int
    width: int
    step: int
    data: memoryview
    is_bigendian: bool = False

    @property
    def is_compressed(self) -> bool:
        """Whether the bytes are a JPEG or PNG file instead of rows of pixels."""
        return self.encoding in COMPRESSED_ENCODINGS
