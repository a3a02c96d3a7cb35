"""The highest frame rate that a node sustains, found as ros2_benchmark finds it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qpde_perception.profiling.trials import BASIC, basic_metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from qpde_perception.profiling.trials import Trial


@dataclass(frozen=True, slots=True)
class Search:
    """Where and how to search; names and values of ros2_benchmark's configuration.

    Attributes:
        publisher_lower_frequency: Lowest rate, Hz.
        publisher_upper_frequency: Highest rate, Hz.
        binary_search_terminal_interval_width: Width at which halving ends, Hz.
        binary_search_acceptable_frame_loss_fraction: Share of frames that may be lost.
        binary_search_acceptable_frame_rate_drop: Fewer answers than frames a second that pass, Hz.
        linear_scan_step_size: Step of the scan that follows, Hz.
        linear_scan_acceptable_frame_loss_fraction: As above, for the scan.
        linear_scan_acceptable_frame_rate_drop: As above, for the scan.
    """

    publisher_lower_frequency: float = 10.0
    publisher_upper_frequency: float = 600.0
    binary_search_terminal_interval_width: float = 10.0
    binary_search_acceptable_frame_loss_fraction: float = 0.05
    binary_search_acceptable_frame_rate_drop: float = 10.0
    linear_scan_step_size: float = 5.0
    linear_scan_acceptable_frame_loss_fraction: float = 0.05
    linear_scan_acceptable_frame_rate_drop: float = 5.0

    @property
    def middle_hz(self) -> float:
        """The first rate that is tried."""
        return (self.publisher_lower_frequency + self.publisher_upper_frequency) / 2.0


PLAYER_SHARE = 0.9
"""Share of a rate that the player must reach for a trial to speak of that rate."""


def peak_rate(search: Search, measure: Callable[[float], Trial]) -> float:
    """Return the highest rate that is sustained, Hz; the lowest of the search where none is.

    Args:
        search: The limits.
        measure: Runs a trial at a rate.
    """
    low, high = search.publisher_lower_frequency, search.publisher_upper_frequency
    while high - low > search.binary_search_terminal_interval_width:
        rate_hz = (low + high) / 2.0
        if is_sustained(
            measure(rate_hz),
            search.binary_search_acceptable_frame_loss_fraction,
            search.binary_search_acceptable_frame_rate_drop,
        ):
            low = rate_hz
        else:
            high = rate_hz
    while (
        rate_hz := low + search.linear_scan_step_size
    ) <= search.publisher_upper_frequency and is_sustained(
        measure(rate_hz),
        search.linear_scan_acceptable_frame_loss_fraction,
        search.linear_scan_acceptable_frame_rate_drop,
    ):
        low = rate_hz
    return low


def is_sustained(trial: Trial, loss: float, drop_hz: float) -> bool:
    """Whether the answers kept pace with the frames, and the player with the rate.

    Args:
        trial: A trial.
        loss: Share of frames that may be lost.
        drop_hz: How many fewer answers than frames a second there may be.
    """
    metrics = basic_metrics(trial)
    played_hz = metrics.get(f"{BASIC}MEAN_PLAYBACK_FRAME_RATE", 0.0)
    return (
        played_hz >= PLAYER_SHARE * trial.rate_hz
        and metrics.get(f"{BASIC}MEAN_FRAME_RATE", 0.0) >= played_hz - drop_hz
        and trial.missed <= math.ceil(len(trial.sent_ns) * loss)
    )
