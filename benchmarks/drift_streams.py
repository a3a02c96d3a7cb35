"""Streams of observations: false alarms of evidence, and how soon a fault has a verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qpde_perception.monitoring import DriftMonitor
from qpde_perception.monitoring.evidence import Evidence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from drift_faults import Seen
    from numpy.typing import NDArray

    from qpde_perception.bundles import Calibration, Cause
    from qpde_perception.monitoring import Observation

    Array = NDArray[np.float64]

AFTER = 64
"""Sampled frames between the first verdict and the last word on the cause."""


def independent(mean: float, wealth: Array, rng: np.random.Generator) -> Array:
    """Return disagreements that come as often as the null allows."""
    return (rng.random(len(wealth)) < mean).astype(np.float64)


class Bursts:
    """Loud and quiet stretches of 50 frames on average: the null holds in the loud ones."""

    def __init__(self, streams: int) -> None:
        self._loud = np.ones(streams, bool)

    def __call__(self, mean: float, wealth: Array, rng: np.random.Generator) -> Array:
        self._loud ^= rng.random(len(wealth)) < 1 / 50
        return ((rng.random(len(wealth)) < mean) & self._loud).astype(np.float64)


def adversary(mean: float, wealth: Array, rng: np.random.Generator) -> Array:
    """Return what knows the wealth: bold while it is below 1, then a little above nothing.

    The mean is at most that of the null, whatever the wealth.
    """
    bold = (rng.random(len(wealth)) < mean).astype(np.float64)
    small = np.minimum(rng.exponential(mean, len(wealth)), 1.0)
    small *= mean / (mean * (1 - np.exp(-1 / mean)))
    return np.asarray(np.where(wealth < 1, bold, np.minimum(small, 1.0)))


def alarms(
    draw: Callable[[float, Array, np.random.Generator], Array],
    *,
    mean: float,
    alpha: float,
    streams: int,
    frames: int,
) -> int:
    """Return how many streams under the null ever reach 1 / alpha."""
    rng = np.random.default_rng(1)
    evidence = Evidence(np.full(streams, mean), cap=10 / alpha)
    raised = np.zeros(streams, bool)
    for _ in range(frames):
        evidence.add(draw(mean, evidence.values, rng))
        raised |= evidence.values >= 1 / alpha
    return int(raised.sum())


def healthy_alarms(
    calibration: Calibration,
    stretches: Sequence[Sequence[Observation]],
    *,
    alpha: float,
    streams: int,
    frames: int,
) -> int:
    """Return how many streams of a healthy network ever have a verdict.

    Args:
        calibration: What is normal.
        stretches: Observations that stay together, such as those of one track; each stream is made
            of random ones.
        alpha: Of each stream.
        streams: Number of streams.
        frames: Length of a stream, at least.
    """
    count = 0
    for seed in range(streams):
        rng = np.random.default_rng(seed)
        monitor = DriftMonitor(calibration, global_bound=None, alpha=alpha)
        seen = 0
        while seen < frames and not monitor.report.causes:
            for observation in stretches[rng.integers(len(stretches))]:
                monitor.observe(observation)
                seen += 1
        count += bool(monitor.report.causes)
    return count


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


def observations_of(seen: Seen, groups: Sequence[str]) -> Iterator[list[Observation]]:
    """Return the observations of each group, in their order."""
    by_group: dict[str, list[Observation]] = {}
    for observation, group in zip(seen.observations, groups, strict=True):
        by_group.setdefault(group, []).append(observation)
    yield from by_group.values()
