"""Latency of the stages of the road."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

_QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


@dataclass(slots=True)
class LatencyRecorder:
    """Durations of every stage of every frame; 8 bytes a stage and frame are kept."""

    _durations_ms: dict[str, array[float]] = field(default_factory=dict)

    def add(self, stages_ms: Mapping[str, float]) -> None:
        """Record one frame.

        Args:
            stages_ms: Duration of each stage that ran, milliseconds.
        """
        for stage, duration_ms in stages_ms.items():
            self._durations_ms.setdefault(stage, array("d")).append(duration_ms)

    def quantiles(self) -> dict[str, dict[str, float]]:
        """Return `p50`, `p90`, `p99`, `max` and `mean` of each stage, milliseconds.

        A quantile is the smallest recorded duration that at least this share of the frames did not
        exceed: a duration that occurred, never one between two.
        """
        return {
            stage: {
                **{
                    name: float(np.quantile(durations, share, method="inverted_cdf"))
                    for name, share in _QUANTILES.items()
                },
                "max": max(durations),
                "mean": float(np.mean(durations)),
            }
            for stage, durations in self._durations_ms.items()
        }
