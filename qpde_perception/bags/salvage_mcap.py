"""Saving an MCAP file that was not closed, was cut off, or has a damaged chunk."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import TYPE_CHECKING

from mcap.data_stream import ReadDataStream
from mcap.opcode import Opcode
from mcap.records import Channel, Schema
from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat
from rosbags.typesys.msg import normalize_msgtype

from qpde_perception.bags import parts
from qpde_perception.bags.offers import parse_offers
from qpde_perception.bags.salvage import OUTSIDE_CHUNKS, ChunkedFile, SalvagedPart, Scan

if TYPE_CHECKING:
    from pathlib import Path

MAGIC = b"\x89MCAP0\r\n"
_RECORD = struct.Struct("<BQ")
_MESSAGE = struct.Struct("<HIQQ")
_CHUNK = struct.Struct("<QQQII")
_FORMATS = {
    "ros1msg": MessageDefinitionFormat.MSG,
    "ros2msg": MessageDefinitionFormat.MSG,
    "ros2idl": MessageDefinitionFormat.IDL,
    "omgidl": MessageDefinitionFormat.IDL,
}


def salvage_mcap(path: Path) -> SalvagedPart:
    """Open an MCAP file by scanning its records.

    Args:
        path: The file, which begins with `MAGIC`.
    """
    file, scan = ChunkedFile(path), _McapScan()
    position, ended = len(MAGIC), False
    while position + _RECORD.size <= file.size:
        opcode, size = _RECORD.unpack(file.read(position, _RECORD.size))
        body = position + _RECORD.size
        if opcode in {Opcode.DATA_END, Opcode.FOOTER}:
            ended = True
            break
        if opcode == Opcode.CHUNK:
            scan.read_chunk(file, body, size, path.name)
        elif opcode == 0 or body + size > file.size:
            break
        elif opcode in {Opcode.SCHEMA, Opcode.CHANNEL}:
            scan.read_record(opcode, file.read(body, size), OUTSIDE_CHUNKS, body)
        elif opcode == Opcode.MESSAGE:
            scan.read_record(opcode, file.read(body, _MESSAGE.size), OUTSIDE_CHUNKS, body, size)
        position = body + size
    if not ended:
        scan.losses.append(
            f"{path.name}: was not closed or is cut off; {len(scan.entries)} messages were saved, "
            f"nothing after byte {min(position, file.size)}"
        )
    return SalvagedPart(scan, file.load, file.close)


class _McapScan(Scan):
    """A scan that knows the records of MCAP."""

    def __init__(self) -> None:
        super().__init__()
        self._schemas: dict[int, Schema] = {}

    def read_chunk(self, file: ChunkedFile, body: int, size: int, name: str) -> None:
        """Read the records of a chunk, also of one that the end of the file cuts off."""
        head = file.read(body, _CHUNK.size)
        if len(head) < _CHUNK.size:
            return
        _, _, unpacked_size, checksum, length = _CHUNK.unpack(head)
        rest = file.read(body + _CHUNK.size, length + 8)
        if len(rest) < length + 8:
            return
        compression = rest[:length].decode("ascii", "replace")
        place = body + _CHUNK.size + length + 8
        data = file.chunk(place, body + size - place, compression, unpacked_size)
        if body + size <= file.size and (
            len(data) != unpacked_size or (checksum and zlib.crc32(data) != checksum)
        ):
            self.losses.append(f"{name}: the chunk at byte {body} is damaged and was left out")
            return
        position = 0
        while position + _RECORD.size <= len(data):
            opcode, record_size = _RECORD.unpack_from(data, position)
            position += _RECORD.size
            if position + record_size > len(data):
                break
            record = data[position : position + record_size]
            self.read_record(opcode, record, place, position)
            position += record_size

    def read_record(
        self, opcode: int, record: bytes, place: int, offset: int, size: int | None = None
    ) -> None:
        """Note a schema, a channel or a message.

        Args:
            opcode: What the record is.
            record: Its bytes; of a message at least the beginning.
            place: Where its chunk begins.
            offset: Where it begins in the chunk or the file.
            size: Its bytes where `record` is only the beginning.
        """
        try:
            if opcode == Opcode.SCHEMA:
                schema = Schema.read(ReadDataStream(BytesIO(record)))
                self._schemas.setdefault(schema.id, schema)
            elif opcode == Opcode.CHANNEL:
                self._add(Channel.read(ReadDataStream(BytesIO(record))))
            elif opcode == Opcode.MESSAGE:
                channel, _, log_time_ns, _ = _MESSAGE.unpack_from(record)
                length = (len(record) if size is None else size) - _MESSAGE.size
                self.add(channel, log_time_ns, place, offset + _MESSAGE.size, length)
        except Exception:  # noqa: BLE001  # the library's parsers fail in many ways
            self.losses.append(f"the record at byte {offset} is damaged and was left out")

    def _add(self, channel: Channel) -> None:
        schema = self._schemas.get(channel.schema_id)
        kind, definition = "", MessageDefinition(MessageDefinitionFormat.NONE, "")
        if schema is not None:
            kind = schema.name
            if schema.encoding in _FORMATS:
                kind = normalize_msgtype(schema.name)
                text = schema.data.decode()
                definition = MessageDefinition(_FORMATS[schema.encoding], text)
        offers = parse_offers(channel.metadata.get("offered_qos_profiles", ""))
        encoding = channel.message_encoding
        self.add_channel(
            channel.id, parts.Channel(channel.topic, kind, encoding, definition, 0, offers)
        )
