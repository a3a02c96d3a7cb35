"""Residual blocks of images against their formulas, written with dense matrices in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from qpde_perception.learning.errors import LearningError
from qpde_perception.learning.zoo.blocks import (
    Place,
    SymmetricBlock,
    TwoKernelBlock,
    append_and_pool,
)
from qpde_perception.learning.zoo.certified import CertifiedBlock
from qpde_perception.learning.zoo.layers import Convolution, ExpandedConvolution, Style
from qpde_perception.learning.zoo.mobilenet import InvertedResidual
from qpde_perception.learning.zoo.smoothing import SmoothingConfig

CHANNELS, SIZE = 3, 4
FLAT = CHANNELS * SIZE * SIZE
HIDDEN = 6
PLACE = Place(0, CHANNELS, CHANNELS, halves=False, size=SIZE)


def style(flavour, smoothing=None):
    return Style(flavour, "uniform", smoothing)


def randomised(block):
    """Float64, evaluated, with statistics and affine parts that do something."""
    with torch.no_grad():
        for part in block.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.weight.normal_()
                part.bias.normal_()
                part.running_mean.normal_()
                part.running_var.uniform_(0.5, 20)
            elif isinstance(part, CertifiedBlock):
                part.scale.normal_()
                part.shift.normal_()
                part.mean.normal_()
                part.variance.uniform_(0.5, 20)
    return block.double().eval()


def dense(kernel, size=SIZE):
    """The convolution with zero padding as a matrix, entry by entry; depthwise if one input."""
    weight = kernel().detach()
    outputs, inputs, span, _ = weight.shape
    depthwise = inputs == 1 and outputs > 1
    columns = outputs if depthwise else inputs
    matrix = torch.zeros(outputs, size, size, columns, size, size, dtype=torch.float64)
    for o in range(outputs):
        for c in [o] if depthwise else range(inputs):
            for row in range(size):
                for column in range(size):
                    for i in range(span):
                        for j in range(span):
                            y, x = row + i - span // 2, column + j - span // 2
                            if 0 <= y < size and 0 <= x < size:
                                value = weight[o, 0 if depthwise else c, i, j]
                                matrix[o, row, column, c, y, x] = value
    return matrix.reshape(outputs * size * size, -1)


def per_position(values):
    return values.detach().repeat_interleave(SIZE * SIZE)


def normalised(norm, y):
    slope = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return y * per_position(slope) + per_position(norm.bias - norm.running_mean * slope)


def inputs(count=2):
    return torch.randn(count, CHANNELS, SIZE, SIZE, dtype=torch.float64)


def convolution(made_style):
    return Convolution(CHANNELS, made_style)


def expanded(made_style):
    return ExpandedConvolution(CHANNELS, HIDDEN, made_style)


def dense_operator(operator):
    if isinstance(operator, Convolution):
        return dense(operator.kernel)
    return dense(operator.depthwise) @ dense(operator.expand)


OPERATORS = pytest.mark.parametrize("operator", [convolution, expanded])
RECTIFIED = pytest.mark.parametrize("rectified", [False, True])


def check(block, x, expected):
    result = block(x).reshape(len(x), -1)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_two_kernel_block_is_its_formula(sign):
    torch.manual_seed(0)
    block = randomised(TwoKernelBlock(PLACE, style("twin"), sign=sign, strided=False))
    x = inputs()
    flat = x.reshape(2, FLAT)
    inner = torch.relu(normalised(block.first_norm, flat @ dense(block.first).T))
    branch = normalised(block.second_norm, inner @ dense(block.second).T)
    check(block, x, torch.relu(flat + sign * branch))


@OPERATORS
@RECTIFIED
def test_published_symmetric_block_is_its_formula(operator, rectified):
    torch.manual_seed(1)
    made = style("paper")
    block = SymmetricBlock(PLACE, operator(made), made, step=0.1, rectified=rectified)
    block = randomised(block)
    K = dense_operator(block.operator)
    x = inputs()
    flat = x.reshape(2, FLAT)
    inner = torch.relu(normalised(block.first_norm, flat @ K.T))
    after = flat - 0.1 * normalised(block.second_norm, inner @ K)
    check(block, x, torch.relu(after) if rectified else after)


@OPERATORS
@RECTIFIED
def test_certified_block_is_a_gradient_step(operator, rectified):
    torch.manual_seed(2)
    made = style("certified")
    block = CertifiedBlock(PLACE, operator(made), made, step=1.0, rectified=rectified)
    block = randomised(block)
    slope = block.scale / torch.sqrt(block.variance + block.EPSILON)
    K = per_position(slope)[:, None] * dense_operator(block.operator)
    b = per_position(block.shift - block.mean * slope)
    exact = torch.linalg.matrix_norm(K, 2).item() ** 2
    assert block.norm.squared.item() == pytest.approx(exact, rel=0.01)
    assert block.norm.squared.item() <= exact * (1 + 1e-12)
    assert block.limited_step().item() * exact <= 2.0
    x = inputs()
    flat = x.reshape(2, FLAT)
    after = flat - block.limited_step().item() * torch.relu(flat @ K.T + b) @ K
    check(block, x, torch.relu(after) if rectified else after)


def test_a_small_kernel_leaves_the_step_at_its_largest():
    torch.manual_seed(3)
    made = style("certified")
    block = CertifiedBlock(PLACE, convolution(made), made, step=0.5, rectified=True)
    block.scale.data.fill_(1e-3)
    assert block.eval().limited_step().item() == 0.5


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([convolution, expanded]),
    st.booleans(),
    st.sampled_from([None, SmoothingConfig(), SmoothingConfig(flux="huber", iterations=3)]),
    st.floats(1e-3, 30.0),
)
def test_certified_blocks_never_move_two_inputs_apart(seed, operator, rectified, smoothing, spread):
    torch.manual_seed(seed)
    made = style("certified", smoothing)
    block = CertifiedBlock(PLACE, operator(made), made, step=1.0, rectified=rectified)
    block = randomised(block)
    x = inputs(20)
    # Differences along what K amplifies most are those that would grow first.
    y = x + spread * torch.cat(
        [torch.randn_like(x[:10]), block.norm.direction.expand(10, -1, -1, -1)]
    )
    before, after = (x - y).flatten(1).norm(dim=1), (block(x) - block(y)).flatten(1).norm(dim=1)
    assert (after <= before * (1 + 1e-12)).all()


def test_certified_block_learns_the_statistics_it_is_deployed_with():
    torch.manual_seed(4)
    made = style("certified")
    block = CertifiedBlock(PLACE, convolution(made), made, step=1.0, rectified=True)
    x = torch.randn(64, CHANNELS, SIZE, SIZE)
    for _ in range(100):
        trained = block(x)
    torch.testing.assert_close(block.eval()(x), trained, rtol=0.02, atol=0.02)


def test_certified_block_refuses_maps_of_another_size():
    made = style("certified")
    block = CertifiedBlock(PLACE, convolution(made), made, step=1.0, rectified=True)
    with pytest.raises(LearningError, match="maps of 4 pixels"):
        block(torch.zeros(1, CHANNELS, 5, 5))


def test_branch_of_symmetric_block_is_a_scaled_gradient_without_normalisation():
    """With normalisations of slope one the Jacobian is symmetric and its eigenvalues at most 1."""
    torch.manual_seed(5)
    made = style("paper")
    block = SymmetricBlock(PLACE, convolution(made), made, step=0.1, rectified=False)
    block = block.double().eval()
    x = torch.randn(FLAT, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(
        lambda v: block(v.reshape(1, CHANNELS, SIZE, SIZE)).reshape(-1), x
    )
    torch.testing.assert_close(jacobian, jacobian.T, rtol=0, atol=1e-10)
    assert torch.linalg.eigvalsh(jacobian).max() <= 1 + 1e-10


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_inverted_residual_is_its_formula(sign):
    torch.manual_seed(6)
    block = randomised(InvertedResidual(PLACE, HIDDEN, style("twin"), sign=sign))
    x = inputs()
    flat = x.reshape(2, FLAT)
    wide = torch.relu(normalised(block.expand_norm, flat @ dense(block.expand).T))
    deep = torch.relu(normalised(block.depthwise_norm, wide @ dense(block.depthwise).T))
    branch = normalised(block.project_norm, deep @ dense(block.project).T)
    check(block, x, flat + sign * branch)


def test_operators_have_true_transposes():
    torch.manual_seed(7)
    for make in (convolution, expanded):
        operator = make(style("paper")).double()
        kernels = operator.kernels()
        x = inputs(1)
        y = torch.randn(1, operator.hidden, SIZE, SIZE, dtype=torch.float64)
        left = (operator.apply_to(x, kernels) * y).sum()
        right = (x * operator.transpose(y, kernels)).sum()
        torch.testing.assert_close(left, right)


def test_block_appends_its_input_and_pools():
    place = Place(0, 2, 3, halves=True, size=4)
    after, before = torch.randn(2, 1, 2, 4, 4)
    result = append_and_pool(after, before, place)
    assert result.shape == (1, 3, 2, 2)
    torch.testing.assert_close(result[0, 2, 0, 0], before[0, 0, :2, :2].mean())
    torch.testing.assert_close(result[0, 1, 1, 1], after[0, 1, 2:, 2:].mean())


@pytest.mark.parametrize("outputs", [2, 7])
def test_block_without_enough_channels_to_append_is_refused(outputs):
    place = Place(0, 3, outputs, halves=False, size=SIZE)
    with pytest.raises(LearningError, match=f"3 -> {outputs}"):
        TwoKernelBlock(place, style("twin"), sign=-1.0, strided=False)


@pytest.mark.parametrize(
    ("smoothing", "message"),
    [
        (SmoothingConfig(sites=("inner",)), "inside"),
        (SmoothingConfig(gamma=0.4), "gamma"),
    ],
)
def test_smoothing_that_would_break_the_certificate_is_refused(smoothing, message):
    with pytest.raises(LearningError, match=message):
        style("certified", smoothing)


def test_smoothing_sits_behind_the_non_linearities_before_the_quantizers():
    torch.manual_seed(8)
    made = style("paper", SmoothingConfig(sites=("inner", "outer")))
    block = randomised(SymmetricBlock(PLACE, convolution(made), made, step=0.1, rectified=True))
    smooth = block.inner_smoothing
    x = inputs()
    kernels = block.operator.kernels()
    y = smooth(torch.relu(block.first_norm(block.operator.apply_to(x, kernels))))
    y = block.second_norm(block.operator.transpose(y, kernels))
    expected = smooth(torch.relu(x - 0.1 * y))
    torch.testing.assert_close(block(x), expected)
    assert not torch.allclose(expected, torch.relu(x - 0.1 * y))
