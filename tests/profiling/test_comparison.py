"""A comparison tells a change from noise."""

from __future__ import annotations

import numpy as np
import pytest

from qpde_perception.profiling import ProfilingError
from qpde_perception.profiling.comparison import compare, compare_rounds, student_quantile
from qpde_perception.profiling.histogram import Histogram

ROUNDS, FRAMES = 10, 200


def autocorrelated(rng, count, correlation):
    """A stationary normal series, each correlated with the one before it."""
    shocks = rng.normal(size=count) * np.sqrt(1.0 - correlation**2)
    series = np.empty(count)
    state = rng.normal()
    for number in range(count):
        state = correlation * state + shocks[number]
        series[number] = state
    return series


def noisy_rounds(rng, median_ms, *, neighbour):
    """Latencies of a run on a shared machine: autocorrelated, with stragglers.

    Where a neighbour is given, it takes a third more time for stretches longer than a round.
    """
    count = ROUNDS * FRAMES
    logs = 0.08 * autocorrelated(rng, count, 0.95)
    logs += np.where(rng.random(count) < 0.01, rng.exponential(0.8, count), 0.0)
    if neighbour:
        logs += np.log(1.33) * (autocorrelated(rng, count, 0.998) > 0.8)
    times_ns = median_ms * 1e6 * np.exp(logs)
    return [Histogram.of(part.astype(np.int64)) for part in np.split(times_ns, ROUNDS)]


def verdicts(seed, factor, *, neighbour):
    rng = np.random.default_rng(seed)
    runs = [noisy_rounds(rng, ms, neighbour=neighbour) for ms in (5.0, 5.0 * factor)]
    return {change.verdict for change in compare_rounds("row", *runs)}


@pytest.mark.parametrize("neighbour", [False, True])
def test_two_runs_of_the_same_are_no_difference_at_least_95_times_in_100(neighbour):
    found = [verdicts(seed, 1.0, neighbour=neighbour) for seed in range(100)]
    assert sum(each == {"no difference"} for each in found) >= 95


@pytest.mark.parametrize(("factor", "verdict"), [(1.2, "slower"), (1 / 1.2, "faster")])
def test_a_change_of_a_fifth_is_found_and_has_the_right_sign(factor, verdict):
    found = [verdicts(seed, factor, neighbour=False) for seed in range(40)]
    assert sum(verdict in each for each in found) >= 38
    assert not any(each - {verdict, "no difference"} for each in found)


def test_a_change_in_the_tail_alone_is_found_in_the_tail_alone():
    rng = np.random.default_rng(0)
    before, after = (
        [
            Histogram.of(
                (
                    5e6
                    * np.exp(0.01 * rng.normal(size=1000))
                    * np.where(rng.random(1000) < 0.03, tail, 1)
                ).astype(np.int64)
            )
            for _ in range(10)
        ]
        for tail in (1.0, 2.0)
    )
    found = {change.figure: change.verdict for change in compare_rounds("row", before, after)}
    assert found["p99"] == "slower"
    assert found["p50"] == found["p90"] == "no difference"


def test_a_change_smaller_than_the_smallest_of_interest_is_not_counted():
    times = np.full(100, 5_000_000)
    rounds = [[Histogram.of((times * f).astype(np.int64))] * 10 for f in (1.0, 1.1)]
    (median, *_) = compare_rounds("row", *rounds, smallest=0.05)
    assert median.verdict == "slower"
    assert median.low < 0.1 < median.high
    (median, *_) = compare_rounds("row", *rounds, smallest=0.15)
    assert median.verdict == "no difference"


def test_student_quantiles_are_those_of_the_tables():
    # Abramowitz and Stegun, table 26.10.
    for share, freedom, value in ((0.975, 4, 2.776), (0.995, 9, 3.250), (0.9995, 9, 4.781)):
        assert student_quantile(share, freedom) == pytest.approx(value, rel=0.005)


def test_too_few_rounds_name_the_option(make_profile):
    few = make_profile([np.full(100, 5.0)] * 4)
    with pytest.raises(ProfilingError, match=r"4 rounds; give --rounds 5"):
        compare(few, few)


def test_profiles_without_a_common_configuration_are_refused(make_profile):
    one, other = (
        make_profile([np.full(9, 5.0)] * 5, engine=name) for name in ("openvino", "onnxruntime")
    )
    with pytest.raises(ProfilingError, match="no configuration in common"):
        compare(one, other)


def test_another_machine_and_another_engine_are_named(make_profile):
    rounds = [np.full(100, 5.0)] * 5
    one = make_profile(rounds)
    machine = one.machine.model_copy(update={"board": "another board", "power_mode": "15W (0)"})
    found = compare(one, make_profile(rounds, machine=machine, version="2.0"))
    assert found.differences == (
        "machine: board a board -> another board",
        "machine: power_mode - -> 15W (0)",
        "engine: openvino 1.0 -> 2.0",
    )
    assert found.verdict == "no difference"


def test_another_model_is_named(make_profile):
    one = make_profile([np.full(100, 5.0)] * 5)
    other = one.model_copy(update={"model": one.model.model_copy(update={"name": "b"})})
    assert compare(one, other).differences == ("model: name signs -> b",)


def test_rows_that_only_one_profile_has_are_told(make_profile):
    rounds = [np.full(100, 5.0)] * 5
    one, other = make_profile(rounds), make_profile(rounds, engine="onnxruntime")
    both = one.model_copy(update={"rows": (*one.rows, *other.rows)})
    assert compare(both, one).only_before == (other.rows[0].name,)
    assert compare(one, both).only_after == (other.rows[0].name,)


@pytest.mark.parametrize(("yardstick_ms", "verdict"), [(1.0, "slower"), (1.3, "no difference")])
def test_a_change_that_the_machine_itself_went_through_is_no_difference(
    make_profile, yardstick_ms, verdict
):
    one = make_profile([np.full(100, 5.0)] * 5)
    other = make_profile([np.full(100, 6.5)] * 5, yardstick_ms=yardstick_ms)
    found = compare(one, other)
    assert found.verdict == verdict
    assert found.machine_change == pytest.approx(yardstick_ms - 1.0)


def test_on_another_machine_the_difference_counts_whatever_its_speed(make_profile):
    one = make_profile([np.full(100, 5.0)] * 5)
    machine = one.machine.model_copy(update={"board": "a slower board"})
    other = make_profile([np.full(100, 6.5)] * 5, yardstick_ms=1.3, machine=machine)
    assert compare(one, other).verdict == "slower"
