"""A drive without end that nobody recorded: another one again and again, with stamps that go on."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat

from qpde_perception.bags import Drive, typestore
from qpde_perception.bags.definitions import COMPRESSED_IMAGE
from qpde_perception.bags.messages import restamped, stamp_of
from qpde_perception.bags.opening import Opened
from qpde_perception.bags.parts import Channel, Stored

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from qpde_perception.bags.drive import RecordedMessage

PAUSE_NS = 2_000_000_000
_NO_END_NS = 2**62


class EndlessPart:
    """A file that is not there: what it holds is made as it is read, and kept by nobody.

    Attributes:
        channels: Those of the messages that are repeated.
        span_ns: From their first to the end of time.
        losses: None.
        bytes_read: Bytes of messages given out so far.
    """

    def __init__(self, messages: Sequence[RecordedMessage], channels: Sequence[Channel]) -> None:
        """Take the messages that are repeated; they begin with a header, as CDR, by log time."""
        self._messages = messages
        self._channels = {channel.topic: channel for channel in channels}
        self.channels = tuple(channels)
        self._period_ns = messages[-1].log_time_ns - messages[0].log_time_ns + PAUSE_NS
        self.span_ns = messages[0].log_time_ns, _NO_END_NS
        self.losses: list[str] = []
        self.bytes_read = 0

    def messages(self, topics: Collection[str], start_ns: int, stop_ns: int) -> Iterator[Stored]:
        """See `Part`."""
        chosen = [each for each in self._messages if each.topic in topics]
        for lap in count():
            for each in chosen:
                later_ns = lap * self._period_ns
                log_time_ns = each.log_time_ns + later_ns
                if log_time_ns >= stop_ns:
                    return
                if log_time_ns < start_ns:
                    continue
                data = restamped(each.raw, stamp_of(each.message) + later_ns)
                self.bytes_read += len(data)
                yield Stored(log_time_ns, self._channels[each.topic], data)

    def close(self) -> None:
        """See `Part`."""


def endless_drive(drive: Drive, padded_bytes: int = 0) -> tuple[Drive, EndlessPart]:
    """Return a drive that repeats another one of CDR messages, and the part that makes it.

    Args:
        drive: What is repeated; it may be closed afterwards.
        padded_bytes: Bytes to which each compressed image is filled up with zeros, as by a camera
            that sends buffers of one size.
    """
    messages = [
        _padded(each, padded_bytes) if each.type == COMPRESSED_IMAGE else each
        for each in drive.messages([topic.name for topic in drive.topics])
    ]
    nothing = MessageDefinition(MessageDefinitionFormat.NONE, "")
    channels = [Channel(topic.name, topic.type, "cdr", nothing, 0) for topic in drive.topics]
    part = EndlessPart(messages, channels)
    return Drive(Opened("simulated", (part,), (), ExitStack())), part


def _padded(recorded: RecordedMessage, size: int) -> RecordedMessage:
    message: Any = recorded.message
    missing = max(size - len(message.data), 0)
    filled = replace(message, data=np.append(message.data, np.zeros(missing, np.uint8)))
    raw = bytes(typestore().serialize_cdr(filled, recorded.type))
    return replace(recorded, message=filled, raw=raw)
