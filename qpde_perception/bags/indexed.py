"""Reading a file by its index, and what can be saved of it where the index fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rosbags.interfaces import ConnectionExtRosbag2
from rosbags.rosbag1 import Reader as Rosbag1Reader
from rosbags.rosbag2 import Reader as Rosbag2Reader

from qpde_perception.bags.offers import offers_of
from qpde_perception.bags.parts import Channel, Part, Stored, in_order

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    from rosbags.interfaces import Connection


class IndexedPart:
    """A file read by its index; the rest is saved by a scan where reading fails on the way.

    Args:
        path: The file.
        rosbag1: Whether it is a rosbag1 file.
        salvage: Opens the file without its index.

    Raises:
        Exception: Of any kind, if the index cannot be used: a damaged one makes the library fail
            in many ways.
    """

    def __init__(self, path: Path, *, rosbag1: bool, salvage: Callable[[], Part]) -> None:
        self.losses: list[str] = []
        self._salvage = salvage
        self._salvaged: Part | None = None
        self._reader = Rosbag1Reader(path) if rosbag1 else Rosbag2Reader(path)
        self._reader.open()
        connections = self._reader.connections
        self._channels = {each.id: _channel(each) for each in connections}
        self.channels = tuple(self._channels.values())
        self.span_ns = None
        if self._reader.message_count:
            self.span_ns = int(self._reader.start_time), int(self._reader.end_time) - 1

    def messages(self, topics: Collection[str], start_ns: int, stop_ns: int) -> Iterator[Stored]:
        """See `Part`."""
        if self._salvaged is not None:
            yield from self._salvaged.messages(topics, start_ns, stop_ns)
            return
        given_ns = None
        try:
            for stored in in_order(self._read(topics, start_ns, stop_ns)):
                yield stored
                given_ns = stored.log_time_ns
        except Exception:  # noqa: BLE001  # as the class says
            self._salvaged = self._salvage()
            # Times are given out whole or not at all, so the scan continues after the last one.
            resume_ns = start_ns if given_ns is None else given_ns + 1
            yield from self._salvaged.messages(topics, resume_ns, stop_ns)
            self.losses = self._salvaged.losses

    def close(self) -> None:
        """See `Part`."""
        self._reader.close()
        if self._salvaged is not None:
            self._salvaged.close()

    def _read(self, topics: Collection[str], start_ns: int, stop_ns: int) -> Iterator[Stored]:
        wanted = [each for each in self._reader.connections if each.topic in topics]
        if not wanted:
            return
        for connection, log_time_ns, data in self._reader.messages(wanted, start_ns, stop_ns):
            # A damaged database may hold anything in any column.
            if not isinstance(log_time_ns, int) or not isinstance(data, bytes | memoryview):
                raise TypeError
            if log_time_ns < 0:
                raise ValueError
            yield Stored(log_time_ns, self._channels[connection.id], bytes(data))


def _channel(connection: Connection) -> Channel:
    if not isinstance(connection.topic, str) or not isinstance(connection.msgtype, str):
        raise TypeError
    ext = connection.ext
    encoding = ext.serialization_format if isinstance(ext, ConnectionExtRosbag2) else "ros1"
    return Channel(
        connection.topic,
        connection.msgtype,
        encoding,
        connection.msgdef,
        connection.msgcount,
        offers_of(ext),
    )
