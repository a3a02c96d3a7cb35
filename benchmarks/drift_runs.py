"""Runs of the drift monitor: a healthy time, a fault, and what the monitor makes of it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qpde_perception.bundles import Cause
from qpde_perception.monitoring import DriftMonitor
from qpde_perception.perception.golden_watch import GoldenAnswer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from drift_faults import Observed

    from qpde_perception.bundles import Calibration
    from qpde_perception.monitoring import Observation

GOLDEN_EVERY = 36
"""Sampled frames in one golden period: one in a hundred of 30 a second over two minutes."""
SETTLED = 64
"""Frames after the first verdict at which the cause is read again."""
HEALTHY_FRAMES = (50, 1000)
FINE = GoldenAnswer(identical=True, rms_over_noise=0.0, max_over_noise=0.0)


@dataclass(frozen=True)
class Run:
    """How one run ended.

    Attributes:
        delay: Frames until the first verdict, from 0 where the golden frames alone gave it; None
            where there was none.
        rule: The rule that gave it.
        cause: What it said.
        settled: What was said some frames later.
    """

    delay: int | None
    rule: str = ""
    cause: Cause | None = None
    settled: Cause | None = None


def prefixes(
    new: Callable[[], DriftMonitor],
    healthy: Sequence[Observation],
    count: int,
    rng: np.random.Generator,
) -> list[DriftMonitor]:
    """Return monitors that have watched a healthy engine for some time."""
    monitors = []
    for _ in range(count):
        monitor = new()
        tell(monitor, FINE)
        for frame in range(int(rng.integers(*HEALTHY_FRAMES))):
            monitor.observe(healthy[int(rng.integers(len(healthy)))])
            if frame % GOLDEN_EVERY == 0 or monitor.wants_golden:
                tell(monitor, FINE)
        monitors.append(monitor)
    return monitors


def tell(monitor: DriftMonitor, answer: GoldenAnswer) -> None:
    monitor.golden(
        identical=answer.identical,
        rms_over_noise=answer.rms_over_noise,
        max_over_noise=answer.max_over_noise,
        within_budget=answer.within_budget,
    )


def run(
    monitor: DriftMonitor,
    stages: Sequence[Observed],
    stage_frames: int,
    limit: int,
    rng: np.random.Generator,
    *,
    golden: bool = True,
) -> Run:
    """Let something happen to what a monitor watches; the monitor is left as it was.

    Args:
        monitor: Has watched what is healthy, or nothing yet.
        stages: What there is to be seen, one after another; the last one stays.
        stage_frames: Frames of each stage but the last.
        limit: Frames after which it counts as missed.
        rng: Draws the frames, and the moment of the next golden frames.
        golden: Whether golden frames are asked.
    """
    monitor = copy.deepcopy(monitor)
    due = int(rng.integers(GOLDEN_EVERY))
    found: Run | None = None
    end = limit
    for frame in range(limit + SETTLED):
        stage = stages[min(frame // stage_frames, len(stages) - 1)]
        if golden and (frame % GOLDEN_EVERY == due or monitor.wants_golden):
            tell(monitor, stage.golden)
        if found is None and (causes := monitor.report.causes):
            found = Run(frame, causes[0].rule, causes[0].cause)
            end = frame + SETTLED
        if frame >= end:
            break
        monitor.observe(stage.observations[int(rng.integers(len(stage.observations)))])
    if found is None:
        return Run(None)
    causes = monitor.report.causes
    return Run(found.delay, found.rule, found.cause, causes[0].cause if causes else None)


def monitor_of(calibration: Calibration, bound: float | None, alpha: float) -> DriftMonitor:
    return DriftMonitor(calibration, global_bound=bound, alpha=alpha)


def summary(runs: Sequence[Run], cause: Cause | None) -> dict[str, object]:
    """Return the figures of some runs as they go into the tables."""
    delays = [each.delay for each in runs if each.delay is not None]
    # A run without a verdict is later than any other.
    late = sorted([*delays, *[float("inf")] * (len(runs) - len(delays))])

    def quantile(share: float) -> float | None:
        value = late[min(int(np.ceil(share * len(late))) - 1, len(late) - 1)]
        return None if np.isinf(value) else value

    rules: dict[str, int] = {}
    for each in runs:
        if each.rule:
            rules[each.rule] = rules.get(each.rule, 0) + 1
    named = [each.cause == cause for each in runs]
    settled = [each.settled == cause for each in runs]
    wrong: dict[str, int] = {}
    for each in runs:
        if each.cause is not None and each.cause != cause:
            wrong[each.cause.value] = wrong.get(each.cause.value, 0) + 1
    return {
        "cause": cause.value if cause else None,
        "runs": len(runs),
        "median": quantile(0.5),
        "p95": quantile(0.95),
        "missed": len(runs) - len(delays),
        "named": float(np.mean(named)),
        "named_later": float(np.mean(settled)),
        "rules": rules,
        "misnamed": wrong,
    }
