from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from qpde_perception.monitoring import Evidence, MonitoringError, upper_mean_bound
from qpde_perception.monitoring.evidence import bets

ALPHA = 0.01
means = st.floats(1e-4, 1 - 1e-4)
numbers = st.floats(0, 1)


def feed(evidence: Evidence, stream) -> np.ndarray:
    """Return the evidence after each frame; `stream` has the shape (frames, streams)."""
    return np.array([(evidence.add(x), evidence.values.copy())[1] for x in stream])


@given(
    mean=means,
    cap=st.sampled_from([math.inf, 1.5, 40.0]),
    past=st.lists(numbers, max_size=30),
    values=st.lists(numbers, min_size=2, max_size=5, unique=True),
    data=st.data(),
)
def test_no_distribution_of_the_null_makes_evidence_grow_on_average(
    mean, cap, past, values, data
) -> None:
    weights = np.array([data.draw(st.floats(0.01, 1)) for _ in values])
    weights /= weights.sum()
    values = np.array(values)
    if weights @ values > mean:  # shrunk into the null, and onto its edge
        values *= mean / (weights @ values)

    def after(*more: float) -> float:
        evidence = Evidence([mean], cap)
        for x in (*past, *more):
            evidence.add([x])
        return float(evidence.values[0])

    expected = sum(weight * after(x) for weight, x in zip(weights, values, strict=True))

    assert expected <= after() * (1 + 1e-9)


@given(mean=means, stream=st.lists(numbers, min_size=1, max_size=60))
def test_evidence_is_never_negative_and_never_above_its_cap(mean, stream) -> None:
    values = feed(Evidence([mean], 20.0), [[x] for x in stream])

    assert (values > 0).all()
    assert (values <= 20).all()


@given(
    mean=means,
    stream=st.lists(st.tuples(numbers, numbers), min_size=1, max_size=40),
)
def test_evidence_is_monotone_in_every_number(mean, stream) -> None:
    larger = feed(Evidence([mean]), [[max(pair)] for pair in stream])
    smaller = feed(Evidence([mean]), [[min(pair)] for pair in stream])

    assert (larger >= smaller * (1 - 1e-12)).all()


@given(stream=st.lists(st.tuples(numbers, numbers), min_size=1, max_size=40))
def test_streams_that_advance_together_do_not_touch_each_other(stream) -> None:
    both = feed(Evidence([0.02, 0.6], 50.0), stream)

    for index, mean in enumerate((0.02, 0.6)):
        alone = feed(Evidence([mean], 50.0), [[pair[index]] for pair in stream])
        np.testing.assert_allclose(both[:, index], alone[:, 0], rtol=1e-12)


@given(mean=means)
def test_every_bet_can_be_paid_and_no_single_number_multiplies_by_more_than_eight(mean) -> None:
    largest, smallest = bets([mean])[0][[0, -1]]

    assert 1 - largest * mean >= 0.1 - 1e-12
    assert 1 + largest * (1 - mean) <= 8 + 1e-12
    assert 0 < smallest < largest


def test_evidence_starts_at_one_and_a_number_on_the_mean_changes_nothing() -> None:
    evidence = Evidence([0.25])
    assert evidence.values == 1

    np.testing.assert_allclose(feed(evidence, [[0.25]] * 1000), 1, rtol=1e-12)


def test_what_is_not_a_number_changes_nothing() -> None:
    evidence = Evidence([0.1, 0.1])
    feed(evidence, [[1.0, 1.0], [math.nan, 0.9]])
    alone = feed(Evidence([0.1]), [[1.0]])[-1]

    assert evidence.values[0] == pytest.approx(alone[0])
    assert evidence.values[1] > evidence.values[0]


def test_numbers_stay_sound_after_a_hundred_million_frames() -> None:
    evidence = Evidence([0.02], 4000.0)
    evidence._frames += 1e8  # as if so many had been healthy
    evidence._aside = math.log(2) / np.log(evidence._frames + 2)
    evidence._staked += 1e-11

    values = feed(evidence, [[0.0]] * 20_000 + [[0.5]] * 200)

    assert np.isfinite(values).all()
    assert 0.03 < values[19_999, 0] < 0.05
    delay = int((values[20_000:, 0] >= 100).argmax())
    assert 10 < delay < 60


def test_a_detection_is_delayed_by_the_logarithm_of_the_healthy_time_only() -> None:
    rng = np.random.default_rng(5)
    delays = []
    for healthy in (100, 10_000):
        evidence = Evidence(np.full(200, 0.02))
        feed(evidence, rng.random((healthy, 200)) < 0.01)
        changed = feed(evidence, rng.random((400, 200)) < 0.2)
        delays.append(float(np.mean((changed >= 1 / ALPHA).argmax(0))))

    assert delays[0] < 80
    assert delays[0] < delays[1] < delays[0] + 60


def test_evidence_at_its_cap_is_soon_gone_when_the_fault_has_passed() -> None:
    evidence = Evidence([0.1], 10 / ALPHA)
    feed(evidence, [[0.8]] * 5000)
    assert evidence.values == pytest.approx(10 / ALPHA)

    values = feed(evidence, [[0.05]] * 800)

    assert int((values[:, 0] < 1).argmax()) < 120
    assert values[-1] < 1
    assert evidence.recent < 20


def test_a_restart_begins_as_at_first_with_the_wealth_that_there_is() -> None:
    rng = np.random.default_rng(4)
    restarted, other, fresh = (Evidence([0.1, 0.1]) for _ in range(3))
    past = rng.random((3000, 2)) * 0.1
    feed(restarted, past), feed(other, past)
    wealth = restarted.values.copy()
    restarted.restart(np.array([True, False]))

    assert restarted.values.tolist() == wealth.tolist()
    assert restarted.recent[0] == 0
    stream = rng.random((300, 2)) * 0.3
    new, old, first = (feed(each, stream) for each in (restarted, other, fresh))
    np.testing.assert_allclose(new[:, 0], wealth[0] * first[:, 0])
    assert new[:, 1].tolist() == old[:, 1].tolist()


def test_restarts_on_every_withdrawal_keep_the_level_over_the_whole_stream() -> None:
    streams, frames, level = 2000, 600, 0.1
    rng = np.random.default_rng(6)
    evidence = Evidence(np.full(streams, 0.3))
    alarms, restarts = np.zeros(streams), 0
    over = np.zeros(streams, dtype=bool)
    for _ in range(frames):
        evidence.add(rng.random(streams) < 0.3)
        # The most restless of all watchers: begins anew whenever the wealth is below 1.
        low = evidence.values < 1
        evidence.restart(low)
        restarts += int(low.sum())
        alarms += (evidence.values >= 1 / level) & ~over
        over = evidence.values >= 1 / level

    assert restarts > 100 * streams
    assert (alarms > 0).mean() <= level


@pytest.mark.parametrize(
    "null", ["on the edge", "two states", "blocks of the same", "an adversary", "a martingale"]
)
def test_false_alarms_ever_are_rarer_than_the_level_whatever_the_dependence(null) -> None:
    """Each stream obeys the null: given the past, a mean of at most 0.1."""
    streams, frames, mean, level = 1000, 400, 0.1, 0.05
    rng = np.random.default_rng(7)
    evidence = Evidence(np.full(streams, mean), 10 / level)
    ever = np.zeros(streams, dtype=bool)
    state = np.zeros(streams, dtype=bool)
    total = 0.0
    for _ in range(frames):
        if null == "on the edge":
            x = (rng.random(streams) < mean).astype(float)
        elif null == "two states":  # calm for long, then restless for long
            state ^= rng.random(streams) < 0.02
            x = (rng.random(streams) < np.where(state, mean, 0.01)).astype(float)
        elif null == "blocks of the same":  # all or nothing, for as long as it is fair to
            x = np.where(state, 0.0, (rng.random(streams) < mean) * 1.0)
            state = (x > 0) | (state & (rng.random(streams) < 0.9))
        elif null == "an adversary":  # stakes all on rare large numbers while it is close
            bold = evidence.values > 0.5
            x = np.where(bold, (rng.random(streams) < mean) * 1.0, rng.random(streams) * 2 * mean)
        else:  # the largest swings that the null allows, by turns with numbers on the mean
            x = np.where(rng.random(streams) < 0.5, (rng.random(streams) < mean) * 1.0, mean)
        total += float(x.mean())
        evidence.add(x)
        ever |= evidence.values >= 1 / level

    assert ever.mean() <= level
    assert total / frames <= mean * 1.05


def test_the_average_of_many_keeps_the_level_however_they_depend() -> None:
    watchers, frames, streams, level = 10, 300, 1000, 0.05
    rng = np.random.default_rng(8)
    evidence = Evidence(np.full(streams * watchers, 0.2))
    ever = np.zeros(streams, dtype=bool)
    for _ in range(frames):
        x = (rng.random(streams) < 0.2).astype(float)
        evidence.add(np.repeat(x, watchers))  # all of one stream are the same
        ever |= evidence.values.reshape(streams, watchers).mean(1) >= 1 / level

    assert ever.mean() <= level


def test_a_rise_is_dated_to_the_frame_at_which_it_began() -> None:
    evidence = Evidence([0.1])
    rng = np.random.default_rng(9)
    feed(evidence, rng.random((500, 1)) < 0.02)
    assert evidence.recent < 20
    feed(evidence, [[0.6]] * 30)

    assert abs(evidence.risen_since(0) - 500) <= 20
    assert evidence.recent > 1000


@pytest.mark.parametrize("mean", [0.0, 1.0, -0.1, math.nan])
def test_a_mean_that_nothing_can_exceed_or_fall_below_is_refused(mean) -> None:
    with pytest.raises(MonitoringError, match="above 0 and below 1"):
        Evidence([0.5, mean])


@settings(max_examples=30)
@given(values=st.lists(numbers, min_size=1, max_size=50), confidence=st.floats(0.5, 0.999))
def test_the_bound_is_above_the_mean_grows_with_confidence_and_forgets_the_order(
    values, confidence
) -> None:
    bound = upper_mean_bound(values, confidence)

    assert np.mean(values) - 1e-9 <= bound <= 1
    assert upper_mean_bound(values[::-1], confidence) == pytest.approx(bound, abs=1e-5)
    assert upper_mean_bound(values, 1 - (1 - confidence) / 2) >= bound - 1e-5


@given(values=st.lists(st.floats(0, 0.9), min_size=3, max_size=50), confidence=st.floats(0.1, 0.99))
def test_the_bound_is_where_bets_on_less_have_won_what_the_confidence_asks(
    values, confidence
) -> None:
    bound = upper_mean_bound(values, confidence)
    assume(bound < 1 - 1e-6)
    won = [np.prod(1 + bet * (bound - np.array(values))) for bet in bets([1 - bound])[0]]

    assert np.mean(won) == pytest.approx(1 / (1 - confidence), rel=0.01)


@pytest.mark.parametrize("mean", [0.01, 0.1, 0.5, 0.9])
def test_the_bound_covers_the_mean_as_often_as_it_says(mean) -> None:
    rng = np.random.default_rng(10)
    bounds = [upper_mean_bound(rng.random(100) < mean, 0.9) for _ in range(300)]

    assert np.mean(np.array(bounds) >= mean) >= 0.9
    assert np.mean(bounds) < mean + 0.2


def test_the_bound_narrows_as_groups_are_added() -> None:
    rng = np.random.default_rng(11)
    few, many = (upper_mean_bound(rng.random(n) < 0.05, 0.95) for n in (50, 5000))

    assert 0.05 < many < 0.07 < few < 0.25


@pytest.mark.parametrize(
    ("values", "confidence", "named"),
    [([], 0.9, "0 values"), ([0.5, 1.5], 0.9, "from 0 to 1"), ([math.nan], 0.9, "from 0 to 1")]
    + [([0.5], bad, "confidence") for bad in (0.0, 1.0, math.nan)],
)
def test_a_bound_of_nothing_or_of_other_numbers_is_refused(values, confidence, named) -> None:
    with pytest.raises(MonitoringError, match=named):
        upper_mean_bound(values, confidence)
