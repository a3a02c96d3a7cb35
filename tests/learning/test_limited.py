"""The block of limited gain against its formula, written frequency by frequency."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qpde_perception.learning.limited import LimitedBatchNorm, LimitedBlock, StepLimit
from qpde_perception.learning.quantizers import ActivationQuantizer

CHANNELS, HIDDEN, SIZE = 3, 6, 5
TORUS = SIZE + 1


def limited_block(seed, *, gain=1.0, by_channel=False, spread=0.5):
    """A float64 block with scales of its own, its limits brought up to them."""
    torch.manual_seed(seed)
    trunk = ActivationQuantizer(8, signed=True)
    limit = StepLimit(SIZE, gain, by_channel)
    made = LimitedBlock(CHANNELS, 2, trunk, limit=limit, weight_bits=8, activation_bits=8).double()
    with torch.no_grad():
        for norm in (made.inner_norm, made.outer_norm):
            norm.log_scale += spread * torch.randn_like(norm.log_scale)
            norm.shift.normal_()
            norm.mean.normal_()
        made.inner_norm.variance.fill_(3.0)
    settled(made)
    return made.eval()


def settled(made):
    for _ in range(5):
        made.settle()
    return made


def symbols(made):
    """`K2 K1` at every frequency of the torus: (frequencies, hidden, channels)."""
    expand = made.expand_quantizer(made.expand).detach()[:, :, 0, 0]
    depthwise = made.depthwise_quantizer(made.depthwise).detach()[:, 0]
    angles = 2 * np.pi * torch.arange(TORUS, dtype=torch.float64) / TORUS
    waves = torch.exp(-1j * angles[:, None] * torch.arange(3)[None, :])
    responses = torch.einsum("ui,vj,hij->uvh", waves, waves, depthwise.to(waves.dtype))
    return responses.reshape(-1, HIDDEN, 1) * expand


def curvature(made):
    """`|| D1^(1/2) K D2^(1/2) ||^2` on the torus, of the singular values at every frequency."""
    inner, outer = (n.slope.detach().sqrt() for n in (made.inner_norm, made.outer_norm))
    return torch.linalg.matrix_norm(inner[:, None] * symbols(made) * outer, 2).max().item() ** 2


def row_sums(made):
    """Row sums of `|K D2 K^T| D1` with all scales unlimited, the largest of all frequencies."""
    inner, outer = (n.unlimited_slope.detach() for n in (made.inner_norm, made.outer_norm))
    K = symbols(made)
    return (torch.abs(K * outer @ K.mH) @ inner).amax(0)


BLOCKS = {
    "seed": st.integers(0, 2**16),
    "gain": st.floats(1.0, 8.0),
    "by_channel": st.booleans(),
    "spread": st.floats(0.0, 2.0),
}


@given(**BLOCKS)
@settings(max_examples=12)
def test_a_limited_block_moves_no_two_inputs_further_apart_than_its_gain(
    seed, gain, by_channel, spread
):
    made = limited_block(seed, gain=gain, by_channel=by_channel, spread=spread)
    weights = made.outer_norm.slope.detach()[:, None, None]
    x, y = torch.randn(2, 200, CHANNELS, SIZE, SIZE, dtype=torch.float64) * 10
    before = ((x - y) ** 2 / weights).sum((1, 2, 3))
    after = ((made(x) - made(y)) ** 2 / weights).sum((1, 2, 3))
    assert (after <= before * gain**2 * (1 + 1e-12)).all()


@given(**BLOCKS)
@settings(max_examples=12)
def test_a_limited_block_has_just_the_curvature_that_its_gain_allows(
    seed, gain, by_channel, spread
):
    made = limited_block(seed, gain=gain, by_channel=by_channel, spread=spread)
    assert curvature(made) == pytest.approx(made.MARGIN * (1 + gain), rel=5e-3)


@pytest.mark.parametrize("by_channel", [False, True])
def test_limits_follow_the_weights_while_the_block_learns(by_channel):
    made = limited_block(1, by_channel=by_channel)
    made.train()
    with torch.no_grad():
        made.expand += torch.randn_like(made.expand)
        made.outer_norm.log_scale += 3.0
    x = torch.randn(8, CHANNELS, SIZE, SIZE, dtype=torch.float64)
    for _ in range(100):
        made(x)
    assert curvature(made) == pytest.approx(made.MARGIN * 2, rel=2e-2)


@pytest.mark.parametrize("parameter", ["expand", "depthwise", "inner", "outer"])
def test_the_gradient_knows_how_the_limit_depends_on_kernels_and_scales(parameter):
    made = limited_block(2).train()
    values = {
        "expand": made.expand,
        "depthwise": made.depthwise,
        "inner": made.inner_norm.log_scale,
        "outer": made.outer_norm.log_scale,
    }[parameter]
    x = torch.randn(8, CHANNELS, SIZE, SIZE, dtype=torch.float64)
    weights = torch.randn_like(x)

    def loss():
        for _ in range(300):  # until the power iteration stands still
            found = (made(x) * weights).sum()
        return found

    (gradient,) = torch.autograd.grad(loss(), values)
    direction, step = torch.randn_like(values), 1e-5
    with torch.no_grad():
        values += step * direction
        above = loss()
        values -= 2 * step * direction
        below = loss()
    expected = (above - below).item() / (2 * step)
    assert (gradient * direction).sum().item() == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_a_scale_of_all_outer_channels_changes_nothing_and_is_not_learned():
    made = limited_block(3).train()
    x = torch.randn(8, CHANNELS, SIZE, SIZE, dtype=torch.float64)
    before = made(x)
    (gradient,) = torch.autograd.grad(before.square().sum(), made.outer_norm.log_scale)
    assert abs(gradient.sum()) < 1e-9 * gradient.abs().sum()
    with torch.no_grad():
        made.outer_norm.log_scale += 5.0
    settled(made)
    torch.testing.assert_close(made(x), before, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_channels_are_levelled_to_the_mean_of_their_row_sums(seed):
    made = limited_block(seed, by_channel=True)
    sums = row_sums(made)
    expected = (sums.mean() / sums).clamp(max=1.0)
    assert expected.min() < 0.9
    torch.testing.assert_close(made.inner_norm.limit, expected, rtol=1e-9, atol=0)


@given(seed=st.integers(0, 2**16), spread=st.floats(0.0, 3.0))
@settings(max_examples=12)
def test_row_sums_of_levelled_channels_bound_the_curvature(seed, spread):
    made = limited_block(seed, by_channel=True, spread=spread)
    made.outer_norm.limit.fill_(1.0)
    assert curvature(made) <= row_sums(made).mean() * (1 + 1e-9)


def test_channels_are_divided_by_one_deviation_for_all():
    norm = LimitedBatchNorm(2, limit=None, divides=True)
    norm.log_scale.data = torch.tensor([0.0, 1.0])
    x = torch.randn(64, 2, 4, 4) * torch.tensor([0.1, 3.0])[:, None, None] + 5.0
    deviation = x.var((0, 2, 3), correction=0).mean().sqrt()
    scale = torch.tensor([1.0, np.e])[:, None, None]
    expected = (x - x.mean((0, 2, 3), keepdim=True)) / deviation * scale
    torch.testing.assert_close(norm(x), expected, rtol=1e-4, atol=1e-4)
    for _ in range(200):
        norm(x)
    torch.testing.assert_close(norm.eval()(x), expected, rtol=1e-3, atol=1e-3)


def test_where_nothing_is_divided_the_scale_alone_says_how_large_values_are():
    norm = LimitedBatchNorm(2, limit=torch.tensor(0.25), divides=False)
    x = torch.randn(64, 2, 4, 4) * 100.0 + 5.0
    expected = 0.25 * (x - x.mean((0, 2, 3), keepdim=True))
    torch.testing.assert_close(norm(x), expected, rtol=1e-4, atol=1e-3)
    assert torch.equal(norm.variance, torch.ones(2))
