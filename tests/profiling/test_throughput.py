"""The search of the peak, over nodes of known capacity."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qpde_perception.profiling.throughput import Search, is_sustained, peak_rate
from qpde_perception.profiling.trials import Trial

SEARCH = Search(publisher_lower_frequency=10.0, publisher_upper_frequency=300.0)
LIMITS = (0.05, 5.0)


def at_capacity(capacity_hz, *, player_hz=1e9):
    """Trials of a second with a node that answers so many frames a second, evenly."""

    def measure(rate_hz):
        count = round(rate_hz)
        period_ns = round(1e9 / min(rate_hz, player_hz))
        sent = tuple(10**18 + number * period_ns for number in range(count))
        share = min(1.0, capacity_hz / rate_hz)
        kept = [int(number * share) != int((number - 1) * share) for number in range(count)]
        answers = {
            stamp: stamp + 10**6 for stamp, is_kept in zip(sent, kept, strict=True) if is_kept
        }
        tried.append(rate_hz)
        return Trial(rate_hz, sent, answers)

    tried = []
    return measure, tried


@given(st.floats(5.0, 600.0))
def test_the_peak_is_the_highest_rate_of_which_at_most_5_percent_are_lost(capacity_hz):
    measure, tried = at_capacity(capacity_hz)
    peak_hz = peak_rate(SEARCH, measure)
    assert SEARCH.publisher_lower_frequency <= peak_hz <= SEARCH.publisher_upper_frequency
    assert len(tried) < 12
    if peak_hz > SEARCH.publisher_lower_frequency:
        assert is_sustained(measure(peak_hz), 0.05, 10.0)
    beyond_hz = peak_hz + SEARCH.linear_scan_step_size
    if beyond_hz <= SEARCH.publisher_upper_frequency:
        assert not is_sustained(measure(beyond_hz), *LIMITS)
        assert peak_hz < capacity_hz / 0.95 + 5.0
    else:
        assert capacity_hz > 0.9 * SEARCH.publisher_upper_frequency


@given(st.floats(30.0, 200.0))
def test_a_rate_that_the_player_does_not_reach_is_not_the_nodes_peak(player_hz):
    measure, _ = at_capacity(1e9, player_hz=player_hz)
    # n frames are sent within n - 1 periods, and counted as n: at most one in 30 too many.
    assert peak_rate(SEARCH, measure) <= player_hz / 0.9 * 30 / 29


def test_a_share_of_5_percent_lost_passes_and_a_frame_more_does_not():
    sent = tuple(10**18 + number * 10**7 for number in range(100))
    for lost, passes in ((5, True), (6, False)):
        answers = {stamp: stamp + 10**6 for stamp in (*sent[: 99 - lost], sent[-1])}
        assert is_sustained(Trial(100.0, sent, answers), 0.05, 50.0) is passes


def test_answers_that_fall_behind_in_pace_do_not_pass_even_if_none_is_lost():
    sent = tuple(10**18 + number * 10**7 for number in range(100))
    answers = {stamp: 10**18 + number * 2 * 10**7 + 1 for number, stamp in enumerate(sent)}
    assert not is_sustained(Trial(100.0, sent, answers), 0.05, 5.0)


def test_no_answer_at_all_is_not_sustained():
    sent = tuple(10**18 + number * 10**7 for number in range(10))
    assert not is_sustained(Trial(100.0, sent, {}), 0.05, 5.0)
