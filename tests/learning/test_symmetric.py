"""The symmetric block against its formula, written with dense matrices."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F  # noqa: N812

from qpde_perception.learning.layers import (
    PooledHead,
    PositiveBatchNorm,
    QuantizedConv,
    Requantization,
    add_on_grid,
)
from qpde_perception.learning.quantizers import ActivationQuantizer, set_active
from qpde_perception.learning.symmetric import SymmetricBlock

CHANNELS, EXPANSION, HEIGHT, WIDTH = 3, 2, 4, 5
SIZE = CHANNELS * HEIGHT * WIDTH


def block(seed=0):
    """A float64 block with random normalisations, its quantizers inactive."""
    torch.manual_seed(seed)
    trunk = ActivationQuantizer(8, signed=True)
    made = SymmetricBlock(CHANNELS, EXPANSION, trunk, weight_bits=8, activation_bits=8)
    with torch.no_grad():
        for norm in (made.inner_norm, made.outer_norm):
            norm.log_scale += 0.5 * torch.randn_like(norm.log_scale)
            norm.shift.normal_()
            norm.mean.normal_()
            norm.variance.uniform_(0.5, 20)
    return made.double().eval()


def affine(norm):
    """Slope and offset of a normalisation, from its definition."""
    slope = norm.log_scale.exp() / torch.sqrt(norm.variance + norm.epsilon)
    return slope.detach(), (norm.shift - norm.mean * slope).detach()


def dense_kernel(made, size=(HEIGHT, WIDTH)):
    """`K` as a matrix, built entry by entry from the two kernels, not with a convolution."""
    height, width = size
    expand = made.expand_quantizer(made.expand).detach()
    depthwise = made.depthwise_quantizer(made.depthwise).detach()
    hidden = CHANNELS * EXPANSION
    matrix = torch.zeros(hidden, height, width, CHANNELS, height, width, dtype=torch.float64)
    for row in range(height):
        for column in range(width):
            for i in range(3):
                for j in range(3):
                    y, x = row + i - 1, column + j - 1
                    if 0 <= y < height and 0 <= x < width:
                        matrix[:, row, column, :, y, x] = (
                            depthwise[:, 0, i, j, None] * expand[:, :, 0, 0]
                        )
    return matrix.reshape(hidden * height * width, -1)


def per_position(values, positions=HEIGHT * WIDTH):
    return values.repeat_interleave(positions)


@pytest.mark.parametrize("seed", range(3))
def test_block_is_its_formula_with_one_dense_matrix_and_its_transpose(seed):
    made = block(seed)
    K = dense_kernel(made)
    d1, b1 = map(per_position, affine(made.inner_norm))
    d2, b2 = map(per_position, affine(made.outer_norm))
    x = torch.randn(2, CHANNELS, HEIGHT, WIDTH, dtype=torch.float64)
    flat = x.reshape(2, SIZE)
    inner = torch.relu(flat @ K.T * d1 + b1)
    expected = flat - (inner @ K * d2 + b2)
    torch.testing.assert_close(made(x).reshape(2, SIZE), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("seed", range(3))
def test_jacobian_is_symmetric_in_the_weighted_inner_product(seed):
    made = block(seed)
    x = torch.randn(SIZE, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(
        lambda v: made(v.reshape(1, CHANNELS, HEIGHT, WIDTH)).reshape(-1), x
    )
    d2 = per_position(affine(made.outer_norm)[0])
    weighted = jacobian / d2[:, None]
    torch.testing.assert_close(weighted, weighted.T, rtol=0, atol=1e-10)
    assert not torch.allclose(jacobian, jacobian.T), "the weights of the product do nothing here"
    # x - (positive semi-definite): every eigenvalue is at most one.
    symmetric = weighted * (d2[:, None] * d2[None, :]).sqrt()
    assert torch.linalg.eigvalsh(symmetric).max() <= 1 + 1e-10


def test_a_small_step_never_moves_two_inputs_apart_in_the_weighted_norm():
    made = block(4)
    K = dense_kernel(made)
    d1, d2 = (per_position(affine(n)[0]) for n in (made.inner_norm, made.outer_norm))
    norm = torch.linalg.matrix_norm(d1.sqrt()[:, None] * K * d2.sqrt()[None, :], 2) ** 2
    shrink = torch.log(2 / norm)
    with torch.no_grad():
        made.outer_norm.log_scale += shrink
    d2 = per_position(affine(made.outer_norm)[0])
    x, y = torch.randn(2, 200, CHANNELS, HEIGHT, WIDTH, dtype=torch.float64)
    before = ((x - y).reshape(200, -1) ** 2 / d2).sum(1)
    after = ((made(x) - made(y)).reshape(200, -1) ** 2 / d2).sum(1)
    assert (after <= before * (1 + 1e-12)).all()


def test_one_pair_of_kernels_serves_both_ways():
    made = block()
    kernels = [p for p in made.parameters() if p.ndim == 4]
    assert sum(p.numel() for p in kernels) == CHANNELS**2 * EXPANSION + 9 * CHANNELS * EXPANSION
    assert [n for n, p in made.named_parameters() if p.ndim == 4] == ["expand", "depthwise"]


def test_the_trunk_belongs_to_its_stage():
    assert not [name for name, _ in block().named_parameters() if "trunk" in name]


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 10))
def test_identity_path_is_exact_on_the_grid(seed, alpha):
    trunk = ActivationQuantizer(8, signed=True)
    trunk.alpha.data.fill_(alpha)
    trunk.active = True
    generator = torch.Generator().manual_seed(seed)
    codes, branch_codes = torch.randint(-128, 128, (2, 1, 3, 4, 4), generator=generator).float()
    x = codes * trunk.scale
    assert torch.equal(add_on_grid(x, torch.zeros_like(x), trunk), x)
    # Only the branch is rounded, and only saturation loses anything.
    rest = (torch.rand(codes.shape, generator=generator) - 0.5) * 0.99
    total = add_on_grid(x, (branch_codes + rest) * trunk.scale, trunk) / trunk.scale
    assert torch.equal(total, (codes + branch_codes).clamp(-128, 127))


def test_scale_of_a_normalisation_is_positive_whatever_is_learned():
    norm = PositiveBatchNorm(3)
    norm.log_scale.data = torch.tensor([-20.0, 0.0, 5.0])
    steps = Requantization(torch.tensor(2.0**-9), torch.tensor(2.0**-4))
    slope, _ = norm.deployed(steps)
    assert (slope > 0).all()


def test_deployed_normalisation_is_the_float_one_to_seven_bits():
    torch.manual_seed(1)
    norm = PositiveBatchNorm(16).eval()
    norm.log_scale.data.normal_()
    norm.shift.data.normal_()
    norm.mean.normal_()
    norm.variance.uniform_(0.5, 2)
    steps = Requantization(torch.tensor(2.0**-9), torch.tensor(2.0**-4))
    slope, offset = norm.deployed(steps)
    exact = norm.log_scale.exp() / (norm.variance + norm.epsilon).sqrt()
    assert ((slope / exact - 1).abs() <= 2.0**-7 + 1e-6).all()
    bias = offset / (steps.accumulator * slope)
    assert torch.equal(bias, bias.round())
    assert steps.finest.item() == 2.0**5 * 2.0**-16
    assert ((slope / steps.finest) % 1 == 0).all()
    x = torch.randn(2, 16, 3, 3)
    expected = x * slope[:, None, None] + offset[:, None, None]
    assert torch.equal(norm(x, steps), expected)


def test_normalisation_learns_its_statistics_until_it_is_frozen():
    norm = PositiveBatchNorm(2)
    x = torch.randn(8, 2, 4, 4) * 3 + 5
    norm(x)
    moved = norm.mean.clone()
    assert (moved > 0.3).all()
    norm.frozen = True
    norm(x)
    assert torch.equal(norm.mean, moved)


def test_convolution_is_normalised_and_keeps_its_padding_and_stride():
    torch.manual_seed(2)
    conv = QuantizedConv(3, 4, kernel=3, stride=2, bits=8).eval()
    x = torch.randn(1, 3, 8, 8)
    target = ActivationQuantizer(8, signed=True)
    weight = (conv.weight - conv.weight.mean()) / conv.weight.std()
    expected = F.conv2d(x, weight, stride=2, padding=1) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(conv(x, torch.tensor(1.0), target), expected)


def test_head_rounds_the_mean_to_quarters_of_a_step_and_its_weights_to_integers():
    torch.manual_seed(3)
    features = ActivationQuantizer(8, signed=False)
    head = PooledHead(6, 4, features)
    head.weight.data.normal_()
    x = torch.rand(2, 6, 3, 3) * 6
    torch.testing.assert_close(head(x), F.linear(x.mean((2, 3)), head.weight, head.bias))
    set_active(features, active=True)
    step, scale = features.scale / 4, head.weight_scale()
    codes = torch.round(head.weight / scale)
    assert codes.abs().max() <= 127
    # Half of the range is used, or the power of two would be smaller.
    assert (codes.abs().amax(1) > 63).all()
    pooled = torch.round(x.mean((2, 3)) / step) * step
    torch.testing.assert_close(head(x), F.linear(pooled, codes * scale, head.bias))


@pytest.mark.parametrize("values", ["alike", "normal", "one"])
def test_sums_of_a_large_head_are_integers_that_float32_holds(values):
    torch.manual_seed(4)
    features = ActivationQuantizer(8, signed=False)
    head = PooledHead(1024, 3, features)
    made = {"alike": torch.full, "normal": lambda shape, scale: scale * torch.randn(shape)}
    weight = made.get(values, lambda shape, _: torch.eye(*shape))(head.weight.shape, 0.3)
    head.weight.data.copy_(weight)
    codes = torch.round(head.weight / head.weight_scale()).abs()
    assert codes.max() <= 127
    sums = codes.sum(1) * features.q_max * 2**head.EXTRA_BITS
    assert sums.max() < 2**24
    # No coarser than one of the two bounds asks for.
    assert ((codes.amax(1) > 63) | (sums > 2**22)).all()
