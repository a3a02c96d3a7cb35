"""Measurements against computations made another way."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qpde_perception.learning.experiments.calibration import magnitude_below
from qpde_perception.learning.experiments.measurements import (
    ErrorSum,
    entropy_bits,
    shape_of,
)

VALUES = arrays(np.float64, st.integers(2, 60), elements=st.floats(-50, 50, width=32))
SEEDS = st.integers(0, 2**32 - 1)


@given(SEEDS, st.integers(1, 4))
def test_error_over_batches_is_that_of_all_at_once(seed, batches):
    rng = np.random.default_rng(seed)
    reference, quantized = rng.normal(size=(2, 12, 5)).astype(np.float32)
    total = ErrorSum()
    for part in np.array_split(np.arange(12), batches):
        total.add(torch.from_numpy(quantized[part]), torch.from_numpy(reference[part]))
    difference = (quantized.astype(float) - reference).ravel()
    assert total.rms == pytest.approx(np.linalg.norm(difference) / math.sqrt(60))
    ratio = np.linalg.norm(reference.astype(float)) / np.linalg.norm(difference)
    assert total.sqnr_db == pytest.approx(20 * math.log10(ratio), abs=1e-6)


def test_equal_activations_have_no_signal_to_noise_and_no_error():
    total = ErrorSum()
    total.add(torch.ones(3), torch.ones(3))
    assert (total.rms, total.sqnr_db) == (0.0, None)


@given(VALUES, st.integers(2, 8))
def test_shape_agrees_with_numpy(values, bits):
    values = np.round(values, 3)
    shape = shape_of(torch.from_numpy(values), bits)
    extent = values.max() - values.min()
    if extent == 0.0:
        assert shape is None
        return
    assert shape.range == pytest.approx(extent)
    standard = (values - values.mean()) / values.std()
    assert shape.kurtosis == pytest.approx((standard**4).mean(), rel=1e-6)
    grid = np.linspace(values.min(), values.max(), 2**bits)
    nearest = np.abs(values[:, None] - grid).min(axis=1)
    assert shape.rms == pytest.approx(np.sqrt((nearest**2).mean()), rel=1e-6, abs=1e-9)


@given(SEEDS, st.integers(2, 300))
def test_entropy_agrees_with_a_histogram_of_numpy(seed, count):
    values = np.random.default_rng(seed).normal(size=count)
    counts, _ = np.histogram(values, bins=200)
    shares = counts[counts > 0] / count
    expected = -(shares * np.log2(shares)).sum()
    # A value on the edge of a bin may fall to either side.
    assert entropy_bits(torch.from_numpy(values)) == pytest.approx(expected, abs=4.0 / count)


def test_entropy_of_evenly_filled_bins_is_their_logarithm():
    assert entropy_bits(torch.arange(800).double()) == pytest.approx(math.log2(200))


@given(VALUES, st.floats(0.0, 0.9))
def test_all_but_a_share_stay_at_or_below_the_limit(values, share):
    limit = float(magnitude_below(torch.from_numpy(values), share))
    above = (np.abs(values) > limit).sum()
    assert above <= share * len(values)
    assert limit in np.abs(values)
