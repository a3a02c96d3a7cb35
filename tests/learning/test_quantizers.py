"""The quantizers: grids, gradients, calibration."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from qpde_perception.learning.quantizers import (
    ActivationQuantizer,
    WeightQuantizer,
    power_of_two,
    round_straight_through,
    set_active,
    short_mantissa,
)

POSITIVE = st.floats(2.0**-20, 2.0**20)
SEEDS = st.integers(0, 2**32 - 1)


def is_power_of_two(value):
    return math.frexp(torch.as_tensor(value).item())[0] == 0.5


def activation(bits=8, *, signed=True, alpha=6.0):
    quantizer = ActivationQuantizer(bits, signed=signed)
    quantizer.alpha.data.fill_(alpha)
    quantizer.active = True
    return quantizer


def test_half_rounds_to_even():
    halves = torch.tensor([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5])
    assert round_straight_through(halves).tolist() == [-2, -2, 0, 0, 2, 2]


def test_rounding_passes_the_gradient_unchanged():
    x = torch.linspace(-3, 3, 13, requires_grad=True)
    weights = torch.arange(13.0)
    (round_straight_through(x) * weights).sum().backward()
    assert torch.equal(x.grad, weights)


@given(POSITIVE)
def test_power_of_two_is_the_nearest_in_ratio(value):
    rounded = power_of_two(torch.tensor(value, dtype=torch.float64)).item()
    assert is_power_of_two(rounded)
    assert abs(math.log2(rounded / value)) <= 0.5 + 1e-9


def test_power_of_two_passes_the_gradient_unchanged():
    x = torch.tensor([0.3, 5.0], requires_grad=True)
    power_of_two(x).sum().backward()
    assert x.grad.tolist() == [1, 1]


@given(POSITIVE, st.integers(-30, 0))
def test_short_mantissa_has_seven_bits_and_nothing_finer_than_asked(value, exponent):
    finest = torch.tensor(2.0**exponent, dtype=torch.float64)
    rounded = short_mantissa(torch.tensor(value, dtype=torch.float64), finest).item()
    assert rounded > 0
    assert math.frexp(rounded)[0] * 128 % 1 == 0
    assert (rounded / 2.0**exponent) % 1 == 0
    step = max(2.0 ** math.floor(math.log2(value)) / 64, 2.0**exponent)
    assert abs(rounded - value) <= max(step / 2, step - value)


@given(SEEDS, st.integers(2, 8), st.booleans(), POSITIVE)
def test_activation_codes_are_integers_within_the_range(seed, bits, signed, alpha):
    quantizer = activation(bits, signed=signed, alpha=alpha)
    x = torch.randn(64, generator=torch.Generator().manual_seed(seed)) * alpha
    codes = quantizer(x) / quantizer.scale
    assert torch.equal(codes, codes.round())
    assert codes.min() >= quantizer.q_min
    assert codes.max() <= quantizer.q_max
    assert is_power_of_two(quantizer.scale)


@given(SEEDS, st.booleans())
def test_values_on_the_grid_stay_where_they_are(seed, signed):
    quantizer = activation(signed=signed)
    x = quantizer(torch.randn(64, generator=torch.Generator().manual_seed(seed)) * 5)
    assert torch.equal(quantizer(x), x)


@pytest.mark.parametrize(("signed", "limits"), [(True, (-128, 127)), (False, (0, 255))])
def test_eight_bits_have_the_range_of_an_int8_or_uint8(signed, limits):
    quantizer = activation(signed=signed)
    codes = quantizer(torch.tensor([-1e6, 1e6])) / quantizer.scale
    assert codes.tolist() == list(limits)


def test_activations_beyond_the_clipping_teach_the_clipping_and_not_the_layer_before():
    quantizer = activation(alpha=2.0)
    x = torch.tensor([0.3, 5.0], requires_grad=True)
    quantizer(x).sum().backward()
    assert x.grad.tolist() == [1, 0]
    # The value of a clipped activation is alpha, but for the rounding of the step.
    assert quantizer.alpha.grad.item() == pytest.approx(1.0, abs=0.01)


def test_an_inactive_quantizer_passes_activations_unchanged():
    x = torch.randn(10)
    quantizer = ActivationQuantizer(8, signed=False)
    assert torch.equal(quantizer(x), x)


@given(SEEDS, st.integers(2, 8), st.floats(1.0, 4.0))
def test_weight_codes_are_symmetric_integers_times_a_power_of_two(seed, bits, alpha):
    quantizer = WeightQuantizer(bits)
    quantizer.alpha.data.fill_(alpha)
    quantizer.active = True
    weight = torch.randn(6, 3, 3, 3, generator=torch.Generator().manual_seed(seed)) * 7 + 2
    codes = quantizer.codes(weight)
    assert torch.equal(codes, codes.round())
    assert codes.abs().max() <= quantizer.q_max == 2 ** (bits - 1) - 1
    assert is_power_of_two(quantizer.scale)
    assert torch.equal(quantizer(weight), codes * quantizer.scale)


@given(SEEDS, st.floats(0.1, 10.0), st.floats(-5.0, 5.0))
def test_weights_are_normalised_whatever_their_scale_and_mean(seed, spread, mean):
    weight = torch.randn(
        8, 4, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    normalised = WeightQuantizer(8)(weight * spread + mean)
    assert normalised.mean().item() == pytest.approx(0, abs=1e-9)
    assert normalised.std().item() == pytest.approx(1, abs=1e-9)
    torch.testing.assert_close(normalised, WeightQuantizer(8)(weight))


def test_gradient_of_the_normalisation_goes_through_mean_and_deviation():
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(3, 2, 2, 2, dtype=torch.float64, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(WeightQuantizer(8), weight)
    # Neither a shift nor a factor changes normalised weights, so no gradient points there.
    mixing = torch.randn(weight.shape, dtype=torch.float64, generator=generator)
    (WeightQuantizer(8)(weight) * mixing).sum().backward()
    assert weight.grad.sum().item() == pytest.approx(0, abs=1e-12)
    assert (weight.grad * weight).sum().item() == pytest.approx(0, abs=1e-12)


def test_calibration_takes_the_largest_range_but_for_one_value_in_ten_thousand():
    quantizer = ActivationQuantizer(8, signed=True)
    quantizer.observe()
    quiet, loud = torch.full((20_000,), 0.5), torch.full((20_000,), -2.0)
    loud[7] = 1000.0
    quantizer(quiet)
    quantizer(loud)
    quantizer.calibrate()
    assert quantizer.alpha.item() == 2.0
    quantizer(torch.full((10,), 50.0))
    quantizer.calibrate()
    assert quantizer.alpha.item() == 2.0, "calibration did not end"


def test_set_active_reaches_every_quantizer():
    module = nn.Sequential(WeightQuantizer(8), nn.Sequential(ActivationQuantizer(8, signed=True)))
    set_active(module, active=True)
    assert module[0].active
    assert module[1][0].active
    set_active(module, active=False)
    assert not module[0].active
    assert not module[1][0].active
