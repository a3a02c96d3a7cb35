"""Frames lost before they reached the node, apart from those that the node drops itself."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

# A gap counts where it is this close to whole periods; clocks and cameras are never exact.
_OFF_PERIODS = 0.2
# A longer pause is a camera that stopped, which the watchdog reports, not frames that were lost.
_LONGEST_GAP_PERIODS = 30
# A camera may run faster than expected; by more than this, the numbers are another publisher's.
_FASTEST = 2


class LossSource(str, Enum):
    """What losses are counted from; the value is what diagnostics show."""

    SEQUENCE_NUMBERS = "sequence_numbers"
    STAMPS = "stamps"


@dataclass(frozen=True, slots=True)
class LossSnapshot:
    """What is known of a camera's upstream losses.

    Attributes:
        lost: Frames lost since the start; None where nothing tells.
        source: What the last frame was counted from; None where nothing tells.
    """

    lost: int | None
    source: LossSource | None


class UpstreamLosses:
    """Counts the frames of one camera that were published, or captured, and never arrived.

    Where the middleware numbers what a publisher sends, each number left out is a lost frame: by
    the network, or in the queue of the subscription before the node took it. A number not above the
    one before, or one so far ahead that the stamps leave no time for the frames between, comes from
    a publisher that was restarted or from a second one, and counts nothing.

    Without numbers, losses are estimated from the stamps, where the period is known: a gap within
    0.2 periods of k whole periods, k from 2 to 30, counts as k - 1 lost frames. Any other gap
    counts nothing: a late frame, a pause, a stamp of zero, a clock that went back.
    """

    def __init__(self, expected_period_ns: int | None = None) -> None:
        """Start with nothing seen.

        Args:
            expected_period_ns: Time between two frames, nanoseconds, above 0; None where nobody
                said.
        """
        self._period_ns = expected_period_ns
        self._last_stamp_ns: int | None = None
        self._last_number: int | None = None
        self._lost = 0
        self._source: LossSource | None = None

    def add(self, stamp_ns: int, sequence_number: int | None = None) -> None:
        """Take in a frame.

        Args:
            stamp_ns: Stamp of the frame's header, nanoseconds; 0 where it was never set.
            sequence_number: The publisher's number of the message; None where the middleware gives
                none.
        """
        gap_ns = None
        if stamp_ns > 0 and self._last_stamp_ns is not None:
            gap_ns = stamp_ns - self._last_stamp_ns
        if sequence_number is not None:
            self._source = LossSource.SEQUENCE_NUMBERS
            self._lost += self._missing_numbers(sequence_number, gap_ns)
        elif self._period_ns is not None and stamp_ns > 0:
            self._source = LossSource.STAMPS
            self._lost += self._missing_stamps(gap_ns)
        else:
            self._source = None
        self._last_number = sequence_number
        self._last_stamp_ns = stamp_ns if stamp_ns > 0 else None

    def reset(self) -> None:
        """Forget the last frame: the clock jumped, or the subscription is a new one."""
        self._last_stamp_ns = None
        self._last_number = None

    def snapshot(self) -> LossSnapshot:
        """Return the figures of this moment."""
        known = self._source is not None or self._lost > 0
        return LossSnapshot(lost=self._lost if known else None, source=self._source)

    def _missing_numbers(self, number: int, gap_ns: int | None) -> int:
        if self._last_number is None:
            return 0
        missing = max(number - self._last_number - 1, 0)
        if self._period_ns is None or gap_ns is None:
            return missing
        possible = _FASTEST * max(gap_ns, 0) // self._period_ns
        return missing if missing <= possible else 0

    def _missing_stamps(self, gap_ns: int | None) -> int:
        if self._period_ns is None or gap_ns is None:
            return 0
        periods = gap_ns / self._period_ns
        whole = round(periods)
        counts = 2 <= whole <= _LONGEST_GAP_PERIODS and abs(periods - whole) <= _OFF_PERIODS
        return whole - 1 if counts else 0
