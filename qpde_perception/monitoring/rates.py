"""Rates, delay and jitter of one camera's stream, with the keys of NVIDIA's greenwave_monitor."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from qpde_perception.monitoring.errors import MonitoringError

_NS_PER_S = 1_000_000_000
_NS_PER_MS = 1_000_000
_NS_PER_US = 1_000
# Stamps of a clock that starts with the machine are decades away from the time of day.
_NONSENSE_DELAY_NS = 365 * 24 * 3600 * _NS_PER_S
# One interval of a slow camera is jitter, not a rate.
_FEWEST_INTERVALS = 10
# While a clock stands still nothing grows old; this bounds what is kept.
_MOST_FRAMES = 1000


@dataclass(frozen=True, slots=True)
class ExpectedRate:
    """How often a camera should send.

    Attributes:
        frequency_hz: Frames a second, above 0.
        tolerance_percent: How far a rate, or an interval between two frames, may be off; percent
            of the expected one, 0 or more.

    Raises:
        MonitoringError: If one is out of its range or not finite.
    """

    frequency_hz: float
    tolerance_percent: float = 5.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.frequency_hz) and self.frequency_hz > 0):
            msg = (
                f"expected_frequency is {self.frequency_hz}; give frames a second above 0, or "
                "leave it out"
            )
            raise MonitoringError(msg)
        if not (math.isfinite(self.tolerance_percent) and self.tolerance_percent >= 0):
            msg = f"tolerance is {self.tolerance_percent}; give percent, 0 or more"
            raise MonitoringError(msg)

    @property
    def period_ns(self) -> int:
        """Time between two frames, nanoseconds."""
        return round(_NS_PER_S / self.frequency_hz)

    def holds(self, frequency_hz: float) -> bool:
        """Whether a rate is within the tolerance."""
        off = abs(frequency_hz - self.frequency_hz)
        return off <= self.frequency_hz * self.tolerance_percent / 100


@dataclass(frozen=True, slots=True)
class StreamSnapshot:
    """What is known of a stream at one moment; None where there is not enough data to say.

    Attributes:
        expected: How often the camera should send; None where nobody said.
        frames: Frames since the start.
        frame_rate_node: Rate of arrival by the node's clock over the window, Hz.
        frame_rate_msg: Rate of the headers' stamps over the window, Hz.
        current_delay_from_realtime_ms: Arrival of the last frame less its stamp, milliseconds;
            negative where the stamp lies in the future; None where it has none, or one that is
            more than a year away.
        mean_abs_jitter_node: Mean of |interval of arrival - expected interval| over the window,
            microseconds.
        mean_abs_jitter_msg: The same of the stamps.
        max_abs_jitter_node: Largest such jitter since the start, microseconds.
        max_abs_jitter_msg: The same of the stamps.
        num_jitter_outliers_node: Intervals of arrival beyond the tolerance since the start.
        num_jitter_outliers_msg: The same of the stamps.
        num_non_increasing_msg: Stamps not above the one before, since the start.
        num_unstamped: Frames without a stamp (zero or negative), since the start.
        num_restarts: Times that the clock, or the stamps by more than the stated step, went back.
    """

    expected: ExpectedRate | None
    frames: int
    frame_rate_node: float | None
    frame_rate_msg: float | None
    current_delay_from_realtime_ms: float | None
    mean_abs_jitter_node: float | None
    mean_abs_jitter_msg: float | None
    max_abs_jitter_node: float | None
    max_abs_jitter_msg: float | None
    num_jitter_outliers_node: int | None
    num_jitter_outliers_msg: int | None
    num_non_increasing_msg: int
    num_unstamped: int
    num_restarts: int


class StreamStatistics:
    """Statistics of one camera's stream.

    Rates and means are taken over a window and start anew when time goes back; counts and maxima
    run from the start. The window holds the intervals of the last `window_ms` by the node's clock,
    and at least the last ten.
    """

    def __init__(
        self,
        expected: ExpectedRate | None = None,
        *,
        window_ms: float = 1000.0,
        restart_ms: float = 1000.0,
    ) -> None:
        """Start with nothing seen.

        Args:
            expected: How often the camera should send; jitter is measured against it.
            window_ms: Length of the window, milliseconds by the node's clock.
            restart_ms: Stamps that go back by more than this belong to a stream that was restarted,
                restamped or looped; by less, to frames out of order.
        """
        self._expected = expected
        self._window_ns = round(window_ms * _NS_PER_MS)
        self._restart_ns = round(restart_ms * _NS_PER_MS)
        self._window: deque[_Frame] = deque(maxlen=_MOST_FRAMES)
        self._last_stamp_ns: int | None = None
        self._frames = 0
        self._non_increasing = 0
        self._unstamped = 0
        self._restarts = 0
        self._jitter_node = _Jitter(expected)
        self._jitter_msg = _Jitter(expected)

    def add(self, stamp_ns: int, arrival_ns: int) -> None:
        """Take in a frame.

        Args:
            stamp_ns: Stamp of the frame's header, nanoseconds; 0 where it was never set.
            arrival_ns: Time of its arrival on the clock of the node, nanoseconds.
        """
        stamped = _Frame(arrival_ns, stamp_ns if stamp_ns > 0 else None)
        self._frames += 1
        self._unstamped += stamped.stamp_ns is None
        stamp_went_back_ns = 0
        if stamped.stamp_ns is not None and self._last_stamp_ns is not None:
            stamp_went_back_ns = self._last_stamp_ns - stamped.stamp_ns
            self._non_increasing += stamp_went_back_ns >= 0
        clock_went_back = bool(self._window) and arrival_ns < self._window[-1].arrival_ns
        if clock_went_back or stamp_went_back_ns > self._restart_ns:
            self._restarts += 1
            self.reset()
        if self._window:
            last = self._window[-1]
            self._jitter_node.add(arrival_ns - last.arrival_ns)
            if last.stamp_ns is not None and stamped.stamp_ns is not None:
                self._jitter_msg.add(stamped.stamp_ns - last.stamp_ns)
        self._window.append(stamped)
        while (
            len(self._window) > _FEWEST_INTERVALS + 1
            and arrival_ns - self._window[0].arrival_ns > self._window_ns
        ):
            self._window.popleft()
        if stamped.stamp_ns is not None:
            self._last_stamp_ns = stamped.stamp_ns

    def reset(self) -> None:
        """Forget the window: the clock jumped, and intervals across the jump mean nothing."""
        self._window.clear()
        self._last_stamp_ns = None

    def snapshot(self) -> StreamSnapshot:
        """Return the figures of this moment."""
        arrivals = [
            after.arrival_ns - before.arrival_ns for before, after in pairwise(self._window)
        ]
        stamps = [
            after.stamp_ns - before.stamp_ns
            for before, after in pairwise(self._window)
            if before.stamp_ns is not None and after.stamp_ns is not None
        ]
        return StreamSnapshot(
            expected=self._expected,
            frames=self._frames,
            frame_rate_node=_rate(arrivals),
            frame_rate_msg=_rate(stamps),
            current_delay_from_realtime_ms=_delay_ms(self._window[-1]) if self._window else None,
            mean_abs_jitter_node=self._jitter_node.mean_us(arrivals),
            mean_abs_jitter_msg=self._jitter_msg.mean_us(stamps),
            max_abs_jitter_node=self._jitter_node.max_us,
            max_abs_jitter_msg=self._jitter_msg.max_us,
            num_jitter_outliers_node=self._jitter_node.outliers,
            num_jitter_outliers_msg=self._jitter_msg.outliers,
            num_non_increasing_msg=self._non_increasing,
            num_unstamped=self._unstamped,
            num_restarts=self._restarts,
        )


class _Frame(NamedTuple):
    arrival_ns: int
    stamp_ns: int | None


class _Jitter:
    """|interval - expected interval|: the largest and the outliers since the start."""

    def __init__(self, expected: ExpectedRate | None) -> None:
        self._period_ns = None if expected is None else expected.period_ns
        self._tolerance_percent = 0.0 if expected is None else expected.tolerance_percent
        self.max_us: float | None = None
        self.outliers: int | None = None if expected is None else 0

    def add(self, interval_ns: int) -> None:
        if self._period_ns is None or self.outliers is None:
            return
        jitter_ns = abs(interval_ns - self._period_ns)
        self.max_us = max(self.max_us or 0.0, jitter_ns / _NS_PER_US)
        self.outliers += jitter_ns * 100 > self._period_ns * self._tolerance_percent

    def mean_us(self, intervals_ns: list[int]) -> float | None:
        if self._period_ns is None or not intervals_ns:
            return None
        total_ns = sum(abs(interval_ns - self._period_ns) for interval_ns in intervals_ns)
        return total_ns / len(intervals_ns) / _NS_PER_US


def _rate(intervals_ns: list[int]) -> float | None:
    # Intervals below zero stay in: frames out of order then cancel out.
    span_ns = sum(intervals_ns)
    return len(intervals_ns) * _NS_PER_S / span_ns if span_ns > 0 else None


def _delay_ms(frame: _Frame) -> float | None:
    if frame.stamp_ns is None or abs(frame.arrival_ns - frame.stamp_ns) > _NONSENSE_DELAY_NS:
        return None
    return (frame.arrival_ns - frame.stamp_ns) / _NS_PER_MS
