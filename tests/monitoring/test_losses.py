"""Frames lost before they reached the node."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpde_perception.monitoring import LossSource, UpstreamLosses

MS = 1_000_000
PERIOD = 100 * MS
START = 1_700_000_000_000 * MS
# Which of the frames arrive.
KEPT = st.sets(st.integers(0, 25), min_size=1).map(sorted)


def lost_of(frames, period_ns=PERIOD):
    losses = UpstreamLosses(period_ns)
    for frame in frames:
        losses.add(*frame)
    return losses.snapshot().lost


def numbered(kept, first_number, start_ns=START):
    return [(start_ns + index * PERIOD, first_number + index) for index in kept]


@given(KEPT, st.integers(0, 2**40), st.sampled_from([None, PERIOD]))
def test_every_number_left_out_is_a_lost_frame(kept, first, period):
    assert lost_of(numbered(kept, first), period) == kept[-1] - kept[0] + 1 - len(kept)


@given(KEPT, KEPT, st.integers(1, 1000))
def test_a_publisher_that_starts_again_lower_loses_nothing_by_it(before, after, down):
    first = 2000
    again = first + before[-1] - down - after[0]
    frames = numbered(before, first) + numbered(after, again, START + 10_000 * MS)

    assert lost_of(frames) == lost_of(numbered(before, first)) + lost_of(numbered(after, again))


def test_two_publishers_on_one_topic_lose_nothing_by_their_numbers():
    frames = [
        (START + index * PERIOD // 2, (5000 if index % 2 else 10) + index // 2)
        for index in range(40)
    ]

    assert lost_of(frames) == 0


def test_numbers_without_stamps_or_period_are_believed():
    assert lost_of([(0, 4), (0, 9)]) == 4
    assert lost_of([(START, 4), (START + PERIOD, 9)], None) == 4


def test_a_camera_at_twice_the_expected_rate_loses_what_its_numbers_say():
    assert lost_of([(START, 1), (START + 2 * PERIOD, 5)]) == 3
    assert lost_of([(START, 1), (START + 2 * PERIOD, 7)]) == 0


@given(KEPT, st.lists(st.floats(-0.09, 0.09), min_size=26, max_size=26))
def test_gaps_of_whole_periods_between_stamps_are_lost_frames_in_spite_of_jitter(kept, jitter):
    frames = [(START + round((index + jitter[index]) * PERIOD), None) for index in kept]

    assert lost_of(frames) == kept[-1] - kept[0] + 1 - len(kept)


@pytest.mark.parametrize(
    ("periods", "lost"),
    [(0.5, 0), (1.0, 0), (1.5, 0), (1.79, 0), (1.81, 1), (2.19, 1), (2.21, 0), (2.5, 0), (3.0, 2)],
)
def test_a_gap_between_stamps_counts_only_near_whole_periods(periods, lost):
    assert lost_of([(START, None), (START + round(periods * PERIOD), None)]) == lost


@pytest.mark.parametrize(("periods", "lost"), [(30, 29), (31, 0), (100_000, 0)])
def test_a_long_pause_is_an_outage_and_no_loss(periods, lost):
    assert lost_of([(START, None), (START + periods * PERIOD, None)]) == lost


def test_stamps_of_zero_or_going_back_lose_nothing():
    assert lost_of([(START, None), (0, None), (START + 3 * PERIOD, None)]) == 0
    assert lost_of([(START, None), (START - 3 * PERIOD, None)]) == 0


def test_nothing_is_known_without_numbers_and_period_or_before_the_first_frame():
    assert lost_of([]) is None
    assert lost_of([(START, None), (START + 3 * PERIOD, None)], None) is None
    assert lost_of([(0, None), (0, None)]) is None


def test_the_source_says_what_was_counted_from():
    losses = UpstreamLosses(PERIOD)
    losses.add(START, 7)
    assert losses.snapshot().source is LossSource.SEQUENCE_NUMBERS
    losses.add(START + 2 * PERIOD, None)
    assert losses.snapshot().source is LossSource.STAMPS
    losses.add(0, None)
    assert losses.snapshot().source is None
    assert losses.snapshot().lost == 1


def test_numbers_across_a_frame_without_one_are_not_compared():
    frames = [(START, 5), (START + PERIOD, None), (START + 2 * PERIOD, 7)]

    assert lost_of(frames) == 0


def test_nothing_is_lost_across_a_reset():
    for number in (9, None):
        losses = UpstreamLosses(PERIOD)
        losses.add(START, number and 5)
        losses.reset()
        losses.add(START + 4 * PERIOD, number)
        assert losses.snapshot().lost == 0
