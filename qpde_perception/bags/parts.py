"""One file of a recording, whatever its format: what all readers of files give."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from rosbags.interfaces import MessageDefinition

    from qpde_perception.bags.offers import Offer


@dataclass(frozen=True, slots=True)
class Channel:
    """One kind of message in a file.

    Attributes:
        topic: Its name.
        type: Message type in the long form, `sensor_msgs/msg/Image`.
        encoding: `cdr`, `ros1`, or what else an MCAP file may hold.
        definition: Message definition as recorded, of format NONE where the file has none.
        count: Messages.
        offers: What its publishers offered, as far as it was recorded.
    """

    topic: str
    type: str
    encoding: str
    definition: MessageDefinition
    count: int
    offers: tuple[Offer, ...] = ()


@dataclass(frozen=True, slots=True)
class Stored:
    """A message as it lies in the file, perhaps compressed by itself."""

    log_time_ns: int
    channel: Channel
    data: bytes


class Part(Protocol):
    """An open file.

    Attributes:
        channels: What it holds.
        span_ns: Log times of its first and its last message; None where it has none.
        losses: One line for each thing that cannot be read, complete once all is read.
    """

    channels: tuple[Channel, ...]
    span_ns: tuple[int, int] | None
    losses: list[str]

    def messages(self, topics: Collection[str], start_ns: int, stop_ns: int) -> Iterator[Stored]:
        """Yield the messages of some topics in the order of `in_order`.

        Args:
            topics: Names of topics.
            start_ns: The first log time wanted.
            stop_ns: The first log time no longer wanted.
        """

    def close(self) -> None:
        """Close the file."""


def in_order(messages: Iterable[Stored]) -> Iterator[Stored]:
    """Sort messages that come in log-time order by topic where their times are equal.

    Those of one topic and time stay in the order they were recorded.
    """
    for _, same in groupby(messages, key=lambda each: each.log_time_ns):
        yield from sorted(same, key=lambda each: each.channel.topic)
