"""Saving an SQLite recording that is cut off, or whose last messages are still in its log.

The pages of the database are read directly, as its published file format describes them: SQLite
itself refuses a file that is too short. Rows are recognised by what rosbag2 writes into them.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat
from rosbags.typesys.msg import normalize_msgtype

from qpde_perception.bags.offers import parse_offers
from qpde_perception.bags.parts import Channel
from qpde_perception.bags.salvage import Entry, SalvagedPart, Scan

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAGIC = b"SQLite format 3\x00"
_LEAF = 0x0D
_INTEGER_BYTES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8, 8: 0, 9: 0}
_FORMATS = {"ros2msg": MessageDefinitionFormat.MSG, "ros2idl": MessageDefinitionFormat.IDL}
_LONGEST_TEXT = 1 << 24


def needs_salvage(path: Path) -> bool:
    """Whether SQLite would give less than is there, or make up what is not.

    It fills the missing end of a file with zeros, and a file opened for reading only is read
    without the write-ahead log that holds a killed recorder's last messages.
    """
    log = _log_of(path)
    if log.is_file() and log.stat().st_size:
        return True
    with path.open("rb") as stream:
        head = stream.read(100)
    return int.from_bytes(head[28:32], "big") * _page_size(head) > path.stat().st_size


def salvage_sqlite(path: Path) -> SalvagedPart:
    """Open a database of rosbag2 by scanning its pages.

    Args:
        path: The file, which begins with `MAGIC`; its write-ahead log beside it is read too.
    """
    pages = _Pages(path)
    scan = _scan(pages)
    if pages.missing:
        scan.losses.append(
            f"{path.name}: is cut off; {len(scan.entries)} messages were saved, "
            f"{pages.missing} of {pages.count + pages.missing} pages are lost"
        )

    def load(entry: Entry) -> bytes:
        payload = pages.payload(*pages.cell(entry.place, entry.offset))
        return payload[-entry.size :] if entry.size else b""

    return SalvagedPart(scan, load, pages.close)


class _Pages:
    """The pages of a database, newer ones from its write-ahead log first."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._log = None
        head = self._file.read(100)
        self.size = _page_size(head)
        self.usable = self.size - head[20] if len(head) == 100 else 0
        # A power of two of at least 512 says the format; without one there are no pages.
        valid = self.usable >= 480 and self.size & (self.size - 1) == 0
        self.count = path.stat().st_size // self.size if valid else 0
        self._logged: dict[int, int] = {}
        announced = int.from_bytes(head[28:32], "big")
        if valid and _log_of(path).is_file():
            self._log = _log_of(path).open("rb")
            announced = self._read_log() or announced
        self.count = max(self.count, *self._logged, 0)
        self.missing = max(0, announced - self.count) if valid else 1

    def _read_log(self) -> int:
        """Note where committed pages lie in the log; return the pages of the whole database."""
        assert self._log is not None
        salt = self._log.read(32)[16:24]
        pending: dict[int, int] = {}
        announced = 0
        while True:
            head = self._log.read(24)
            offset = self._log.tell()
            data = self._log.read(self.size)
            if len(head) < 24 or len(data) < self.size or head[8:16] != salt:
                return announced
            number, committed = struct.unpack(">II", head[:8])
            pending[number] = offset
            if committed:
                self._logged.update(pending)
                pending.clear()
                announced = committed

    def read(self, number: int, offset: int, size: int) -> bytes:
        """Read a part of a page, numbered from 1; nothing where the page is missing."""
        if number in self._logged and self._log is not None:
            self._log.seek(self._logged[number] + offset)
            return self._log.read(size)
        if not 1 <= number <= self.count:
            return b""
        self._file.seek((number - 1) * self.size + offset)
        return self._file.read(size)

    def cells(self, number: int) -> Iterator[int]:
        """Yield where the rows of a page begin; nothing where it holds none."""
        page = self.read(number, 0, self.size)
        start = 100 if number == 1 else 0
        if len(page) < self.size or page[start] != _LEAF:
            return
        count = int.from_bytes(page[start + 3 : start + 5], "big")
        for index in range(count):
            at = start + 8 + 2 * index
            offset = int.from_bytes(page[at : at + 2], "big")
            if at + 2 > self.usable or not start + 8 <= offset < self.usable:
                return
            yield offset

    def cell(self, number: int, offset: int) -> tuple[int, int, bytes, int]:
        """Return row number, size of the row, its bytes in the page, and the page of the rest."""
        page = self.read(number, 0, self.size)
        size, position = _varint(page, offset)
        row, position = _varint(page, position)
        local = size
        if size > self.usable - 35:
            smallest = (self.usable - 12) * 32 // 255 - 23
            local = smallest + (size - smallest) % (self.usable - 4)
            if local > self.usable - 35:
                local = smallest
        data = page[position : position + local]
        rest = page[position + local : position + local + 4] if local < size else b""
        return row, size, data, int.from_bytes(rest, "big")

    def is_whole(self, size: int, data: bytes, following: int) -> bool:
        """Whether the pages that a row continues on are all there."""
        missing = size - len(data)
        while missing > 0:
            head = self.read(following, 0, 4)
            if not following or len(head) < 4:
                return False
            missing -= self.usable - 4
            following = int.from_bytes(head, "big")
        return following == 0

    def payload(self, _row: int, size: int, data: bytes, following: int) -> bytes:
        """Return the bytes of a row with those on other pages."""
        pieces = [data]
        missing = size - len(data)
        while missing > 0:
            page = self.read(following, 0, self.usable)
            pieces.append(page[4 : 4 + missing])
            missing -= self.usable - 4
            following = int.from_bytes(page[:4], "big")
        return b"".join(pieces)

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._log is not None:
            self._log.close()


def _scan(pages: _Pages) -> Scan:
    scan = Scan()
    topics: dict[int, tuple[str, str, str, str]] = {}
    definitions: dict[str, MessageDefinition] = {}
    found: dict[int, tuple[int, int, int, int, int]] = {}
    for number in range(1, pages.count + 1):
        for offset in pages.cells(number):
            row, size, data, following = pages.cell(number, offset)
            kinds, values = _columns(data)
            if not kinds or kinds[0] != 0 or not pages.is_whole(size, data, following):
                continue
            if len(kinds) == 4 and kinds[1] in _INTEGER_BYTES and kinds[2] in _INTEGER_BYTES:
                topic = _integer(kinds[1], values)
                stamp_ns = _integer(kinds[2], values[_INTEGER_BYTES[kinds[1]] :])
                found[row] = stamp_ns, topic, number, offset, max(0, (kinds[3] - 12) // 2)
            elif len(kinds) >= 4 and size < _LONGEST_TEXT:
                whole = pages.payload(row, size, data, following)
                texts = _texts(*_columns(whole))
                if texts[2:3] == ["cdr"]:
                    topics[row] = texts[0], texts[1], texts[2], "".join(texts[3:4])
                elif len(texts) > 2 and texts[1] in _FORMATS:
                    definitions[texts[0]] = MessageDefinition(_FORMATS[texts[1]], texts[2])
    nothing = MessageDefinition(MessageDefinitionFormat.NONE, "")
    for key, (name, kind, encoding, profiles) in sorted(topics.items()):
        definition = definitions.get(kind, nothing)
        offers = parse_offers(profiles)
        channel = Channel(name, normalize_msgtype(kind), encoding, definition, 0, offers)
        scan.add_channel(key, channel)
    for _, (stamp_ns, topic, number, offset, size) in sorted(found.items()):
        scan.add(topic, stamp_ns, number, offset, size)
    return scan


def _log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _page_size(head: bytes) -> int:
    size = int.from_bytes(head[16:18], "big")
    return 65536 if size == 1 else size


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(data[position : position + 9]):
        if index == 8:
            return value << 8 | byte, position + 9
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, position + index + 1
    return 0, len(data)


def _columns(data: bytes) -> tuple[list[int], bytes]:
    """Return the storage kinds of a row's columns, and the bytes of their values."""
    end, position = _varint(data, 0)
    kinds = []
    while position < min(end, len(data)):
        kind, position = _varint(data, position)
        kinds.append(kind)
    return kinds, data[end:]


def _integer(kind: int, values: bytes) -> int:
    if kind in {8, 9}:
        return kind - 8
    return int.from_bytes(values[: _INTEGER_BYTES[kind]], "big", signed=True)


def _texts(kinds: list[int], values: bytes) -> list[str]:
    """Return the values after the first column while they are text."""
    texts = []
    position = 0
    for kind in kinds[1:]:
        if kind < 13 or kind % 2 == 0:
            break
        size = (kind - 13) // 2
        texts.append(values[position : position + size].decode("utf-8", "replace"))
        position += size
    return texts
