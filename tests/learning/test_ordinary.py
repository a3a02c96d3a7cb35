"""The inverted residual against its formula."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from qpde_perception.learning.layers import PositiveBatchNorm
from qpde_perception.learning.ordinary import InvertedResidual
from qpde_perception.learning.quantizers import ActivationQuantizer, set_active


def block(inputs=3, channels=3, stride=1, seed=0):
    """A float64 block with random normalisations, its quantizers inactive, and its trunks.

    As in a network, the trunk of a block without a stride is the one before it.
    """
    torch.manual_seed(seed)
    before, after = (ActivationQuantizer(8, signed=True) for _ in range(2))
    trunks = (before, after if stride > 1 else before)
    made = InvertedResidual(
        inputs, channels, 2, trunks, stride=stride, weight_bits=8, activation_bits=8
    )
    with torch.no_grad():
        for norm in made.modules():
            if isinstance(norm, PositiveBatchNorm):
                norm.log_scale.normal_(std=0.5)
                norm.shift.normal_()
                norm.mean.normal_()
                norm.variance.uniform_(0.5, 20)
    return made.double().eval(), trunks


def branch_of(made, x, stride):
    """The branch from its definition."""

    def layer(conv, values, **options):
        weight = (conv.weight - conv.weight.mean()) / conv.weight.std()
        norm = conv.norm
        return F.batch_norm(
            F.conv2d(values, weight, **options),
            norm.mean,
            norm.variance,
            norm.log_scale.exp(),
            norm.shift,
            eps=norm.epsilon,
        )

    hidden = torch.relu(layer(made.expand, x))
    options = {"stride": stride, "padding": 1, "groups": hidden.shape[1]}
    return layer(made.project, torch.relu(layer(made.depthwise, hidden, **options)))


@pytest.mark.parametrize("seed", range(3))
def test_block_is_its_formula(seed):
    made, _ = block(seed=seed)
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(made(x), x + branch_of(made, x, 1), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("inputs", "channels", "stride"), [(3, 4, 1), (3, 4, 2), (3, 3, 2)])
def test_a_block_that_changes_the_shape_has_no_identity(inputs, channels, stride):
    made, _ = block(inputs, channels, stride)
    x = torch.randn(2, inputs, 6, 8, dtype=torch.float64)
    assert made(x).shape == (2, channels, 6 // stride, 8 // stride)
    torch.testing.assert_close(made(x), branch_of(made, x, stride), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("channels", "stride"), [(3, 1), (4, 2)])
def test_a_quantized_block_ends_on_the_grid_of_the_trunk_after_it(channels, stride):
    made, (before, after) = block(3, channels, stride)
    after.alpha.data.fill_(20.0)
    before.alpha.data.fill_(4.0)
    for part in (made, before, after):
        set_active(part, active=True)
    x = before(torch.randn(2, 3, 4, 6, dtype=torch.float64))
    codes = made(x) / after.scale
    assert torch.equal(codes, codes.round())
    assert len(codes.unique()) > 10
    assert codes.abs().max() <= 128


def test_the_trunks_belong_to_their_stages():
    assert not [name for name, _ in block()[0].named_parameters() if "trunk" in name]
