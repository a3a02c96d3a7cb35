"""The total-variation step: what holds for any input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qpde_perception.compiling.reference import smooth
from qpde_perception.compiling.specification import Smooth
from qpde_perception.learning.total_variation import (
    SmoothingConfig,
    TotalVariationStep,
    flux_divergence,
)

SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9))
RATES = st.floats(0.01, 0.25)
DELTAS = st.floats(0.05, 3.0)
ITERATIONS = st.integers(1, 3)


def maps(seed, size):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, *size, dtype=torch.float64, generator=generator) * 2


def step(delta=0.5, rate=0.125, iterations=1):
    return TotalVariationStep(SmoothingConfig(delta=delta, rate=rate, iterations=iterations))


def smoothed_variation(x, delta):
    """Huber's total variation, whose gradient is the flux's divergence."""
    total = 0.0
    for difference in (x[..., 1:, :] - x[..., :-1, :], x[..., 1:] - x[..., :-1]):
        d = difference.abs()
        total += torch.where(d <= delta, d**2 / 2, delta * (d - delta / 2)).sum().item()
    return total


@given(SEEDS, SIZES, DELTAS, RATES, ITERATIONS)
def test_mean_of_every_map_is_kept(seed, size, delta, rate, iterations):
    x = maps(seed, size)
    smoothed = step(delta, rate, iterations)(x)
    torch.testing.assert_close(smoothed.mean((2, 3)), x.mean((2, 3)))


@given(st.floats(-100, 100), SIZES, RATES)
def test_constant_maps_are_fixed_points(value, size, rate):
    x = torch.full((1, 2, *size), value, dtype=torch.float64)
    assert torch.equal(step(rate=rate)(x), x)


@given(SEEDS, SIZES, DELTAS, RATES)
def test_smoothed_total_variation_never_grows(seed, size, delta, rate):
    x = maps(seed, size)
    before, after = (smoothed_variation(y, delta) for y in (x, step(delta, rate)(x)))
    assert after <= before + 1e-9


@given(SEEDS, SIZES, DELTAS, RATES, ITERATIONS)
def test_two_inputs_never_move_apart(seed, size, delta, rate, iterations):
    x, y = maps(seed, size), maps(seed + 1, size)
    take = step(delta, rate, iterations)
    assert (take(x) - take(y)).norm() <= (x - y).norm() * (1 + 1e-12)


def test_a_rate_beyond_a_quarter_does_amplify():
    """The bound is sharp: the highest frequency grows as soon as the rate exceeds a quarter."""
    checkerboard = torch.ones(1, 1, 64, 64, dtype=torch.float64)
    checkerboard[..., ::2, 1::2] = checkerboard[..., 1::2, ::2] = -1
    x = checkerboard * 0.01
    assert step(rate=0.27)(x).norm() > x.norm()
    assert step(rate=0.25)(x).norm() <= x.norm()


def test_the_highest_frequency_vanishes_at_an_eighth():
    checkerboard = torch.ones(1, 1, 8, 8, dtype=torch.float64)
    checkerboard[..., ::2, 1::2] = checkerboard[..., 1::2, ::2] = -1
    inside = step(rate=0.125)(checkerboard * 0.01)[..., 1:-1, 1:-1]
    torch.testing.assert_close(inside, torch.zeros_like(inside))


@given(SEEDS, SIZES, DELTAS)
def test_divergence_is_the_gradient_of_the_smoothed_variation(seed, size, delta):
    x = maps(seed, size).requires_grad_()
    total = torch.zeros((), dtype=torch.float64)
    for difference in (x[..., 1:, :] - x[..., :-1, :], x[..., 1:] - x[..., :-1]):
        total = total + torch.nn.functional.huber_loss(
            difference, torch.zeros_like(difference), reduction="sum", delta=delta
        )
    (gradient,) = torch.autograd.grad(total, x, allow_unused=True)
    torch.testing.assert_close(flux_divergence(x.detach(), delta), gradient)


def test_nothing_flows_across_the_border():
    """A map and its mirror image beyond the border are smoothed alike."""
    x = maps(3, (5, 6))
    mirrored = torch.cat([x, x.flip(-1)], dim=-1)
    mirrored = torch.cat([mirrored, mirrored.flip(-2)], dim=-2)
    torch.testing.assert_close(step()(mirrored)[..., :5, :6], step()(x))


def test_an_edge_passes_at_a_bounded_rate():
    x = torch.zeros(1, 1, 3, 8)
    x[..., 4:] = 1000.0
    change = step(delta=0.5, rate=0.125)(x) - x
    assert change.abs().max().item() == pytest.approx(0.0625)


@given(SEEDS, SIZES, st.integers(-5, 1), ITERATIONS, st.sampled_from([0.0625, 0.125, 0.25]))
def test_integer_smoothing_equals_the_trained_one_on_the_grid(
    seed, size, exponent, iterations, rate
):
    scale = torch.tensor(2.0**exponent)
    layer = step(delta=0.5, rate=rate, iterations=iterations)
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(-128, 128, (2, 3, *size), generator=generator).float()
    trained = torch.round(layer(codes * scale, scale) / scale).permute(0, 2, 3, 1).numpy()
    deployed = Smooth(
        name="s",
        input="x",
        output="s",
        delta=int(layer.delta_codes(scale)),
        rate=rate,
        iterations=iterations,
    )
    result = smooth(codes.permute(0, 2, 3, 1).numpy(), deployed)
    assert np.array_equal(result, trained)
    assert np.abs(result).max() <= codes.abs().max().item()


def test_delta_is_at_least_one_step_of_a_coarse_grid():
    assert step(delta=0.5).delta_codes(torch.tensor(4.0)).item() == 1
    assert step(delta=0.5).delta_codes(torch.tensor(0.125)).item() == 4
