"""The twin block against its formula, and against the symmetric block that it is a twin of."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from qpde_perception.learning.quantizers import ActivationQuantizer
from qpde_perception.learning.symmetric import SymmetricBlock
from qpde_perception.learning.twin import TwinBlock

CHANNELS, EXPANSION, HIDDEN, SHAPE = 3, 2, 6, (3, 4, 5)


def block(seed, kind=TwinBlock):
    """A float64 block with random normalisations, its quantizers inactive."""
    torch.manual_seed(seed)
    trunk = ActivationQuantizer(8, signed=True)
    made = kind(CHANNELS, EXPANSION, trunk, weight_bits=8, activation_bits=8)
    with torch.no_grad():
        for norm in (made.inner_norm, made.outer_norm):
            norm.log_scale += 0.5 * torch.randn_like(norm.log_scale)
            norm.shift.normal_()
            norm.mean.normal_()
            norm.variance.uniform_(0.5, 20)
    return made.double().eval()


def normalised(weight):
    return (weight - weight.mean()) / weight.std()


def standardised(norm, x):
    return F.batch_norm(
        x, norm.mean, norm.variance, norm.log_scale.exp(), norm.shift, eps=norm.epsilon
    )


@pytest.mark.parametrize("seed", range(3))
def test_block_is_its_formula_with_four_kernels(seed):
    made = block(seed)
    x = torch.randn(2, *SHAPE, dtype=torch.float64)
    y = F.conv2d(x, normalised(made.expand))
    y = F.conv2d(y, normalised(made.depthwise), padding=1, groups=HIDDEN)
    y = torch.relu(standardised(made.inner_norm, y))
    y = F.conv2d(y, normalised(made.depthwise_back), padding=1, groups=HIDDEN)
    y = standardised(made.outer_norm, F.conv2d(y, normalised(made.project)))
    torch.testing.assert_close(made(x), x - y, rtol=0, atol=1e-10)


def test_with_transposed_kernels_it_is_the_symmetric_block():
    twin, symmetric = block(0), block(1, SymmetricBlock)
    assert not twin.load_state_dict(symmetric.state_dict(), strict=False).unexpected_keys
    with torch.no_grad():
        twin.depthwise_back.copy_(symmetric.depthwise.flip(2, 3))
        twin.project.copy_(symmetric.expand.transpose(0, 1))
    x = torch.randn(2, *SHAPE, dtype=torch.float64)
    torch.testing.assert_close(twin(x), symmetric(x), rtol=0, atol=1e-10)


def test_jacobian_is_not_symmetric_in_the_weighted_inner_product():
    made = block(3)
    x = torch.randn(SHAPE, dtype=torch.float64).flatten()
    jacobian = torch.autograd.functional.jacobian(lambda v: made(v.reshape(1, *SHAPE)).flatten(), x)
    slope = made.outer_norm.slope.detach().repeat_interleave(SHAPE[1] * SHAPE[2])
    weighted = jacobian / slope[:, None]
    assert (weighted - weighted.T).norm() > 0.5 * (weighted - (1 / slope).diag()).norm()


def test_kernels_have_twice_the_parameters_of_the_symmetric_block():
    twin, symmetric = (
        sum(p.numel() for p in made.parameters() if p.ndim == 4)
        for made in (block(0), block(0, SymmetricBlock))
    )
    assert twin == 2 * symmetric


def test_the_trunk_belongs_to_its_stage():
    assert not [name for name, _ in block(0).named_parameters() if "trunk" in name]
