"""Learned clipping: the published formula, its gradients, and the additive grid."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qpde_perception.learning.errors import LearningError
from qpde_perception.learning.zoo.quantizers import (
    LearnedActivationQuantizer,
    LearnedWeightQuantizer,
    additive_levels,
    set_quantizer_bits,
)

SEEDS = st.integers(0, 2**32 - 1)
ALPHAS = st.floats(0.3, 5.0)


def values(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator) * 2


def weights_quantizer(bits, alpha=3.0, grid="uniform", **options):
    made = LearnedWeightQuantizer(grid, **options).double()
    made.alpha.data.fill_(alpha)
    made.bits = bits
    return made


def activation_quantizer(bits, alpha=6.0, grid="uniform", **options):
    made = LearnedActivationQuantizer(grid, **options).double()
    made.alpha.data.fill_(alpha)
    made.bits = bits
    return made


def q(bits, t):
    """The published rounding."""
    levels = 2**bits - 1
    return torch.round(levels * t) / levels


def straight_through(rounded, t):
    return t + (rounded - t).detach()


@given(SEEDS, ALPHAS, st.integers(2, 16))
def test_weights_are_the_published_formula(seed, alpha, bits):
    w = values(seed, 4, 3, 3, 3)
    normalised = (w - w.mean()) / w.std()
    expected = alpha * q(bits - 1, (normalised / alpha).clamp(-1, 1))
    torch.testing.assert_close(weights_quantizer(bits, alpha)(w), expected)


@given(SEEDS, ALPHAS, st.integers(1, 16))
def test_activations_are_the_published_formula(seed, alpha, bits):
    x = values(seed, 2, 3, 4, 4)
    expected = alpha * q(bits, (x / alpha).clamp(0, 1))
    torch.testing.assert_close(activation_quantizer(bits, alpha)(x), expected)


def test_clippings_start_as_published():
    assert LearnedWeightQuantizer("uniform").alpha.item() == 3.0
    assert LearnedActivationQuantizer("uniform").alpha.item() == 6.0


@pytest.mark.parametrize(("bits", "expected"), [(1, {-1.5, 1.5}), (2, {-1.5, 0.0, 1.5})])
@pytest.mark.parametrize("grid", ["uniform", "apot"])
def test_one_and_two_bits_are_two_and_three_values(bits, expected, grid):
    w = values(3, 400)
    assert set(weights_quantizer(bits, 1.5, grid)(w).tolist()) == expected


def test_one_bit_has_no_zero():
    quantizer = weights_quantizer(1, 1.0, normalised=False)
    w = torch.tensor([-1.0, 0.0, 1.0, 2.0], dtype=torch.float64)
    assert 0.0 not in quantizer(w).tolist()


@given(SEEDS, ALPHAS, st.integers(3, 8))
def test_gradients_of_weights_pass_through_mean_and_deviation(seed, alpha, bits):
    w = values(seed, 30).requires_grad_()
    other = w.detach().clone().requires_grad_()
    quantizer = weights_quantizer(bits, alpha)
    reference_alpha = torch.tensor(alpha, dtype=torch.float64, requires_grad=True)
    towards = values(seed + 1, 30)
    (quantizer(w) * towards).sum().backward()
    u = ((other - other.mean()) / other.std() / reference_alpha).clamp(-1, 1)
    (reference_alpha * straight_through(q(bits - 1, u), u) * towards).sum().backward()
    torch.testing.assert_close(w.grad, other.grad)
    torch.testing.assert_close(quantizer.alpha.grad, reference_alpha.grad)


@given(SEEDS, ALPHAS, st.integers(1, 8), st.sampled_from(["uniform", "apot"]))
def test_gradients_of_activations_follow_the_stated_rule(seed, alpha, bits, grid):
    x = values(seed, 40).requires_grad_()
    quantizer = activation_quantizer(bits, alpha, grid)
    towards = values(seed + 1, 40)
    y = quantizer(x)
    (y * towards).sum().backward()
    inside = (x >= 0) & (x <= alpha)
    torch.testing.assert_close(x.grad, towards * inside)
    u = (x / alpha).clamp(0, 1)
    rule = torch.where(inside, y / alpha - u, (x > alpha).double())
    torch.testing.assert_close(quantizer.alpha.grad, (towards * rule).sum().detach())


@pytest.mark.parametrize("bits", [1, 2])
def test_coarse_weights_get_their_gradient_though_clipped(bits):
    quantizer = weights_quantizer(bits, 1.0, normalised=False)
    unit = torch.tensor([3.0, -3.0, 0.3, -0.7], dtype=torch.float64)
    w = (unit / unit.std()).requires_grad_()
    towards = values(1, 4)
    scaled = w.detach().clone().requires_grad_()
    (quantizer(w) * towards).sum().backward()
    u = scaled / scaled.std()
    # Everything passes: the derivative of the deviation's product is that of the identity.
    rounded = torch.round(u.clamp(-1, 1)) if bits == 2 else u.sign()
    ((u + (rounded - u).detach()) * scaled.std() * towards).sum().backward()
    torch.testing.assert_close(w.grad, scaled.grad)
    inside = u.abs() <= 1
    rule = torch.where(inside, rounded - u, u.sign()) * scaled.std()
    torch.testing.assert_close(quantizer.alpha.grad, (rule * towards).sum().detach())


def test_normalisation_in_floating_point_has_its_true_gradient():
    quantizer = weights_quantizer(None)
    assert torch.autograd.gradcheck(quantizer, values(5, 12).requires_grad_())


@pytest.mark.parametrize("grid", ["uniform", "apot"])
def test_beyond_sixteen_bits_values_are_clipped_with_the_true_gradient(grid):
    quantizer = activation_quantizer(32, 1.0, grid)
    x = torch.tensor([-0.5, 0.2, 0.7, 1.4], dtype=torch.float64, requires_grad=True)
    assert torch.equal(quantizer(x), x.clamp(0, 1))

    def clipped(x, alpha):
        quantizer.alpha = torch.nn.Parameter(alpha)
        return torch.func.functional_call(quantizer, {"alpha": alpha}, x)

    alpha = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(clipped, (x, alpha))


def test_floating_point_activations_pass_untouched():
    x = values(1, 5)
    assert activation_quantizer(None)(x) is x


def test_weights_without_normalisation_keep_their_scale():
    w = values(2, 500) * 0.01 + 0.001
    assert weights_quantizer(None, normalised=False)(w) is w
    rounded = weights_quantizer(8, normalised=False)(w)
    step = 3.0 * w.std() / 127
    unclipped = w.abs() < 3.0 * w.std()
    assert (rounded - w)[unclipped].abs().max() <= step / 2 * (1 + 1e-9)


def test_additive_levels_are_those_of_the_source():
    assert additive_levels(1) == [0.0, 1.0]
    assert additive_levels(2) == [0.0, 0.25, 0.5, 1.0]
    powers_a, powers_b = (0.0, 1 / 2, 1 / 8, 1 / 32), (0.0, 1 / 4, 1 / 16, 1 / 64)
    four = sorted(a + b for a in powers_a for b in powers_b)
    assert additive_levels(4) == [v / four[-1] for v in four]
    three = sorted(a + b for a in (0.0, 1 / 2, 1 / 4, 1 / 16) for b in (0.0, 1 / 8))
    assert additive_levels(3) == [v / three[-1] for v in three]


@pytest.mark.parametrize("bits", range(1, 11))
def test_additive_levels_are_as_many_as_bits_hold(bits):
    levels = additive_levels(bits)
    assert len(set(levels)) == 2**bits
    assert (levels[0], levels[-1]) == (0.0, 1.0)


@given(SEEDS, ALPHAS, st.integers(3, 8))
def test_additive_weights_are_the_nearest_level(seed, alpha, bits):
    w = values(seed, 50)
    levels = torch.tensor(additive_levels(bits - 1), dtype=torch.float64)
    u = ((w - w.mean()) / w.std() / alpha).clamp(-1, 1)
    nearest = levels[(u.abs()[:, None] - levels).abs().argmin(1)] * u.sign()
    torch.testing.assert_close(weights_quantizer(bits, alpha, "apot")(w), alpha * nearest)


@given(SEEDS, st.integers(2, 16), st.sampled_from(["uniform", "apot"]))
def test_signed_activations_keep_the_sign(seed, bits, grid):
    quantizer = activation_quantizer(bits, 2.0, grid, signed=True)
    x = values(seed, 50)
    assert torch.equal(quantizer(-x), -quantizer(x))


@pytest.mark.parametrize("bits", [0, 33, -1])
def test_impossible_precision_is_refused(bits):
    with pytest.raises(LearningError, match=f"not {bits}"):
        set_quantizer_bits(weights_quantizer(8), bits, 8)


def test_one_signed_bit_is_refused():
    with pytest.raises(LearningError, match="at least 2 bits"):
        set_quantizer_bits(activation_quantizer(8, signed=True), 8, 1)


def test_depthwise_kernels_have_at_most_their_bits():
    quantizer = weights_quantizer(None, most_bits=8)
    set_quantizer_bits(quantizer, 16, 16)
    assert quantizer.bits == 8
    set_quantizer_bits(quantizer, 4, 4)
    assert quantizer.bits == 4
    set_quantizer_bits(quantizer, None, None)
    assert quantizer.bits is None


def test_reduced_floats_are_quantized_in_the_precision_of_the_clipping():
    quantizer = LearnedActivationQuantizer("uniform")
    quantizer.bits = 8
    assert quantizer(torch.rand(4, dtype=torch.bfloat16)).dtype == torch.float32
