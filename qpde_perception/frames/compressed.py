"""Decoding of JPEG and PNG, with every claim of the header checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np

from qpde_perception.frames.errors import FrameError
from qpde_perception.frames.picture import Picture

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ENCODINGS: dict[str, Literal["jpeg", "png"]] = {"jpeg": "jpeg", "jpg": "jpeg", "png": "png"}
_REDUCED = (
    (8, cv2.IMREAD_REDUCED_COLOR_8),
    (4, cv2.IMREAD_REDUCED_COLOR_4),
    (2, cv2.IMREAD_REDUCED_COLOR_2),
)
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JPEG_START = b"\xff\xd8"
_JPEG_END = b"\xff\xd9"
_JPEG_START_OF_SCAN = 0xDA
# Every marker 0xC0 to 0xCF begins a frame, but for tables (C4, CC) and a reserved one (C8).
_JPEG_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xDA)})
# What libjpeg writes into blocks that it has no data for.
_PADDING_GREY = 128
# Data for a decoder that wants more, whichever restart marker it waits for.
_SOME_DATA = bytes(range(1, 255))
_PROBE = _SOME_DATA + b"".join(bytes([0xFF, 0xD0 + n]) + _SOME_DATA for n in range(8))


def compressed_encoding(description: str) -> Literal["jpeg", "png"]:
    """Return the encoding that the `format` field of a `sensor_msgs/CompressedImage` names.

    Args:
        description: For example `jpeg`, `png` or `bgr8; jpeg compressed bgr8`.

    Raises:
        FrameError: If it names neither JPEG nor PNG.
    """
    codec = description.rpartition(";")[2].split()
    try:
        return _ENCODINGS[codec[0].lower()]
    except (IndexError, KeyError):
        msg = f"compressed format {description!r} is unknown; known are jpeg and png"
        raise FrameError(msg) from None


def png_size(data: memoryview) -> tuple[int, int]:
    """Return (height, width) in pixels from the header of a PNG file.

    Raises:
        FrameError: If the data do not begin as a PNG file.
    """
    header = bytes(data[:24])
    if len(header) < 24 or header[:8] != _PNG_SIGNATURE or header[12:16] != b"IHDR":
        msg = f"png of {data.nbytes} bytes: does not begin with a PNG header"
        raise FrameError(msg)
    return int.from_bytes(header[20:24], "big"), int.from_bytes(header[16:20], "big")


def jpeg_size(data: memoryview) -> tuple[int, int]:
    """Return (height, width) in pixels from the header of a JPEG file.

    Raises:
        FrameError: If the data do not begin as a JPEG file.
    """
    size, _ = _read_jpeg_header(data)
    return size


def decode_png(data: memoryview, size: tuple[int, int]) -> Picture:
    """Decode a PNG file into BGR.

    Args:
        data: The file.
        size: What `png_size` said.

    Raises:
        FrameError: If it is truncated or damaged.
    """
    pixels = _imdecode(data, cv2.IMREAD_COLOR)
    if pixels is None or pixels.shape[:2] != size:
        msg = f"png of {data.nbytes} bytes: truncated or damaged"
        raise FrameError(msg)
    return Picture(pixels, "bgr", scale=1, height=size[0], width=size[1])


def decode_jpeg(
    data: memoryview, size: tuple[int, int], *, minimum: tuple[int, int] | None
) -> Picture:
    """Decode a JPEG file into BGR.

    Bytes after the end of the file are allowed: cameras send buffers of fixed size. A file with
    fewer data than its header promises is refused even where it is properly ended.

    Args:
        data: The file.
        size: What `jpeg_size` said.
        minimum: Rows and columns that must remain; libjpeg then decodes at 1/2, 1/4 or 1/8 of the
            size where that leaves as many. None decodes the full size.

    Raises:
        FrameError: If it is truncated or damaged.
    """
    _, scan = _read_jpeg_header(data)
    # Few files have anything after their end, and to search one takes a while.
    if bytes(data[scan:][-2:]) != _JPEG_END and _end_of(data, scan) < 0:
        msg = f"jpeg of {data.nbytes} bytes: truncated, it has no end marker"
        raise FrameError(msg)
    height, width = size
    scale, flags = 1, cv2.IMREAD_COLOR
    if minimum is not None:
        for candidate, reduced in _REDUCED:
            if height // candidate >= minimum[0] and width // candidate >= minimum[1]:
                scale, flags = candidate, reduced
                break
    pixels = _imdecode(data, flags)
    if pixels is None or pixels.shape[:2] != (-(-height // scale), -(-width // scale)):
        msg = f"jpeg of {data.nbytes} bytes: truncated or damaged"
        raise FrameError(msg)
    if np.all(pixels[-1, -1] == _PADDING_GREY):
        unended = data[: scan + _end_of(data, scan)]
        if _is_padded(unended, pixels, flags):
            msg = f"jpeg of {data.nbytes} bytes: has too few data for its {width}x{height} pixels"
            raise FrameError(msg)
    return Picture(pixels, "bgr", scale=scale, height=height, width=width)


def _end_of(data: memoryview, scan: int) -> int:
    """Return where the end marker lies, counted from the beginning of the scan; -1 for nowhere."""
    return bytes(data[scan:]).find(_JPEG_END)


def _is_padded(unended: memoryview, pixels: NDArray[np.uint8], flags: int) -> bool:
    # libjpeg fills what is missing with grey and tells nobody. A picture whose data suffice does
    # not change when more data follow; one that was filled up does.
    probe = _imdecode(memoryview(bytes(unended) + _PROBE + _JPEG_END), flags)
    return probe is None or not np.array_equal(probe, pixels)


def _imdecode(data: memoryview, flags: int) -> NDArray[np.uint8] | None:
    buffer = np.frombuffer(data, np.uint8)
    try:
        # A camera's mounting is the business of its calibration, not of EXIF.
        pixels: NDArray[np.uint8] | None = cv2.imdecode(
            buffer, flags | cv2.IMREAD_IGNORE_ORIENTATION
        )
    except cv2.error:
        return None
    return pixels


def _read_jpeg_header(data: memoryview) -> tuple[tuple[int, int], int]:
    """Return (height, width) and where the entropy-coded data begin."""
    if bytes(data[:2]) != _JPEG_START:
        msg = f"jpeg of {data.nbytes} bytes: does not begin with a JPEG header"
        raise FrameError(msg)
    size: tuple[int, int] | None = None
    position = 2
    while position + 4 <= data.nbytes:
        marker = data[position + 1]
        if data[position] == 0xFF and marker == 0xFF:
            position += 1
            continue
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        if data[position] != 0xFF or marker in _JPEG_BARE_MARKERS or length < 2:
            break
        segment = data[position + 4 : position + 2 + length]
        position += 2 + length
        if marker in _JPEG_START_OF_FRAME and len(segment) >= 5:
            size = int.from_bytes(segment[1:3], "big"), int.from_bytes(segment[3:5], "big")
        if marker == _JPEG_START_OF_SCAN and size is not None:
            return size, position
    msg = f"jpeg of {data.nbytes} bytes: the header is truncated or damaged"
    raise FrameError(msg)
