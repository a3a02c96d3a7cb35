"""A recorded drive: topics, and messages in the order they were received."""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from qpde_perception.bags.decoding import (
    cdr_bytes,
    decode_message,
    raw_bytes,
    recorded_layout,
)
from qpde_perception.bags.errors import BagError
from qpde_perception.bags.offers import together
from qpde_perception.bags.opening import open_recording

if TYPE_CHECKING:
    import sys
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    from qpde_perception.bags.layouts import Layout
    from qpde_perception.bags.offers import Offer
    from qpde_perception.bags.opening import Opened
    from qpde_perception.bags.parts import Channel, Part, Stored

    if sys.version_info >= (3, 11):
        from typing import Self
    else:
        from typing_extensions import Self

    _Read = Callable[[Channel, int, bytes], "T"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """A topic.

    Attributes:
        name: Its name.
        type: Its message type in the long form.
        count: The number of its messages.
        offer: How it was published; None where the recording does not tell.
    """

    name: str
    type: str
    count: int
    offer: Offer | None = None


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


@dataclass(frozen=True, slots=True)
class SerializedMessage:
    """A message of a drive as ROS 2 sends it.

    Attributes:
        topic: Its topic.
        log_time_ns: When it was received.
        cdr: Its bytes with the four that say how they are encoded; those recorded, where ROS 2
            recorded them.
    """

    topic: str
    log_time_ns: int
    cdr: bytes


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
        self._channels = {channel.topic: channel for channel in reversed(channels)}
        self.topics = tuple(
            TopicInfo(name, channel.type, counts[name], self._offer(name))
            for name, channel in sorted(self._channels.items())
        )
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

        def read(channel: Channel, log_time_ns: int, raw: bytes) -> RecordedMessage:
            message = decode_message(channel, raw)
            return RecordedMessage(channel.topic, channel.type, log_time_ns, message, raw)

        return self._chosen(topics, start_s, duration_s, read)

    def serialized(
        self, topics: Collection[str], *, start_s: float = 0.0, duration_s: float | None = None
    ) -> Iterator[SerializedMessage]:
        """Yield the same messages as `messages`, ready to be sent.

        Raises:
            BagError: As `messages`.
        """

        def read(channel: Channel, log_time_ns: int, raw: bytes) -> SerializedMessage:
            decode_message(channel, raw)  # what cannot be read must not be sent
            return SerializedMessage(channel.topic, log_time_ns, cdr_bytes(channel, raw))

        return self._chosen(topics, start_s, duration_s, read)

    def log_time_at(self, start_s: float) -> int:
        """Return the log time that lies some seconds after the start, nanoseconds."""
        return self.start_ns + round(start_s * 1e9)

    def layout(self, topic: str) -> Layout:
        """Return what the fields of a topic's messages are; see `layout_of`.

        Raises:
            BagError: If its type has no definition, or its messages are not of ROS.
        """
        return recorded_layout(self._channels[topic])

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

    def _offer(self, topic: str) -> Offer | None:
        """Put together what was offered; the parts of a drive are of the same publishers."""
        offers = [
            together(
                offer
                for channel in part.channels
                if channel.topic == topic
                for offer in channel.offers
            )
            for part in self._parts
        ]
        return max((offer for offer in offers if offer is not None), default=None)

    def _chosen(
        self, topics: Collection[str], start_s: float, duration_s: float | None, read: _Read[T]
    ) -> Iterator[T]:
        have = {topic.name for topic in self.topics}
        if missing := sorted(set(topics) - have):
            listed = ", ".join(f"{each.name} ({each.type})" for each in self.topics)
            msg = f"no topic {', '.join(missing)}; the drive has: {listed or 'no topics'}"
            raise BagError(msg)
        start_ns = self.log_time_at(start_s)
        stop_ns = self.end_ns + 1
        if duration_s is not None:
            stop_ns = min(stop_ns, start_ns + round(duration_s * 1e9))
        return self._readable(frozenset(topics), start_ns, stop_ns, read)

    def _readable(
        self, topics: frozenset[str], start_ns: int, stop_ns: int, read: _Read[T]
    ) -> Iterator[T]:
        self._lost_messages.clear()
        for stored in self._stored(topics, start_ns, stop_ns):
            try:
                message = read(stored.channel, stored.log_time_ns, raw_bytes(stored))
            except ValueError:
                self._lost_messages[stored.channel.topic] += 1
                continue
            yield message

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
