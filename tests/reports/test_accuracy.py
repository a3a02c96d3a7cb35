"""Accuracy: results meet their truth by topic, stamp and box."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpde_perception.perception import RegionResult
from qpde_perception.reports import TruthScore

A, B, C = (0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 30.0, 10.0), (40.0, 0.0, 50.0, 10.0)


def result(box, predicted, filtered=None, probability=0.5):
    return RegionResult(
        box=box,
        track_id="",
        class_index=predicted,
        label=str(predicted),
        probability=probability,
        filtered_class_index=predicted if filtered is None else filtered,
        filtered_probability=probability,
        probabilities=np.full(2, 0.5),
        filtered_probabilities=np.full(2, 0.5),
    )


@pytest.mark.parametrize("truth_first", [True, False])
def test_boxes_are_matched_by_place_not_by_order(truth_first):
    score = TruthScore()
    results = (result(B, 2), result(A, 1))
    if truth_first:
        score.add_truth("cam", 5, [A, B], [1, 2])
    score.add_results("cam", 5, results)
    if not truth_first:
        score.add_truth("cam", 5, [A, B], [1, 2])
    assert score.accuracy == 1.0
    assert score.unmatched == 0


def test_filtered_class_is_scored_beside_the_single_frame_class():
    score = TruthScore()
    score.add_truth("cam", 5, [A, B], [1, 2])
    score.add_results("cam", 5, (result(A, 1, filtered=9), result(B, 9, filtered=9)))
    assert (score.accuracy, score.accuracy_filtered) == (0.5, 0.0)
    assert score.confusion == {(1, 1): 1, (2, 9): 1}


def test_objects_the_model_does_not_know_do_not_count_as_wrong():
    score = TruthScore()
    score.add_truth("cam", 5, [A, B, C], [1, -1, -1])
    score.add_results(
        "cam", 5, (result(A, 1), result(B, 3, probability=0.9), result(C, 4, probability=0.1))
    )
    assert score.accuracy == 1.0
    assert score.unknown == 2
    assert score.unknown_mean_probability == pytest.approx(0.5)


def test_without_truth_there_is_no_accuracy():
    score = TruthScore()
    score.add_results("cam", 5, (result(A, 1),))
    assert score.accuracy is None
    assert score.accuracy_filtered is None
    assert score.unknown_mean_probability is None


def test_a_whole_frame_is_judged_by_the_one_truth_of_its_stamp():
    score = TruthScore()
    score.add_truth("cam", 5, [A], [1])
    score.add_results("cam", 5, (result(None, 1),))
    assert score.accuracy == 1.0
    score.add_truth("cam", 6, [A, B], [1, 2])
    score.add_results("cam", 6, (result(None, 1),))
    assert len(score.judged) == 1
    assert score.unmatched == 3


def test_other_stamps_and_other_cameras_do_not_meet():
    score = TruthScore()
    score.add_truth("left", 5, [A], [1])
    score.add_results("left", 6, (result(A, 1),))
    score.add_results("right", 5, (result(A, 1),))
    assert len(score.judged) == 0


def test_what_never_meets_does_not_pile_up():
    score = TruthScore()
    for stamp in range(5000):
        score.add_results("cam", stamp, (result(A, 1),))
        score.add_truth("cam", -1 - stamp, [A], [1])
    assert len(score._results) + len(score._truths) <= 2048
    score.add_truth("cam", 4999, [A], [1])
    assert len(score.judged) == 1


def test_many_judged_results_take_few_bytes_each_and_can_be_read_again():
    score = TruthScore()
    results = tuple(result((float(n), 0.0, n + 1.0, 1.0), n % 2) for n in range(100))
    boxes = [one.box for one in results]
    tracemalloc.start()
    for stamp in range(200):
        score.add_truth("cam", stamp, boxes, [0] * 100)
        score.add_results("cam", stamp, results)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (score.known, score.accuracy) == (20_000, 0.5)
    assert score.confusion == {(0, 0): 10_000, (0, 1): 10_000}
    assert taken < 40 * 20_000
    assert [(one.stamp_ns, one.predicted) for one in score.judged] == [
        (stamp, n % 2) for stamp in range(200) for n in range(100)
    ]
    assert [one.stamp_ns for one in score.judged.spread(250)] == [
        number * 250 // 100 for number in range(80)
    ]


@given(
    st.lists(st.tuples(st.integers(-1, 4), st.integers(0, 4), st.integers(0, 4)), max_size=30),
    st.data(),
)
def test_the_order_of_arrival_changes_nothing(objects, data):
    expected_known = [(truth, seen) for truth, seen, _ in objects if truth != -1]
    score = TruthScore()
    arrivals = data.draw(
        st.permutations([(stamp, kind) for stamp in range(len(objects)) for kind in "rt"])
    )
    for stamp, kind in arrivals:
        truth, seen, filtered = objects[stamp]
        if kind == "r":
            score.add_results("cam", stamp, (result(A, seen, filtered),))
        else:
            score.add_truth("cam", stamp, [A], [truth])
    assert len(score.judged) == len(objects)
    right = sum(truth == seen for truth, seen in expected_known)
    assert score.accuracy == (right / len(expected_known) if expected_known else None)
    assert sum(score.confusion.values()) == len(expected_known)
