"""Reading a damaged file: a scan from its beginning notes where every whole message lies."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from qpde_perception.bags.packed import COMPRESSIONS, decompressor
from qpde_perception.bags.parts import Stored

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Iterator
    from pathlib import Path
    from typing import BinaryIO

    from qpde_perception.bags.parts import Channel

_PIECE = 1 << 14
_CHUNKS_KEPT = 4
OUTSIDE_CHUNKS = -1


class Entry(NamedTuple):
    """Where a message lies; entries sort as messages are given out.

    Attributes:
        log_time_ns: When it was received.
        topic: Its topic.
        sequence: Its number in the file.
        place: Byte at which the chunk's data begin, or the page; `OUTSIDE_CHUNKS` for none.
        offset: Its first byte in the chunk, the page or the file.
        size: Its bytes.
        key: The channel.
    """

    log_time_ns: int
    topic: str
    sequence: int
    place: int
    offset: int
    size: int
    key: Hashable


class Scan:
    """What a scan has found so far.

    Attributes:
        entries: The messages.
        losses: One line for each thing that cannot be read.
    """

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.losses: list[str] = []
        self._channels: dict[Hashable, Channel] = {}

    def add_channel(self, key: Hashable, channel: Channel) -> None:
        """Note a channel before its messages; one that is known already is left as it is.

        The number of its messages is counted here, whatever it says.
        """
        self._channels.setdefault(key, channel)

    def add(self, key: Hashable, log_time_ns: int, place: int, offset: int, size: int) -> None:
        """Note a message; one of a channel that nobody has announced cannot be read."""
        if key in self._channels and log_time_ns >= 0:
            topic = self._channels[key].topic
            number = len(self.entries)
            self.entries.append(Entry(log_time_ns, topic, number, place, offset, size, key))

    def channels(self) -> dict[Hashable, Channel]:
        """Return the channels with the number of their messages."""
        counts = Counter(entry.key for entry in self.entries)
        return {key: replace(each, count=counts[key]) for key, each in self._channels.items()}


class SalvagedPart:
    """The whole messages of a damaged file; a list of places is in memory, the bytes are not.

    Args:
        scan: What was found.
        load: Reads a message.
        close: Closes the file.
    """

    def __init__(
        self, scan: Scan, load: Callable[[Entry], bytes], close: Callable[[], None]
    ) -> None:
        self._entries = sorted(scan.entries)
        self._channels = scan.channels()
        self._load = load
        self.close = close
        self.losses = scan.losses
        self.channels = tuple(self._channels.values())
        self.span_ns = None
        if self._entries:
            self.span_ns = self._entries[0].log_time_ns, self._entries[-1].log_time_ns

    def messages(self, topics: Collection[str], start_ns: int, stop_ns: int) -> Iterator[Stored]:
        """See `Part`."""
        for entry in self._entries:
            if entry.topic in topics and start_ns <= entry.log_time_ns < stop_ns:
                yield Stored(entry.log_time_ns, self._channels[entry.key], self._load(entry))


class ChunkedFile:
    """A file of chunks, each compressed by itself, as rosbag1 and MCAP have them.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.stream: BinaryIO = path.open("rb")
        self.size = path.stat().st_size
        self._chunks: dict[int, tuple[int, str, int]] = {}
        self._unpacked = lru_cache(maxsize=_CHUNKS_KEPT)(self._unpack)

    def read(self, offset: int, size: int) -> bytes:
        """Read bytes, fewer where the file ends."""
        self.stream.seek(offset)
        return self.stream.read(max(0, min(size, self.size - offset)))

    def chunk(self, place: int, size: int, compression: str, unpacked_size: int) -> bytes:
        """Return what can be unpacked of a chunk, and remember the chunk for `load`.

        Args:
            place: Byte at which its data begin.
            size: Its bytes in the file.
            compression: Empty or `none`, `zstd`, `lz4` or `bz2`.
            unpacked_size: Its bytes when unpacked.
        """
        self._chunks[place] = size, compression, unpacked_size
        return self._unpacked(place)

    def load(self, entry: Entry) -> bytes:
        """Read a message."""
        if entry.place == OUTSIDE_CHUNKS:
            return self.read(entry.offset, entry.size)
        return self._unpacked(entry.place)[entry.offset : entry.offset + entry.size]

    def close(self) -> None:
        """Close the file."""
        self.stream.close()

    def _unpack(self, place: int) -> bytes:
        size, compression, unpacked_size = self._chunks[place]
        data = self.read(place, size)
        if compression in {"", "none"}:
            return data
        return unpack_prefix(compression, data, unpacked_size)


def unpack_prefix(compression: str, data: bytes, limit: int) -> bytes:
    """Unpack as much as is there and undamaged.

    Args:
        compression: `zstd`, `lz4` or `bz2`; another gives nothing.
        data: Compressed bytes, perhaps cut off.
        limit: Bytes after which to stop.
    """
    if compression not in COMPRESSIONS:
        return b""
    unpacker = decompressor(compression)
    unpacked = bytearray()
    try:
        for start in range(0, len(data), _PIECE):
            unpacked += unpacker.decompress(data[start : start + _PIECE])
            if len(unpacked) >= limit:
                break
    except Exception:  # noqa: BLE001, S110  # each library has its own way to say damaged
        pass
    return bytes(unpacked)
