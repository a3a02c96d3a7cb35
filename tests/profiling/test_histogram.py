"""The histogram keeps quantiles, and merges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpde_perception.profiling.histogram import RELATIVE_ERROR, Histogram, buckets_of, middles_ns

# From nothing to an hour.
durations = st.lists(st.integers(0, 3_600_000_000_000), min_size=1, max_size=200)
shares = st.floats(0.0, 1.0)


@given(durations, shares)
def test_a_quantile_is_within_the_stated_error_of_the_true_one(values, share):
    values_ns = np.array(values, np.int64)
    true_ns = np.quantile(values_ns, share, method="inverted_cdf")
    found_ns = Histogram.of(values_ns).quantile_ms(share) * 1e6
    assert abs(found_ns - true_ns) <= RELATIVE_ERROR * true_ns + 1e-6


@given(durations, durations)
def test_merging_gives_the_histogram_of_all_durations(one, other):
    parts = [Histogram.of(np.array(values, np.int64)) for values in (one, other)]
    whole = Histogram.of(np.array(one + other, np.int64))
    merged = Histogram.merged([*parts, Histogram.merged([])])
    assert merged.buckets == whole.buckets
    assert (merged.count, merged.sum_ns) == (whole.count, whole.sum_ns)
    assert (merged.min_ns, merged.max_ns) == (whole.min_ns, whole.max_ns)
    assert merged.deviation_ms == pytest.approx(whole.deviation_ms)


@given(durations)
def test_mean_deviation_and_largest_are_those_of_the_durations(values):
    histogram = Histogram.of(np.array(values, np.int64))
    assert histogram.mean_ms == pytest.approx(np.mean(values) / 1e6)
    assert histogram.max_ms == max(values) / 1e6
    # A difference of two large numbers: as exact as their squares are.
    assert histogram.deviation_ms == pytest.approx(
        np.std(values) / 1e6, rel=1e-6, abs=1e-6 * max(values) / 1e6
    )


@given(st.integers(0, 1 << 52))
def test_a_longer_duration_never_falls_into_a_lower_bucket(value):
    below, above = buckets_of(np.array([value, value + 1]))
    assert 0 <= above - below <= 1


@given(st.integers(0, 1 << 52))
def test_the_middle_of_a_bucket_lies_in_the_bucket(value):
    number = buckets_of(np.array([value]))
    assert buckets_of(middles_ns(number).astype(np.int64)) == number


def test_a_histogram_survives_json():
    histogram = Histogram.of(np.array([1, 500, 7_000_000, 7_000_001]))
    assert Histogram.model_validate_json(histogram.model_dump_json()) == histogram


def test_an_empty_histogram_has_no_quantile():
    with pytest.raises(ValueError, match="empty"):
        Histogram.of(np.array([], np.int64)).quantile_ms(0.5)
