"""Measures of confidence, each against an independent way to compute it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpde_perception.assessment.confidence import (
    area_under_roc,
    calibration_error,
    confidence_of,
    reliability,
    roc_curve,
)
from qpde_perception.perception import softmax

# Tenths, so that ties are common.
confidences = st.lists(st.integers(0, 10).map(lambda n: n / 10), min_size=1, max_size=30)
answers = st.lists(
    st.tuples(st.integers(0, 20).map(lambda n: n / 20), st.booleans()), min_size=1, max_size=80
)


def arrays(pairs):
    return np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])


@given(confidences, confidences)
def test_the_area_is_the_share_of_pairs_in_the_right_order(known, unknown):
    pairs = [1.0 if k > u else 0.5 if k == u else 0.0 for k in known for u in unknown]
    area = area_under_roc(np.array(known), np.array(unknown))
    assert area == pytest.approx(sum(pairs) / len(pairs))


@given(confidences, confidences)
def test_the_curve_has_the_shares_above_every_threshold(known, unknown):
    known, unknown = np.array(known), np.array(unknown)
    alarms, hits = roc_curve(known, unknown)
    thresholds = np.unique(np.concatenate([known, unknown]))[::-1]
    assert hits[1:] == pytest.approx([(known >= t).mean() for t in thresholds])
    assert alarms[1:] == pytest.approx([(unknown >= t).mean() for t in thresholds])
    assert (alarms[0], hits[0]) == (0, 0)
    assert (alarms[-1], hits[-1]) == (1, 1)


@given(answers, st.integers(1, 20))
def test_the_calibration_error_is_that_of_a_loop_over_sorted_answers(pairs, bins):
    ordered = sorted(pairs)
    quotient, rest = divmod(len(ordered), bins)
    total, start = 0.0, 0
    for number in range(bins):
        part = ordered[start : start + quotient + (number < rest)]
        start += len(part)
        total += abs(sum(right for _, right in part) - sum(sure for sure, _ in part))
    found = calibration_error(reliability(*arrays(pairs), bins))
    assert found == pytest.approx(total / len(ordered), abs=1e-12)


@given(answers, st.randoms(use_true_random=False))
def test_the_order_of_the_answers_does_not_matter(pairs, random):
    shuffled = random.sample(pairs, len(pairs))
    assert reliability(*arrays(pairs)) == reliability(*arrays(shuffled))


@given(answers)
def test_bins_hold_every_answer_once_and_are_of_equal_mass(pairs):
    counts = [each.count for each in reliability(*arrays(pairs))]
    assert sum(counts) == len(pairs)
    assert max(counts) - min(counts) <= 1


def test_one_bin_has_the_distance_of_accuracy_from_mean_confidence():
    found = reliability(np.array([0.9, 0.7, 0.8]), np.array([True, False, False]), 1)
    assert calibration_error(found) == pytest.approx(0.8 - 1 / 3)


def test_a_temperature_changes_confidence_and_not_the_answer():
    logits = np.random.default_rng(2).normal(0, 2, (20, 6)).astype(np.float32)
    assert (confidence_of(logits, 3.0) < confidence_of(logits)).all()
    assert (confidence_of(logits) == softmax(logits).max(axis=1)).all()
