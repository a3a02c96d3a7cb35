"""Has a latency changed between two profiles, or is it the machine's noise?

A latency depends on the one before it, so a single frame tells little; a round of frames is taken
as one draw. Rounds are drawn with replacement, their histograms added, and the spread of the
quantiles' logarithms over the draws is their standard error (Efron and Tibshirani, An Introduction
to the Bootstrap, chapter 6). Five things make the verdict careful:

- rounds that depend on each other count for fewer: the variance grows by (1 + r) / (1 - r), with r
  the correlation of a round with the next (Bayley and Hammersley 1946);
- the interval is Student's with as many degrees of freedom as the shorter profile's rounds leave,
  at a level divided by the number of quantiles and rows that are looked at (Bonferroni);
- a change counts only where the whole interval lies beyond the smallest change of interest: two
  runs on a machine that others use differ by a few per cent, whatever their rounds say;
- the quietest rounds of both must differ by as much: what others do on the machine only ever adds
  time, and rarely to every round of a run;
- on the same machine, where the yardstick, a fixed piece of work that is timed around each round,
  took another time as well, a change must go beyond that of the yardstick by half as much again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from qpde_perception.profiling.errors import ProfilingError
from qpde_perception.profiling.histogram import middles_ns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from qpde_perception.profiling.histogram import Histogram
    from qpde_perception.profiling.schema import Profile, Row

SMALLEST_CHANGE = 0.05
FALSE_ALARMS = 0.01
"""Chance that any figure of two equal profiles is called changed, their rounds taken as draws."""
LEAST_ROUNDS = 5

_QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
# A quantile with fewer frames beyond it, over the whole profile, is an accident.
_LEAST_BEYOND = 5
_DRAWS = 500
# Work differs in what slows it down, so a change must exceed the machine's own by this.
_MARGIN = 1.5
# Of the width of two buckets, in the logarithm.
_RESOLUTION = 1 / 256


@dataclass(frozen=True, slots=True)
class Change:
    """One figure of one configuration in two profiles.

    Attributes:
        row: The configuration.
        figure: `p50`, `p90`, `p99`, `p99.9` or `mean`, of the whole road.
        before_ms: In the first profile.
        after_ms: In the second.
        low: Lower end of the interval of the relative change; 0.1 is 10 % slower.
        high: Upper end.
        verdict: `slower`, `faster` or `no difference`.
    """

    row: str
    figure: str
    before_ms: float
    after_ms: float
    low: float
    high: float
    verdict: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two profiles beside each other.

    Attributes:
        differences: What else differs: machine, model, engine; it is to be read first.
        machine_change: Relative change of the yardstick's time, the largest of all rows.
        changes: Every figure of the rows that both have.
        only_before: Rows that only the first has.
        only_after: Rows that only the second has.
    """

    differences: tuple[str, ...]
    machine_change: float
    changes: tuple[Change, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """`slower`, `faster`, `mixed` or `no difference`, over all figures."""
        found = {change.verdict for change in self.changes} - {"no difference"}
        if not found:
            return "no difference"
        return found.pop() if len(found) == 1 else "mixed"


def compare(before: Profile, after: Profile, smallest: float = SMALLEST_CHANGE) -> Comparison:
    """Compare two profiles, configuration by configuration.

    Args:
        before: The first.
        after: The second.
        smallest: The smallest relative change of interest.

    Raises:
        ProfilingError: If they have no configuration in common, or too few rounds.
    """
    first, second = ({row.name: row for row in each.rows} for each in (before, after))
    # Latencies at two rates do not compare.
    common = [
        name for name in first if name in second and first[name].sent_hz == second[name].sent_hz
    ]
    if not common:
        msg = "the profiles have no configuration in common; profile the same engines and sources"
        raise ProfilingError(msg)
    same_machine = before.machine == after.machine
    pairs = {name: (_totals(first[name]), _totals(second[name])) for name in common}
    machine_change = {
        name: _yardstick_change(first[name], second[name]) if same_machine else 0.0
        for name in common
    }
    looked_at = sum(len(_figures(one, other)) for one, other in pairs.values())
    changes = [
        change
        for name, (one, other) in pairs.items()
        for change in compare_rounds(
            name,
            one,
            other,
            smallest=smallest,
            looked_at=looked_at,
            machine_change=machine_change[name],
        )
    ]
    return Comparison(
        differences=tuple(_differences(before, after, common)),
        machine_change=math.expm1(
            max((_yardstick_change(first[name], second[name]) for name in common), key=abs)
        ),
        changes=tuple(changes),
        only_before=tuple(_told(first[name]) for name in first if name not in common),
        only_after=tuple(_told(second[name]) for name in second if name not in common),
    )


def compare_rounds(
    name: str,
    before: Sequence[Histogram],
    after: Sequence[Histogram],
    *,
    smallest: float = SMALLEST_CHANGE,
    looked_at: int | None = None,
    machine_change: float = 0.0,
) -> list[Change]:
    """Compare the rounds of one configuration.

    Args:
        name: The configuration.
        before: Histogram of each round of the first profile.
        after: Those of the second.
        smallest: The smallest relative change of interest.
        looked_at: Number of figures that are looked at in all; None: those of this configuration.
        machine_change: Change of the logarithm of the yardstick's time, where that counts.

    Raises:
        ProfilingError: If one of them has fewer than five rounds.
    """
    shorter = min(len(before), len(after))
    if shorter < LEAST_ROUNDS:
        msg = f"{name}: {shorter} rounds; give --rounds {LEAST_ROUNDS} or more to both profiles"
        raise ProfilingError(msg)
    figures = _figures(before, after)
    tail = FALSE_ALARMS / (looked_at or len(figures)) / 2.0
    factor = student_quantile(1.0 - tail, shorter - 1)
    changes = []
    for figure in figures:
        one, other = (_log_figure(rounds, figure) for rounds in (before, after))
        change, quiet = other.value - one.value, other.quietest - one.quietest
        half = factor * math.hypot(one.error, other.error) + _RESOLUTION
        bound = math.log1p(smallest) + _MARGIN * abs(machine_change)
        verdict = "no difference"
        if min(change - half, quiet) > bound:
            verdict = "slower"
        elif max(change + half, quiet) < -bound:
            verdict = "faster"
        interval = math.expm1(change - half), math.expm1(change + half)
        values_ms = math.exp(one.value) / 1e6, math.exp(other.value) / 1e6
        changes.append(Change(name, figure, *values_ms, *interval, verdict))
    return changes


def student_quantile(share: float, freedom: int) -> float:
    """Return a quantile of Student's distribution, for at least four degrees of freedom.

    By the expansion in the normal quantile: Abramowitz and Stegun, 26.7.5.
    """
    z = NormalDist().inv_cdf(share)
    terms = (
        (z**3 + z) / 4.0,
        (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / 96.0,
        (3.0 * z**7 + 19.0 * z**5 + 17.0 * z**3 - 15.0 * z) / 384.0,
        (79.0 * z**9 + 776.0 * z**7 + 1482.0 * z**5 - 1920.0 * z**3 - 945.0 * z) / 92160.0,
    )
    return z + math.fsum(term / float(freedom**power) for power, term in enumerate(terms, 1))


def _told(row: Row) -> str:
    return row.name if row.sent_hz is None else f"{row.name} ({row.sent_hz:g} Hz)"


def _totals(row: Row) -> list[Histogram]:
    return [each.stages["total"] for each in row.rounds]


def _yardstick_change(before: Row, after: Row) -> float:
    """Return the change of the mean logarithm of the yardstick's time."""
    one, other = (
        np.log([each.yardstick_ms for each in row.rounds]).mean() for row in (before, after)
    )
    return float(other - one)


def _figures(before: Sequence[Histogram], after: Sequence[Histogram]) -> list[str]:
    """Return what both have frames enough for."""
    frames = min(sum(each.count for each in rounds) for rounds in (before, after))
    tails = [name for name, share in _QUANTILES.items() if frames * (1.0 - share) >= _LEAST_BEYOND]
    return [*tails, "mean"]


@dataclass(frozen=True, slots=True)
class _Figure:
    """Logarithm of a figure in nanoseconds, its standard error, and that of its quietest round."""

    value: float
    error: float
    quietest: float


def _log_figure(rounds: Sequence[Histogram], figure: str) -> _Figure:
    numbers = np.array(sorted({number for each in rounds for number in each.buckets}), np.int64)
    counts = np.array([[each.buckets.get(int(n), 0) for n in numbers] for each in rounds], float)
    middles = middles_ns(numbers)

    def logs(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        drawn = weights @ counts
        totals = drawn.sum(axis=1, keepdims=True)
        if figure == "mean":
            return np.asarray(np.log(drawn @ middles / totals[:, 0]))
        passed = drawn.cumsum(axis=1) >= _QUANTILES[figure] * totals * (1.0 - 1e-12)
        return np.asarray(np.log(middles[passed.argmax(axis=1)]))

    count = len(rounds)
    rng = np.random.default_rng(0)
    draws = rng.multinomial(count, np.full(count, 1.0 / count), _DRAWS).astype(float)
    each = logs(np.eye(count))
    # The bootstrap's variance lacks the round that the mean has used up.
    variance = logs(draws).var() * count / (count - 1)
    kept = min(max(_correlation(each), 0.0), 0.8)
    return _Figure(
        value=float(logs(np.ones((1, count)))[0]),
        error=math.sqrt(variance * (1.0 + kept) / (1.0 - kept)),
        quietest=float(each.min()),
    )


def _correlation(values: NDArray[np.float64]) -> float:
    """Return the correlation of a round with the next, freed of its bias in short series."""
    apart = values - values.mean()
    power = float(apart @ apart)
    if power == 0.0:
        return 0.0
    # The estimate lies about 1 / n too low: Kendall 1954.
    return float(apart[1:] @ apart[:-1]) / power + 1.0 / len(values)


def _differences(before: Profile, after: Profile, common: Sequence[str]) -> list[str]:
    told = []
    for part, name in (("machine", "machine"), ("model", "model")):
        one, other = getattr(before, part).model_dump(), getattr(after, part).model_dump()
        told += [
            f"{name}: {key} {_shown(one[key])} -> {_shown(other[key])}"
            for key in one
            if _shown(one[key]) != _shown(other[key])
        ]
    first, second = ({row.name: row for row in each.rows} for each in (before, after))
    versions = {
        f"engine: {row.engine} {row.engine_version} -> {second[name].engine_version}": None
        for name in common
        if (row := first[name]).engine_version != second[name].engine_version
    }
    told += list(versions)
    one, other = before.settings.model_dump(), after.settings.model_dump()
    told += [
        f"settings: {name} {one[name]} -> {other[name]}"
        for name in ("frames", "rounds", "drive_md5", "seconds", "trials")
        if one.get(name) != other.get(name)
    ]
    if before.package_version != after.package_version:
        told.append(f"qpde_perception: {before.package_version} -> {after.package_version}")
    return told


def _shown(value: object) -> str:
    # Memory differs by pages from boot to boot.
    return f"{value:.0f}" if isinstance(value, float) else str(value) or "-"
