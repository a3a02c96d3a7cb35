"""Decoding: from the bytes of a camera to pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpde_perception.frames.compressed import decode_jpeg, decode_png, jpeg_size, png_size
from qpde_perception.frames.errors import FrameError
from qpde_perception.frames.frame import COMPRESSED_ENCODINGS
from qpde_perception.frames.raw import RAW_ENCODINGS, decode_raw

if TYPE_CHECKING:
    from qpde_perception.frames.frame import CameraFrame
    from qpde_perception.frames.picture import Picture

# A header of a few bytes may claim sizes that would take all memory; no camera has more.
MAX_SIDE = 2**14
MAX_PIXELS = 2**26


def frame_size(frame: CameraFrame) -> tuple[int, int]:
    """Return (height, width) of a frame in pixels without decoding it.

    Raises:
        FrameError: If the encoding is unknown, or the size is zero, absurd, or not what the
            compressed stream says.
    """
    # First: the size of a compressed frame of unknown encoding is unknown as well.
    if not frame.is_compressed and frame.encoding not in RAW_ENCODINGS:
        known = ", ".join((*RAW_ENCODINGS, *COMPRESSED_ENCODINGS))
        msg = f"encoding {frame.encoding!r} is unknown; known are {known}"
        raise FrameError(msg)
    height, width = frame.height, frame.width
    if frame.is_compressed:
        height, width = (jpeg_size if frame.encoding == "jpeg" else png_size)(frame.data)
        if (frame.height or height, frame.width or width) != (height, width):
            msg = (
                f"{frame.encoding}: announced as {frame.width}x{frame.height}, "
                f"its header says {width}x{height}"
            )
            raise FrameError(msg)
    if height <= 0 or width <= 0:
        msg = f"{frame.encoding} of {width}x{height}: has no pixels"
        raise FrameError(msg)
    if max(height, width) > MAX_SIDE or height * width > MAX_PIXELS:
        msg = (
            f"{frame.encoding} of {width}x{height}: larger than {MAX_SIDE} pixels a side "
            f"or {MAX_PIXELS} pixels in all"
        )
        raise FrameError(msg)
    return height, width


def decode(frame: CameraFrame, *, minimum: tuple[int, int] | None = None) -> Picture:
    """Decode a frame of any encoding.

    Plain pixels are not copied: the picture is a view on the frame's memory.

    Args:
        frame: The frame.
        minimum: Rows and columns that must remain of the whole frame; a JPEG is then decoded at a
            reduced scale where possible. None decodes the full resolution.

    Raises:
        FrameError: If the frame cannot be decoded; the message says why.
    """
    size = frame_size(frame)
    if frame.encoding == "jpeg":
        return decode_jpeg(frame.data, size, minimum=minimum)
    if frame.encoding == "png":
        return decode_png(frame.data, size)
    return decode_raw(frame)
