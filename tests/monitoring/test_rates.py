"""Rates, delay and jitter of one camera's stream."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpde_perception.monitoring import ExpectedRate, MonitoringError, StreamStatistics

MS = 1_000_000
START = 1_700_000_000_000 * MS
# Of any time at all, or of a few seconds in which steps back are small.
TIMES = st.one_of(st.integers(-(10**19), 10**19), st.integers(START, START + 3000 * MS))
FRAMES = st.lists(st.tuples(TIMES, TIMES), max_size=60)


def fed(frames, expected=None, **windows):
    statistics = StreamStatistics(expected, **windows)
    for stamp_ns, arrival_ns in frames:
        statistics.add(stamp_ns, arrival_ns)
    return statistics


def steady(count, period_ms, delay_ms=20, start_ns=START):
    stamps = [start_ns + index * period_ms * MS for index in range(count)]
    return [(stamp_ns, stamp_ns + delay_ms * MS) for stamp_ns in stamps]


@given(st.integers(2, 80), st.integers(1, 2000), st.integers(-5000, 5000))
def test_a_steady_stream_has_its_rate_by_both_clocks_its_delay_and_no_jitter(count, period, delay):
    expected = ExpectedRate(frequency_hz=1000 / period)
    snapshot = fed(steady(count, period, delay), expected).snapshot()

    assert snapshot.frame_rate_node == pytest.approx(1000 / period)
    assert snapshot.frame_rate_msg == pytest.approx(1000 / period)
    assert snapshot.current_delay_from_realtime_ms == delay
    assert snapshot.max_abs_jitter_node <= 0.001  # the period in whole nanoseconds
    assert snapshot.num_jitter_outliers_node == snapshot.num_jitter_outliers_msg == 0
    assert snapshot.num_non_increasing_msg == snapshot.num_restarts == 0


@given(FRAMES)
def test_no_stream_of_stamps_and_arrivals_is_too_strange(frames):
    snapshot = fed(frames, ExpectedRate(30.0)).snapshot()

    assert snapshot.frames == len(frames)
    for rate in (snapshot.frame_rate_node, snapshot.frame_rate_msg):
        assert rate is None or (rate > 0 and math.isfinite(rate))
    assert 0 <= snapshot.num_non_increasing_msg <= len(frames)
    assert snapshot.num_restarts <= len(frames)


@given(FRAMES)
def test_rates_after_a_reset_are_those_of_a_stream_that_starts_there(frames):
    statistics = fed(frames)
    statistics.reset()
    for frame in steady(20, 50):
        statistics.add(*frame)

    assert statistics.snapshot().frame_rate_node == pytest.approx(20)
    assert statistics.snapshot().frame_rate_msg == pytest.approx(20)


def test_nothing_is_known_before_the_first_frame_and_no_rate_before_the_second():
    statistics = StreamStatistics(ExpectedRate(10.0))
    assert statistics.snapshot().frame_rate_node is None
    assert statistics.snapshot().current_delay_from_realtime_ms is None

    statistics.add(START, START + 5 * MS)
    snapshot = statistics.snapshot()
    assert snapshot.frame_rate_node is None
    assert snapshot.frame_rate_msg is None
    assert snapshot.mean_abs_jitter_node is None
    assert snapshot.max_abs_jitter_node is None
    assert snapshot.current_delay_from_realtime_ms == 5.0


def test_without_an_expected_rate_there_is_no_jitter():
    snapshot = fed(steady(10, 100)).snapshot()

    assert snapshot.frame_rate_node == pytest.approx(10)
    assert snapshot.mean_abs_jitter_node is None
    assert snapshot.max_abs_jitter_msg is None
    assert snapshot.num_jitter_outliers_msg is None


def test_jitter_of_arrival_and_of_stamps_are_told_apart():
    # Stamps every 100 ms; the third frame arrives 30 ms late, the fourth in time.
    frames = steady(4, 100)
    frames[2] = (frames[2][0], frames[2][1] + 30 * MS)
    snapshot = fed(frames, ExpectedRate(10.0, tolerance_percent=5.0)).snapshot()

    assert snapshot.mean_abs_jitter_node == pytest.approx(20_000)
    assert snapshot.max_abs_jitter_node == pytest.approx(30_000)
    assert snapshot.num_jitter_outliers_node == 2
    assert snapshot.max_abs_jitter_msg == 0
    assert snapshot.num_jitter_outliers_msg == 0


@pytest.mark.parametrize(("late_ms", "outliers"), [(4.999, 0), (5.0, 0), (5.001, 1)])
def test_jitter_is_an_outlier_beyond_the_tolerance(late_ms, outliers):
    frames = [(START, START), (START, START + round((100 + late_ms) * MS))]

    assert fed(frames, ExpectedRate(10.0)).snapshot().num_jitter_outliers_node == outliers


def test_the_rate_is_that_of_the_last_second():
    before, after = steady(50, 20), steady(12, 100, start_ns=START + 50 * 20 * MS)
    snapshot = fed(before + after).snapshot()

    assert snapshot.frame_rate_node == pytest.approx(10, rel=0.1)


def test_a_slow_camera_has_the_rate_of_ten_intervals_not_of_one():
    late = [
        (stamp, arrival + 200 * MS * (index == 19))
        for index, (stamp, arrival) in enumerate(steady(20, 1000))
    ]

    assert fed(late).snapshot().frame_rate_node == pytest.approx(10 / 10.2)


def test_a_window_does_not_grow_while_the_clock_stands_still():
    statistics = fed([(START + index * MS, START) for index in range(5000)])

    assert statistics.snapshot().frame_rate_node is None
    assert statistics.snapshot().frame_rate_msg == pytest.approx(1000)
    assert len(statistics._window) == 1000


def test_frames_without_a_stamp_have_no_delay_and_no_rate_of_stamps():
    snapshot = fed(
        [(0, START + index * 100 * MS) for index in range(10)], ExpectedRate(10.0)
    ).snapshot()

    assert snapshot.frame_rate_node == pytest.approx(10)
    assert snapshot.frame_rate_msg is None
    assert snapshot.current_delay_from_realtime_ms is None
    assert snapshot.num_unstamped == 10
    assert snapshot.num_non_increasing_msg == 0
    assert snapshot.num_jitter_outliers_msg == 0


def test_a_frame_without_a_stamp_among_others_does_not_change_the_rate_of_stamps():
    frames = steady(20, 50)
    frames[7] = (0, frames[7][1])
    snapshot = fed(frames, ExpectedRate(20.0)).snapshot()

    assert snapshot.frame_rate_msg == pytest.approx(20)
    assert snapshot.num_jitter_outliers_msg == 0


def test_a_stamp_in_the_future_has_a_negative_delay():
    assert fed([(START + 50 * MS, START)]).snapshot().current_delay_from_realtime_ms == -50.0


def test_a_stamp_of_a_clock_that_starts_with_the_machine_has_no_delay():
    snapshot = fed([(3_600_000 * MS, START)]).snapshot()

    assert snapshot.current_delay_from_realtime_ms is None
    assert snapshot.num_unstamped == 0


def test_a_clock_that_goes_back_starts_the_rates_anew():
    frames = steady(30, 100) + steady(10, 50, start_ns=START - 60_000 * MS)
    snapshot = fed(frames, ExpectedRate(20.0)).snapshot()

    assert snapshot.num_restarts == 1
    assert snapshot.frame_rate_node == pytest.approx(20)
    assert snapshot.frame_rate_msg == pytest.approx(20)
    assert snapshot.mean_abs_jitter_msg == 0
    assert snapshot.max_abs_jitter_msg == 50_000  # of the first thirty, not of the jump


def test_a_clock_that_goes_back_under_stamps_that_do_not_starts_the_rates_anew():
    stamps = [stamp_ns for stamp_ns, _ in steady(40, 50)]
    arrivals = [START + (index % 20) * 50 * MS for index in range(40)]
    snapshot = fed(list(zip(stamps, arrivals, strict=True))).snapshot()

    assert snapshot.num_restarts == 1
    assert snapshot.frame_rate_node == pytest.approx(20)


def test_stamps_after_a_reset_are_not_held_against_those_before():
    statistics = fed(steady(5, 100))
    statistics.reset()
    statistics.add(START - 60_000 * MS, START - 60_000 * MS)

    assert statistics.snapshot().num_non_increasing_msg == 0
    assert statistics.snapshot().num_restarts == 0


def test_stamps_that_only_go_back_have_no_rate():
    snapshot = fed([(START - index * MS, START + index * MS) for index in range(9)]).snapshot()

    assert snapshot.frame_rate_msg is None
    assert snapshot.num_non_increasing_msg == 8


@pytest.mark.parametrize(
    ("frequency", "holds"), [(9.49, False), (9.5, True), (10.0, True), (10.5, True), (10.51, False)]
)
def test_a_rate_holds_within_the_tolerance(frequency, holds):
    assert ExpectedRate(10.0, tolerance_percent=5.0).holds(frequency) == holds


@pytest.mark.parametrize(("back_ms", "restarts"), [(1000, 0), (1001, 1)])
def test_stamps_that_go_back_by_more_than_the_step_are_a_looping_stream(back_ms, restarts):
    arrivals = [START + index * 100 * MS for index in range(40)]
    frames = [(at - (index >= 20) * (100 + back_ms) * MS, at) for index, at in enumerate(arrivals)]
    snapshot = fed(frames).snapshot()

    assert snapshot.num_restarts == restarts
    assert snapshot.num_non_increasing_msg == 1


def test_a_looping_stream_keeps_the_rate_of_its_laps():
    lap = [START + index * 100 * MS for index in range(30)]
    frames = [(lap[index % 30], START + index * 100 * MS) for index in range(95)]
    snapshot = fed(frames).snapshot()

    assert snapshot.num_restarts == snapshot.num_non_increasing_msg == 3
    assert snapshot.frame_rate_msg == pytest.approx(10)


def test_frames_out_of_order_are_counted_and_leave_the_rate_as_it_is():
    frames = steady(20, 50)
    frames[8], frames[9] = (frames[9][0], frames[8][1]), (frames[8][0], frames[9][1])
    snapshot = fed(frames).snapshot()

    assert snapshot.num_non_increasing_msg == 1
    assert snapshot.frame_rate_msg == pytest.approx(20)


def test_a_frozen_stamp_is_counted_for_every_frame_that_repeats_it():
    snapshot = fed([(START, START + index * 100 * MS) for index in range(6)]).snapshot()

    assert snapshot.num_non_increasing_msg == 5
    assert snapshot.frame_rate_msg is None


@pytest.mark.parametrize("frequency", [0.0, -1.0, math.nan, math.inf])
def test_an_impossible_expected_rate_is_refused_by_name(frequency):
    with pytest.raises(MonitoringError, match="expected_frequency"):
        ExpectedRate(frequency)


@pytest.mark.parametrize("tolerance", [-0.1, math.nan])
def test_an_impossible_tolerance_is_refused_by_name(tolerance):
    with pytest.raises(MonitoringError, match="tolerance"):
        ExpectedRate(30.0, tolerance)
