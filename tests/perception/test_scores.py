"""Softmax."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal

from qpde_perception.perception.scores import leading, softmax

LOGITS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(0, 4), st.integers(1, 6)),
    elements=st.floats(-50, 50, width=32),
)


@given(LOGITS)
@settings(deadline=None)
def test_probabilities_are_the_normalised_exponentials(logits):
    exponentials = np.exp(logits.astype(np.float64))
    assert_allclose(softmax(logits), exponentials / exponentials.sum(axis=1, keepdims=True))


@given(LOGITS, st.integers(-1000, 1000))
@settings(deadline=None)
def test_a_common_offset_changes_nothing(logits, offset):
    wide = logits.astype(np.float64)
    assert_allclose(softmax(wide + offset), softmax(wide), rtol=1e-9)


def test_huge_logits_do_not_overflow():
    logits = np.array([[3e38, -3e38, 0.0]], np.float32)
    assert_array_equal(softmax(logits), [[1.0, 0.0, 0.0]])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_the_leading_class_is_that_of_the_largest_probability_the_first_of_equal_ones(values):
    assert leading(np.array(values)) == np.argmax(values)
    assert leading(np.array([*values, max(values)])) == np.argmax(values)
