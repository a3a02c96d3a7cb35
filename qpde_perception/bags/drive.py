"""A recorded drive: topics, and messages in the order they were received."""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qpde_perception.bags.decoding import decode_message, raw_bytes
from qpde_perception.bags.errors import BagError
from qpde_perception.bags.opening import open_recording

if TYPE_CHECKING:
    import sys
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from qpde_perception.bags.opening import Opened
    from qpde_perception.bags.parts import Part, Stored

    if sys.version_info >= (3, 11):
        from typing import Self
    else:
        from typing_extensions import Self


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """A topic, its message type in the long form, and the number of its messages."""

    name: str
    type: str
    count: int


@dataclass(frozen=True, slots=True)
class RecordedMessage:
    """A message of a drive.

    Attributes:
        topic: Its topic.
        type: Its type in the long form, `sensor_msgs/msg/Image`.
        log_time_ns: When it was received.
        message: The message; its arrays are views on `raw`.
        raw: Its bytes, CDR or the serialization of ROS 1.
    """

    topic: str
    type: str
    log_time_ns: int
    message: object
    raw: bytes


class Drive:
    """An open recording; close it, or use it as a context manager.

    Attributes:
        format: `rosbag1`, `mcap`, `sqlite3`, `rosbag2/mcap` or `rosbag2/sqlite3`.
        topics: What was recorded, by name.
        start_ns: Log time of the first message, 0 where there is none.
        end_ns: Log time of the last message.
    """

    def __init__(self, opened: Opened) -> None:
        self.format = opened.format
        self._parts = opened.parts
        self._stack = opened.stack
        self._lost_files = opened.losses
        self._lost_messages: Counter[str] = Counter()
        channels = [channel for part in self._parts for channel in part.channels]
        counts: Counter[str] = Counter()
        for channel in channels:
            counts[channel.topic] += channel.count
        types = {channel.topic: channel.type for channel in reversed(channels)}
        self.topics = tuple(TopicInfo(name, types[name], counts[name]) for name in sorted(types))
        spans = [part.span_ns for part in self._parts if part.span_ns is not None]
        self.start_ns = min((first for first, _ in spans), default=0)
        self.end_ns = max((last for _, last in spans), default=0)

    @property
    def losses(self) -> tuple[str, ...]:
        """One line for everything that could not be read, so far; complete after reading all."""
        return (
            *self._lost_files,
            *(line for part in self._parts for line in part.losses),
            *(
                f"{topic}: {count} messages are damaged and were left out"
                for topic, count in sorted(self._lost_messages.items())
            ),
        )

    def messages(
        self, topics: Collection[str], *, start_s: float = 0.0, duration_s: float | None = None
    ) -> Iterator[RecordedMessage]:
        """Yield messages by log time, where times are equal by topic, then as recorded.

        Args:
            topics: Names of topics; only their messages are deserialized.
            start_s: Where to start, seconds after `start_ns`.
            duration_s: How much of the drive to read, seconds; None for all.

        Raises:
            BagError: If a topic does not exist or cannot be deserialized.
        """
        have = {topic.name for topic in self.topics}
        if missing := sorted(set(topics) - have):
            listed = ", ".join(f"{each.name} ({each.type})" for each in self.topics)
            msg = f"no topic {', '.join(missing)}; the drive has: {listed or 'no topics'}"
            raise BagError(msg)
        start_ns = self.start_ns + round(start_s * 1e9)
        stop_ns = self.end_ns + 1
        if duration_s is not None:
            stop_ns = min(stop_ns, start_ns + round(duration_s * 1e9))
        return self._decoded(frozenset(topics), start_ns, stop_ns)

    def check(self) -> tuple[str, ...]:
        """Read every message of every topic, and return what could not be read."""
        self._lost_messages.clear()
        names = frozenset(topic.name for topic in self.topics)
        for stored in self._stored(names, self.start_ns, self.end_ns + 1):
            try:
                raw_bytes(stored)
            except ValueError:  # noqa: PERF203  # one bad message is not the end
                self._lost_messages[stored.channel.topic] += 1
        return self.losses

    def close(self) -> None:
        """Close the files."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _decoded(
        self, topics: frozenset[str], start_ns: int, stop_ns: int
    ) -> Iterator[RecordedMessage]:
        self._lost_messages.clear()
        for stored in self._stored(topics, start_ns, stop_ns):
            channel = stored.channel
            try:
                raw = raw_bytes(stored)
                message = decode_message(channel, raw)
            except ValueError:
                self._lost_messages[channel.topic] += 1
                continue
            yield RecordedMessage(channel.topic, channel.type, stored.log_time_ns, message, raw)

    def _stored(self, topics: frozenset[str], start_ns: int, stop_ns: int) -> Iterator[Stored]:
        merged = heapq.merge(
            *(_late(part, topics, start_ns, stop_ns) for part in self._parts),
            key=lambda each: each[:2],
        )
        return (stored for _, _, stored in merged if stored is not None)


def open_drive(path: Path) -> Drive:
    """Open a recording: rosbag1, a rosbag2 folder, a bare MCAP or SQLite file.

    One that is damaged is opened with all that can be read of it; see `Drive.losses`.

    Raises:
        BagError: If the path does not exist or is no recording.
    """
    return Drive(open_recording(path))


def drive_info(drive: Drive) -> dict[str, Any]:
    """Return `format`, `duration_s`, `topics` and `readable_to_end`; reads the whole drive.

    Beside these, `losses` says what cannot be read.
    """
    losses = drive.check()
    return {
        "format": drive.format,
        "duration_s": (drive.end_ns - drive.start_ns) / 1e9,
        "topics": [
            {"name": topic.name, "type": topic.type, "count": topic.count} for topic in drive.topics
        ],
        "readable_to_end": not losses,
        "losses": list(losses),
    }


def _late(
    part: Part, topics: frozenset[str], start_ns: int, stop_ns: int
) -> Iterator[tuple[int, str, Stored | None]]:
    """Yield (log time, topic, message), opening the part only when its time has come."""
    if part.span_ns is None or part.span_ns[1] < start_ns or part.span_ns[0] >= stop_ns:
        return
    yield part.span_ns[0], "", None
    for stored in part.messages(topics, start_ns, stop_ns):
        yield stored.log_time_ns, stored.channel.topic, stored
