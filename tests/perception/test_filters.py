"""Temporal filters."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from qpde_perception.perception import ExponentialFilter, HysteresisFilter, NoFilter
from qpde_perception.perception import filters as module

A = np.array([1.0, 0.0, 0.0])
B = np.array([0.0, 1.0, 0.0])
C = np.array([0.0, 0.0, 1.0])
SECOND_NS = 1_000_000_000
HERE = (10.0, 10.0, 20.0, 20.0)
NEARBY = (11.0, 10.0, 21.0, 20.0)
THERE = (60.0, 60.0, 70.0, 70.0)


def exponential(time_constant_s=1.0, reset_after_s=5.0):
    return ExponentialFilter(time_constant_s=time_constant_s, reset_after_s=reset_after_s)


def see(temporal_filter, at_s, *items):
    """Give the filter one frame of (id, box, probabilities)."""
    ids, boxes, probabilities = zip(*items, strict=True) if items else ((), (), np.empty((0, 3)))
    return outcome(temporal_filter, at_s, ids, boxes, np.array(probabilities)).probabilities


def outcome(temporal_filter, at_s, ids, boxes, probabilities):
    return temporal_filter.update(round(at_s * SECOND_NS), ids, boxes, probabilities)


def mixed(old, new, after_s, time_constant_s=1.0):
    kept = math.exp(-after_s / time_constant_s)
    return kept * old + (1 - kept) * new


def test_no_filter_lets_every_frame_speak_for_itself():
    temporal_filter = NoFilter()
    see(temporal_filter, 0, ("a", HERE, A))
    assert_array_equal(see(temporal_filter, 1, ("a", HERE, B)), [B])


def test_first_sight_is_unfiltered():
    assert_array_equal(see(exponential(), 0, ("a", HERE, A), ("", THERE, B)), [A, B])


@pytest.mark.parametrize("after_s", [0.01, 0.1, 1.0, 4.9])
def test_old_value_weighs_by_the_time_that_passed(after_s):
    temporal_filter = exponential(time_constant_s=0.4)
    see(temporal_filter, 10, ("a", HERE, A))
    filtered = see(temporal_filter, 10 + after_s, ("a", HERE, B))
    assert_allclose(filtered, [mixed(A, B, after_s, 0.4)], rtol=1e-6)


def test_two_short_steps_weigh_like_one_long_step():
    one, two = exponential(), exponential()
    see(one, 0, ("a", HERE, A))
    see(two, 0, ("a", HERE, A))
    see(two, 0.3, ("a", HERE, B))
    assert_allclose(see(one, 1, ("a", HERE, B)), see(two, 1, ("a", HERE, B)))


def test_same_identifier_is_the_same_thing_wherever_it_is():
    temporal_filter = exponential()
    see(temporal_filter, 0, ("a", HERE, A), ("b", THERE, B))
    filtered = see(temporal_filter, 1, ("b", HERE, C), ("a", THERE, C))
    assert_allclose(filtered, [mixed(B, C, 1), mixed(A, C, 1)])


def test_identifier_is_remembered_while_it_is_out_of_sight():
    temporal_filter = exponential()
    see(temporal_filter, 0, ("a", HERE, A))
    see(temporal_filter, 1)
    see(temporal_filter, 2, ("b", THERE, B))
    assert_allclose(see(temporal_filter, 3, ("a", HERE, C)), [mixed(A, C, 3)])


def test_without_identifiers_overlapping_boxes_are_the_same_thing():
    temporal_filter = exponential()
    see(temporal_filter, 0, ("", HERE, A), ("", THERE, B))
    filtered = see(temporal_filter, 1, ("", THERE, C), ("", NEARBY, C))
    assert_allclose(filtered, [mixed(B, C, 1), mixed(A, C, 1)])


@pytest.mark.parametrize(("shift", "same"), [(5.38, True), (5.39, False), (50.0, False)])
def test_boxes_are_the_same_thing_from_an_overlap_of_three_tenths(shift, same):
    # Two squares of side 10: (10 - s) / (10 + s) = 0.3 at s = 70 / 13 = 5.3846.
    temporal_filter = exponential()
    see(temporal_filter, 0, ("", (0.0, 0.0, 10.0, 10.0), A))
    filtered = see(temporal_filter, 1, ("", (shift, 0.0, 10.0 + shift, 10.0), B))
    assert_allclose(filtered, [mixed(A, B, 1) if same else B])


def test_best_overlap_is_paired_first_and_each_box_once():
    temporal_filter = exponential()
    see(temporal_filter, 0, ("", HERE, A))
    filtered = see(temporal_filter, 1, ("", NEARBY, C), ("", HERE, C))
    assert_allclose(filtered, [C, mixed(A, C, 1)])


def test_nameless_box_is_forgotten_when_a_frame_lacks_it():
    temporal_filter = exponential()
    see(temporal_filter, 0, ("", HERE, A))
    see(temporal_filter, 1)
    assert_array_equal(see(temporal_filter, 2, ("", HERE, B)), [B])


def test_named_and_nameless_things_do_not_mix():
    temporal_filter = exponential()
    see(temporal_filter, 0, ("a", HERE, A))
    assert_array_equal(see(temporal_filter, 1, ("", HERE, B)), [B])


def test_identifier_given_twice_names_only_the_first():
    temporal_filter = exponential()
    see(temporal_filter, 0, ("a", HERE, A), ("a", THERE, B))
    filtered = see(temporal_filter, 1, ("a", HERE, C), ("a", THERE, C))
    assert_allclose(filtered, [mixed(A, C, 1), mixed(B, C, 1)])


def test_whole_frame_is_one_thing():
    temporal_filter = exponential()
    see(temporal_filter, 0, ("", None, A))
    assert_allclose(see(temporal_filter, 1, ("", None, B)), [mixed(A, B, 1)])


@pytest.mark.parametrize("identifier", ["a", ""])
@pytest.mark.parametrize("at_s", [9.0, 10.0, 15.1])
def test_clock_that_goes_back_or_stands_still_and_a_gap_start_anew(identifier, at_s):
    temporal_filter = exponential(reset_after_s=5.0)
    see(temporal_filter, 10, (identifier, HERE, A))
    assert_array_equal(see(temporal_filter, at_s, (identifier, HERE, B)), [B])


def test_clock_that_goes_back_resets_things_out_of_sight_too():
    temporal_filter = exponential()
    see(temporal_filter, 10, ("a", HERE, A))
    see(temporal_filter, 9)
    assert_array_equal(see(temporal_filter, 11, ("a", HERE, B)), [B])


def test_caller_may_change_what_was_returned():
    temporal_filter = exponential()
    see(temporal_filter, 0, ("a", HERE, A), ("", THERE, A))[:] = 7.0
    filtered = see(temporal_filter, 1, ("a", HERE, B), ("", THERE, B))
    assert_allclose(filtered, [mixed(A, B, 1)] * 2)


def test_memory_is_bounded_whatever_the_detector_names():
    temporal_filter = exponential(reset_after_s=1e9)
    for frame in range(30):
        items = [(f"{frame} {index}", HERE, A) for index in range(100)]
        see(temporal_filter, frame, *items)
    assert len(temporal_filter._named) == module._MAX_TRACKS
    assert_allclose(see(temporal_filter, 30, ("29 99", HERE, B)), [mixed(A, B, 1)])


def test_things_not_seen_for_long_are_forgotten():
    temporal_filter = exponential(reset_after_s=1.0)
    for frame in range(30):
        see(temporal_filter, frame, (f"{frame}", HERE, A))
    assert len(temporal_filter._named) == 2


BOX = st.tuples(*[st.floats(0, 50)] * 2, *[st.floats(51, 99)] * 2)
PROBABILITIES = st.lists(st.floats(0.01, 1), min_size=3, max_size=3).map(
    lambda weights: np.array(weights) / sum(weights)
)
ITEM = st.tuples(st.sampled_from(["", "a", "b"]), st.none() | BOX, PROBABILITIES)


@given(st.lists(st.tuples(st.floats(0, 20), st.lists(ITEM, max_size=5)), max_size=8))
@settings(deadline=None)
def test_filtered_probabilities_are_probabilities_in_any_drive(drive):
    temporal_filter = exponential()
    for at_s, items in drive:
        filtered = see(temporal_filter, at_s, *items)
        assert filtered.shape == (len(items), 3)
        assert_allclose(filtered.sum(axis=1), 1.0)
        assert (filtered >= 0.0).all()


@pytest.mark.parametrize("time_constant_s", [0.0, -1.0, math.nan])
def test_time_constant_must_be_positive(time_constant_s):
    with pytest.raises(ValueError, match="must be above 0"):
        exponential(time_constant_s=time_constant_s)


def classes_held(seconds_and_classes, *, hold_s=1.0, reset_after_s=5.0):
    """Show one thing, its frames wholly sure of a class, and return the filtered classes."""
    temporal_filter = HysteresisFilter(hold_s=hold_s, reset_after_s=reset_after_s)
    return [
        int(outcome(temporal_filter, at_s, ["a"], [HERE], np.eye(3)[[index]]).classes[0])
        for at_s, index in seconds_and_classes
    ]


def test_a_class_is_held_until_another_has_led_for_the_hold_time():
    assert classes_held([(0, 0), (1, 1), (1.5, 1), (1.9, 1), (2.0, 1)]) == [0, 0, 0, 0, 1]


def test_a_lead_that_is_interrupted_begins_anew():
    assert classes_held([(0, 0), (1, 1), (1.5, 0), (1.9, 1), (2.8, 1), (2.9, 1)]) == [0] * 5 + [1]
    assert classes_held([(0, 0), (1, 1), (1.9, 2), (2.0, 1), (2.9, 1), (3.0, 1)]) == [0] * 5 + [1]


def test_a_held_class_is_let_go_when_the_thing_was_out_of_sight():
    assert classes_held([(0, 0), (6, 1)]) == [0, 1]
    assert classes_held([(0, 0), (-1, 1)]) == [0, 1]


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 2)), min_size=1, max_size=40),
    st.integers(1, 30),
)
def test_no_class_lasts_shorter_than_the_hold_time(steps, hold):
    stamps = np.cumsum([step for step, _ in steps])
    seen = [(int(at), index) for at, (_, index) in zip(stamps, steps, strict=True)]
    classes = classes_held(seen, hold_s=hold, reset_after_s=1e3)
    changes = [0, *(i for i in range(1, len(classes)) if classes[i] != classes[i - 1])]
    gaps = np.diff(stamps[changes])
    assert (gaps >= hold).all()
    assert all(classes[i] == seen[i][1] for i in changes)


def test_held_classes_leave_the_probabilities_of_the_frame_as_they_are():
    temporal_filter = HysteresisFilter(hold_s=1.0, reset_after_s=5.0)
    outcome(temporal_filter, 0, [""], [None], A[None])
    held = outcome(temporal_filter, 0.5, [""], [None], B[None])
    assert_array_equal(held.probabilities, [B])
    assert held.classes.tolist() == [0]


@pytest.mark.parametrize("hold_s", [0.0, -1.0, math.nan])
def test_a_hold_time_that_is_not_above_zero_is_refused(hold_s):
    with pytest.raises(ValueError, match="hold_s"):
        HysteresisFilter(hold_s=hold_s, reset_after_s=1.0)
