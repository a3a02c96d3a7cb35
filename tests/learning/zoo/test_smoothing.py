"""Total-variation smoothing with either flux: what holds for any input."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qpde_perception.learning.errors import LearningError
from qpde_perception.learning.zoo.smoothing import Smoothing, SmoothingConfig

SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9))
FLUXES = st.sampled_from(["sqrt", "huber"])
EPSILONS = st.floats(1e-3, 4.0)
SHARES = st.floats(0.05, 1.0)
ITERATIONS = st.integers(1, 3)


def maps(seed, size):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, *size, dtype=torch.float64, generator=generator) * 2


def smoothing(flux="sqrt", eps=0.25, share=0.5, iterations=1):
    """Smoothing whose `gamma^2` is a share of `sqrt(eps) / 4`."""
    gamma = (share * eps**0.5 / 4) ** 0.5
    return Smoothing(SmoothingConfig(flux=flux, eps=eps, gamma=gamma, iterations=iterations))


STEPS = st.builds(smoothing, FLUXES, EPSILONS, SHARES, ITERATIONS)


def smoothed_variation(x, eps, flux):
    total = 0.0
    for d in (x[..., 1:, :] - x[..., :-1, :], x[..., 1:] - x[..., :-1]):
        if flux == "sqrt":
            total += torch.sqrt(d**2 + eps).sum().item()
        else:
            delta = eps**0.5
            zeros = torch.zeros_like(d)
            total += torch.nn.functional.huber_loss(d, zeros, reduction="sum", delta=delta).item()
    return total


def test_step_is_its_formula_with_dense_differences():
    height, width, eps, gamma = 3, 4, 0.3, 0.2
    x = maps(1, (height, width))[:1, :1]

    def difference(n):
        return torch.eye(n, dtype=torch.float64)[1:] - torch.eye(n, dtype=torch.float64)[:-1]

    right = torch.kron(torch.eye(height, dtype=torch.float64), difference(width))
    down = torch.kron(difference(height), torch.eye(width, dtype=torch.float64))
    flat = x.flatten()
    expected = flat.clone()
    for d in (right, down):
        change = d @ flat
        expected -= gamma**2 * d.T @ (change / torch.sqrt(change**2 + eps))
    made = Smoothing(SmoothingConfig(flux="sqrt", eps=eps, gamma=gamma))
    torch.testing.assert_close(made(x).flatten(), expected, rtol=0, atol=1e-10)


@given(SEEDS, SIZES, STEPS)
def test_mean_of_every_map_is_kept(seed, size, step):
    x = maps(seed, size)
    torch.testing.assert_close(step(x).mean((2, 3)), x.mean((2, 3)))


@given(st.floats(-100, 100), SIZES, FLUXES)
def test_constant_maps_are_fixed_points(value, size, flux):
    x = torch.full((1, 2, *size), value, dtype=torch.float64)
    assert torch.equal(smoothing(flux)(x), x)


@given(SEEDS, SIZES, FLUXES, EPSILONS, SHARES)
def test_smoothed_total_variation_never_grows(seed, size, flux, eps, share):
    x = maps(seed, size)
    after = smoothing(flux, eps, share)(x)
    assert smoothed_variation(after, eps, flux) <= smoothed_variation(x, eps, flux) + 1e-9


@given(SEEDS, SIZES, STEPS)
def test_two_inputs_never_move_apart(seed, size, step):
    x, y = maps(seed, size), maps(seed + 1, size)
    assert (step(x) - step(y)).norm() <= (x - y).norm() * (1 + 1e-12)


@pytest.mark.parametrize("flux", ["sqrt", "huber"])
def test_beyond_the_bound_the_highest_frequency_grows(flux):
    checkerboard = torch.ones(1, 1, 64, 64, dtype=torch.float64)
    checkerboard[..., ::2, 1::2] = checkerboard[..., 1::2, ::2] = -1
    x = checkerboard * 1e-3
    assert smoothing(flux, share=1.08)(x).norm() > x.norm()
    assert smoothing(flux, share=1.0)(x).norm() <= x.norm()


@pytest.mark.parametrize("change", [{"eps": 0.0}, {"eps": -1.0}, {"iterations": 0}])
def test_impossible_smoothing_is_refused(change):
    with pytest.raises(LearningError, match="smoothing needs"):
        SmoothingConfig(**change)


def test_sites_and_stages_choose_who_smooths():
    config = SmoothingConfig(sites=("inner",), stages=(1,))
    assert config.smooths("inner", 1)
    assert not config.smooths("inner", 0)
    assert not config.smooths("outer", 1)
    assert SmoothingConfig().smooths("outer", 5)
