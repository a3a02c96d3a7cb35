"""Accuracy on tracks, on cases that can be counted by hand."""

from __future__ import annotations

from functools import partial

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qpde_perception.assessment.tracks import filtered_accuracy, frames_of, majority_accuracy
from qpde_perception.perception import ExponentialFilter, NoFilter

SLOW = partial(ExponentialFilter, time_constant_s=1.0, reset_after_s=5.0)


def sure(*classes):
    """Probabilities of frames that are rather sure of their classes, of three."""
    return np.full((len(classes), 3), 0.1) + 0.7 * np.eye(3)[list(classes)]


def test_frames_keep_their_order_when_tracks_are_mixed():
    assert [list(f) for f in frames_of(["b", "a", "b", "a", "c"])] == [[0, 2], [1, 3], [4]]


def test_the_majority_of_the_frames_decides():
    probabilities, labels = sure(1, 0, 1, 2, 2, 0), np.array([1, 1, 1, 0, 0, 0])
    tracks = frames_of(["x"] * 3 + ["y"] * 3)
    assert majority_accuracy(probabilities, labels, tracks) == 0.5


def test_equal_votes_are_decided_by_the_sum_of_probabilities():
    probabilities = np.array([[0.6, 0.4, 0.0], [0.1, 0.9, 0.0]])
    tracks = frames_of(["x", "x"])
    assert majority_accuracy(probabilities, np.array([1, 1]), tracks) == 1.0
    assert majority_accuracy(probabilities, np.array([0, 0]), tracks) == 0.0


def test_the_filter_outlives_one_bad_last_frame_and_no_filter_does_not():
    probabilities, labels = sure(1, 1, 1, 1, 2), np.ones(5, int)
    tracks = frames_of(["x"] * 5)
    assert filtered_accuracy(probabilities, labels, tracks, NoFilter, 10.0) == 0.0
    assert filtered_accuracy(probabilities, labels, tracks, SLOW, 10.0) == 1.0


def test_at_a_low_rate_the_filter_has_forgotten_the_frames_before():
    probabilities, labels = sure(1, 1, 1, 1, 2), np.ones(5, int)
    assert filtered_accuracy(probabilities, labels, frames_of(["x"] * 5), SLOW, 0.1) == 0.0


def test_every_track_starts_with_a_filter_that_has_seen_nothing():
    probabilities, labels = sure(1, 1, 1, 1, 2), np.array([1, 1, 1, 1, 2])
    tracks = frames_of(["x"] * 4 + ["y"])
    assert filtered_accuracy(probabilities, labels, tracks, SLOW, 10.0) == 1.0


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=12))
def test_tracks_of_one_frame_are_frames(pairs):
    probabilities, labels = sure(*(p for p, _ in pairs)), np.array([t for _, t in pairs])
    tracks = frames_of([str(number) for number in range(len(pairs))])
    expected = np.mean([p == t for p, t in pairs])
    assert majority_accuracy(probabilities, labels, tracks) == expected
    for new_filter in (NoFilter, SLOW):
        assert filtered_accuracy(probabilities, labels, tracks, new_filter, 10.0) == expected
