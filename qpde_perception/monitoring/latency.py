"""Latency of the stages of the road, in numbers that do not grow with the road."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
RESOLUTION = 0.001
"""Durations that differ by a smaller share may be taken for one another."""
_LOG_STEP = math.log1p(RESOLUTION)
_SHORTEST_MS = 1e-6


@dataclass(slots=True)
class _Stage:
    """Durations of one stage: their number and the largest of each small range of them."""

    ranges: dict[int, tuple[int, float]] = field(default_factory=dict)
    count: int = 0
    sum_ms: float = 0.0
    max_ms: float = 0.0

    def add(self, duration_ms: float) -> None:
        self.count += 1
        self.sum_ms += duration_ms
        self.max_ms = max(self.max_ms, duration_ms)
        key = int(math.log(max(duration_ms, _SHORTEST_MS)) // _LOG_STEP)
        count, largest = self.ranges.get(key, (0, 0.0))
        self.ranges[key] = count + 1, max(largest, duration_ms)

    def quantile(self, share: float) -> float:
        wanted, seen = math.ceil(self.count * share), 0
        for _, (count, largest_ms) in sorted(self.ranges.items()):
            seen += count
            if seen >= wanted:
                return largest_ms
        return self.max_ms


@dataclass(slots=True)
class LatencyRecorder:
    """Durations of every stage of every frame, in memory that their number does not fill."""

    _stages: dict[str, _Stage] = field(default_factory=dict)

    def add(self, stages_ms: Mapping[str, float]) -> None:
        """Record one frame.

        Args:
            stages_ms: Duration of each stage that ran, milliseconds.
        """
        for name, duration_ms in stages_ms.items():
            stage = self._stages.get(name)
            if stage is None:
                stage = self._stages[name] = _Stage()
            stage.add(duration_ms)

    def quantiles(self) -> dict[str, dict[str, float]]:
        """Return `p50`, `p90`, `p99`, `max` and `mean` of each stage, milliseconds.

        A quantile is a duration that occurred, and that at least this share of the frames did not
        exceed: the smallest such one, or one that is larger by less than `RESOLUTION`.
        """
        return {
            name: {
                **{key: stage.quantile(share) for key, share in _QUANTILES.items()},
                "max": stage.max_ms,
                "mean": stage.sum_ms / stage.count,
            }
            for name, stage in self._stages.items()
        }
