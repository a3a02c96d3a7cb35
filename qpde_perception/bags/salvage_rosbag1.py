"""Saving a rosbag1 file without a usable index: a killed recorder's, or one that is cut off."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat
from rosbags.typesys.msg import normalize_msgtype

from qpde_perception.bags.offers import latching_offer
from qpde_perception.bags.parts import Channel
from qpde_perception.bags.salvage import OUTSIDE_CHUNKS, ChunkedFile, SalvagedPart, Scan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MAGIC = b"#ROSBAG V2.0\n"
_MESSAGE, _BAG_HEADER, _CHUNK, _CONNECTION = 2, 3, 5, 7
_LARGEST_HEADER = 1 << 24
_NUMBER = struct.Struct("<I")


def salvage_rosbag1(path: Path) -> SalvagedPart:
    """Open a rosbag1 file by scanning its records.

    Args:
        path: The file, which begins with `MAGIC`.
    """
    file, scan = ChunkedFile(path), Scan()
    index_at, position = 0, len(MAGIC)
    for header, body, size, end in _records(file.read, len(MAGIC), file.size):
        kind = header[b"op"][0]
        if kind == _CHUNK:
            end = _read_chunk(file, scan, header, at=(body, size), name=path.name)  # noqa: PLW2901
        elif end > file.size:
            break
        elif kind == _BAG_HEADER:
            index_at = int.from_bytes(header.get(b"index_pos", b""), "little")
        elif kind in {_MESSAGE, _CONNECTION}:
            _read_record(scan, header, OUTSIDE_CHUNKS, body, file.read(body, size))
        position = min(end, file.size)
    if not 0 < index_at <= position:
        scan.losses.append(
            f"{path.name}: was not closed or is cut off; {len(scan.entries)} messages were saved, "
            f"nothing after byte {position}"
        )
    return SalvagedPart(scan, file.load, file.close)


def _records(
    read: Callable[[int, int], bytes], position: int, end: int
) -> Iterator[tuple[dict[bytes, bytes], int, int, int]]:
    """Yield header, first byte of the data, their size, and the end of each record.

    The last record's data may be cut off; of one whose header is cut off nothing is told.
    """
    while position + 4 <= end:
        (length,) = _NUMBER.unpack(read(position, 4))
        if length > _LARGEST_HEADER or position + 8 + length > end:
            return
        fields = _fields(read(position + 4, length))
        if b"op" not in fields or len(fields[b"op"]) != 1:
            return
        (size,) = _NUMBER.unpack(read(position + 4 + length, 4))
        body = position + 8 + length
        yield fields, body, size, body + size
        position = body + size


def _fields(data: bytes) -> dict[bytes, bytes]:
    fields = {}
    position = 0
    while position + 4 <= len(data):
        (size,) = _NUMBER.unpack_from(data, position)
        name, _, value = data[position + 4 : position + 4 + size].partition(b"=")
        fields[name] = value
        position += 4 + size
    return fields


def _read_chunk(
    file: ChunkedFile, scan: Scan, header: dict[bytes, bytes], *, at: tuple[int, int], name: str
) -> int:
    """Read the records of a chunk; return where what was read of it ends."""
    body, size = at
    compression = header.get(b"compression", b"").decode("ascii", "replace")
    unpacked_size = int.from_bytes(header.get(b"size", b""), "little")
    complete = body + size <= file.size
    if size == 0 and compression != "none":
        # A recorder writes the size when it closes the chunk; a killed one never did.
        size, unpacked_size, complete = file.size - body, 1 << 32, False
    data = file.chunk(body, size, compression, unpacked_size)
    if complete and len(data) != unpacked_size:
        scan.losses.append(f"{name}: the chunk at byte {body} is damaged; its beginning was saved")

    def read(offset: int, count: int) -> bytes:
        return data[offset : offset + count]

    done = 0
    for fields, start, length, end in _records(read, 0, len(data)):
        if end > len(data):
            break
        _read_record(scan, fields, body, start, read(start, length))
        done = end
    if complete:
        return body + size
    return body + done if compression == "none" else body


def _read_record(
    scan: Scan, header: dict[bytes, bytes], place: int, offset: int, data: bytes
) -> None:
    kind = header[b"op"][0]
    connection = header.get(b"conn", b"")
    if kind == _CONNECTION:
        fields = _fields(data)
        text = fields.get(b"message_definition", b"").decode("utf-8", "replace")
        channel = Channel(
            header.get(b"topic", b"").decode("utf-8", "replace"),
            normalize_msgtype(fields.get(b"type", b"").decode("utf-8", "replace")),
            "ros1",
            MessageDefinition(MessageDefinitionFormat.MSG, text),
            count=0,
            offers=(latching_offer(),) if fields.get(b"latching") == b"1" else (),
        )
        scan.add_channel(connection, channel)
    elif kind == _MESSAGE and len(header.get(b"time", b"")) == 8:
        seconds, nanoseconds = struct.unpack("<II", header[b"time"])
        stamp_ns = seconds * 1_000_000_000 + nanoseconds
        scan.add(connection, stamp_ns, place, offset, len(data))
