"""Runs of the drift monitor: how soon a fault has a verdict, and which."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qpde_perception.monitoring import DriftMonitor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from drift_faults import Seen

    from qpde_perception.bundles import Calibration, Cause
    from qpde_perception.monitoring import Observation

AFTER = 64
"""Sampled frames between the first verdict and the last word on the cause."""


@dataclass(frozen=True)
class Trial:
    """How one run went.

    Attributes:
        delay: Sampled frames from the fault to the first verdict; None for none in time.
        first: What it was called then.
        last: What it was called `AFTER` sampled frames later.
        rule: Which rule said so first.
        early: Whether there was a verdict before the fault.
    """

    delay: int | None
    first: Cause | None
    last: Cause | None
    rule: str
    early: bool


@dataclass(frozen=True)
class Plan:
    """What the runs have in common.

    Attributes:
        calibration: What is normal.
        healthy: Observations before the fault.
        alpha: Of each run.
        limit: Sampled frames after which a fault counts as missed.
        period: Sampled frames between two rounds of golden frames; 0 for those at the start and
            where the monitor asks for them.
        runs: How many for each fault.
    """

    calibration: Calibration
    healthy: Sequence[Observation]
    alpha: float
    limit: int
    period: int
    runs: int

    def trials(self, stages: Sequence[Seen]) -> list[Trial]:
        """Run a fault, or one that gets worse: each stage takes an equal part of the time."""
        return [self._trial(stages, np.random.default_rng(seed)) for seed in range(self.runs)]

    def _trial(self, stages: Sequence[Seen], rng: np.random.Generator) -> Trial:
        monitor = DriftMonitor(self.calibration, global_bound=None, alpha=self.alpha)
        monitor.golden(identical=True, rms_over_noise=0.0, max_over_noise=0.0, within_budget=True)
        phase = int(rng.integers(self.period)) if self.period else 0
        for _ in range(int(rng.integers(200, 600))):
            monitor.observe(self.healthy[rng.integers(len(self.healthy))])
            if monitor.wants_golden:
                monitor.golden(
                    identical=True, rms_over_noise=0.0, max_over_noise=0.0, within_budget=True
                )
        if monitor.report.causes:
            return Trial(None, None, None, "", early=True)
        first: tuple[int, Cause, str] | None = None
        for index in range(self.limit + AFTER):
            stage = stages[min(index * len(stages) // self.limit, len(stages) - 1)]
            monitor.observe(stage.observations[rng.integers(len(stage.observations))])
            due = self.period and (index + phase) % self.period == 0
            if due or monitor.wants_golden:
                rms, largest = stage.golden
                monitor.golden(
                    identical=stage.golden_identical,
                    rms_over_noise=rms,
                    max_over_noise=largest,
                    within_budget=True,
                )
            if first is None and (causes := monitor.report.causes):
                first = index + 1, causes[0].cause, causes[0].rule
            if first is None and index >= self.limit:
                break
            if first is not None and index + 1 >= first[0] + AFTER:
                break
        if first is None:
            return Trial(None, None, None, "", early=False)
        causes = monitor.report.causes
        return Trial(first[0], first[1], causes[0].cause if causes else None, first[2], early=False)
