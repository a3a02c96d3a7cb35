"""One camera's frames over and over at a fixed rate, each with the messages that belong to it."""

from __future__ import annotations

from dataclasses import replace
from itertools import count as count_up
from typing import TYPE_CHECKING

from qpde_perception.bags.messages import stamp_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from qpde_perception.bags.drive import SerializedMessage

    Frame = tuple[SerializedMessage, ...]

_MOST_BYTES = 256 << 20
# Boxes come a little later than their image.
_READ_ON = 5
_REMEMBERED = 64


def first_frames(
    messages: Iterable[SerializedMessage], camera: str, most: int, most_bytes: int = _MOST_BYTES
) -> list[Frame]:
    """Return the first frames: each image with the messages of its stamp, as recorded.

    Args:
        messages: Messages that begin with a header, by log time.
        camera: Topic of the images.
        most: Number of frames.
        most_bytes: Bytes of messages after which no further is read.
    """
    frames: dict[int, list[SerializedMessage]] = {}
    images: dict[int, None] = {}
    size = 0
    for message in messages:
        stamp_ns = stamp_in(message.cdr)
        frames.setdefault(stamp_ns, []).append(message)
        if message.topic == camera:
            images[stamp_ns] = None
        size += len(message.cdr)
        if len(images) == most + _READ_ON or size > most_bytes:
            break
    return [tuple(frames[stamp_ns]) for stamp_ns in list(images)[:most]]


def at_rate(frames: Sequence[Frame], rate_hz: float, count: int) -> Iterator[SerializedMessage]:
    """Yield frames in turn with the log times of a steady rate, beginning at 0.

    Args:
        frames: At least one frame.
        rate_hz: Frames per second.
        count: Number of frames; 0 for no end.
    """
    for number in range(count) if count else count_up():
        log_time_ns = round(number * 1e9 / rate_hz)
        for message in frames[number % len(frames)]:
            yield replace(message, log_time_ns=log_time_ns)


class NewStamps:
    """Gives messages the time of sending as their stamp, those of one recorded stamp the same.

    What belongs together is found by its stamp: an image and its boxes must not be parted. A topic
    never gets a stamp twice.
    """

    def __init__(self) -> None:
        self._given: dict[int, tuple[int, set[str]]] = {}
        self._last_ns = 0

    def stamp_ns(self, topic: str, recorded_ns: int, now_ns: int) -> int:
        """Return the stamp for a message that is sent now, nanoseconds.

        Args:
            topic: Its topic.
            recorded_ns: Its recorded stamp.
            now_ns: The time.
        """
        given = self._given.get(recorded_ns)
        if given is None or topic in given[1]:
            self._last_ns = max(now_ns, self._last_ns + 1)
            given = self._last_ns, set()
            self._given.pop(recorded_ns, None)
            self._given[recorded_ns] = given
            if len(self._given) > _REMEMBERED:
                del self._given[next(iter(self._given))]
        given[1].add(topic)
        return given[0]
