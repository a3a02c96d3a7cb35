"""Playing recorded messages at a rate: when each is due, and waiting for it."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from qpde_perception.bags.drive import Drive, SerializedMessage

_SECOND_NS = 1_000_000_000


class Timed(Protocol):
    """Anything with a log time."""

    @property
    def log_time_ns(self) -> int:
        """When it was received, nanoseconds."""


M = TypeVar("M", bound=Timed)


@dataclass(frozen=True, slots=True)
class Tick:
    """A moment between messages: where in the drive the playback is, nanoseconds."""

    position_ns: int


class Schedule:
    """When a position of a drive is due on a steady clock; both in nanoseconds.

    Every time is reckoned from one anchor, so errors of waiting do not add up.

    Args:
        position_ns: Where in the drive it begins.
        now_ns: When.
        rate: How many times faster than recorded, above 0.
        paused: Whether it begins standing still.
    """

    def __init__(self, position_ns: int, now_ns: int, rate: float, *, paused: bool) -> None:
        self._position_ns = position_ns
        self._now_ns = now_ns
        self._rate = rate
        self.paused = paused

    def due_ns(self, position_ns: int) -> int | None:
        """Return when a position is due; None while paused."""
        if self.paused:
            return None
        return self._now_ns + round((position_ns - self._position_ns) / self._rate)

    def position_ns(self, now_ns: int) -> int:
        """Return which position is due at a time."""
        if self.paused:
            return self._position_ns
        return self._position_ns + round((now_ns - self._now_ns) * self._rate)

    def pause(self, now_ns: int) -> None:
        """Stand still."""
        self.move(self.position_ns(now_ns), now_ns)
        self.paused = True

    def resume(self, now_ns: int) -> None:
        """Go on from where it stands."""
        self.move(self.position_ns(now_ns), now_ns)
        self.paused = False

    def move(self, position_ns: int, now_ns: int) -> None:
        """Make a position the present one."""
        self._position_ns, self._now_ns = position_ns, now_ns


class Playback:
    """Gives out messages when they are due; another thread may pause, step and stop it.

    Args:
        rate: How many times faster than recorded, above 0.
        tick_hz: Ticks per second between messages; 0 for none.
        paused: Whether it begins standing still.
    """

    def __init__(self, rate: float, *, tick_hz: float = 0.0, paused: bool = False) -> None:
        self._rate = rate
        self._tick_ns = round(_SECOND_NS / tick_hz) if tick_hz else None
        self._next_tick_ns = 0
        self._schedule = Schedule(0, 0, rate, paused=paused)
        self._steps = 0
        self._stopped = False
        self._changed = threading.Condition()

    @property
    def paused(self) -> bool:
        """Whether it stands still."""
        return self._schedule.paused

    @property
    def stopped(self) -> bool:
        """Whether it was stopped for good."""
        return self._stopped

    def pause(self) -> None:
        """Stand still before the next message."""
        with self._changed:
            self._schedule.pause(time.monotonic_ns())
            self._changed.notify()

    def resume(self) -> None:
        """Go on in the recorded rhythm from here; steps not yet taken are forgotten."""
        with self._changed:
            self._steps = 0
            self._schedule.resume(time.monotonic_ns())
            self._changed.notify()

    def step(self) -> bool:
        """Let one message out while paused; returns whether it is paused."""
        with self._changed:
            if self.paused:
                self._steps += 1
                self._changed.notify()
            return self.paused

    def stop(self) -> None:
        """End it: no further message is given out."""
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def play(self, messages: Iterable[M], start_ns: int) -> Iterator[M | Tick]:
        """Yield each message when it is due, and ticks between.

        The time runs from when the first message is at hand. A message that is late is given out
        at once, and the next one again when it is due.

        Args:
            messages: Messages by log time.
            start_ns: The log time that is due at once.
        """
        begun = False
        for message in messages:
            if not begun:
                with self._changed:
                    self._schedule.move(start_ns, time.monotonic_ns())
                begun = True
            while (tick := self._wait(message.log_time_ns)) is not None:
                yield tick
            if self._stopped:
                return
            yield message

    def _wait(self, position_ns: int) -> Tick | None:
        """Wait until a position is due; returns a tick where one comes before it."""
        with self._changed:
            while not self._stopped:
                now_ns = time.monotonic_ns()
                if self._steps:
                    self._steps -= 1
                    self._schedule.move(position_ns, now_ns)
                    return None
                due_ns = self._schedule.due_ns(position_ns)
                if due_ns is not None and due_ns <= now_ns:
                    return None
                if self._tick_ns is not None:
                    if self._next_tick_ns <= now_ns:
                        # Ticks missed while something else was done are not made up for.
                        missed = (now_ns - self._next_tick_ns) // self._tick_ns
                        self._next_tick_ns += (missed + 1) * self._tick_ns
                        return Tick(min(self._schedule.position_ns(now_ns), position_ns))
                    due_ns = min(due_ns or self._next_tick_ns, self._next_tick_ns)
                self._changed.wait(None if due_ns is None else (due_ns - now_ns) / _SECOND_NS)
        return None


def latched_before(
    drive: Drive, topics: Collection[str], start_s: float
) -> Iterator[SerializedMessage]:
    """Yield what a subscriber who comes at a later start would still get of latched topics.

    Args:
        drive: The drive.
        topics: The topics to look at; those that were not latched give nothing.
        start_s: The start, seconds after that of the drive.
    """
    offers = {each.name: each.offer for each in drive.topics if each.name in topics}
    kept: dict[str, deque[SerializedMessage]] = {
        name: deque(maxlen=offer.depth)
        for name, offer in offers.items()
        if offer is not None and offer.latched
    }
    for message in drive.serialized(kept.keys(), duration_s=start_s):
        kept[message.topic].append(message)
    for messages in kept.values():
        yield from messages
