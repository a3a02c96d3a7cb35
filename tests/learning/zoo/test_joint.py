"""Two precisions at once."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from qpde_perception.learning.zoo import (
    FLAVOURS,
    JointPrecision,
    block_outputs,
    joint_precision_loss,
    set_bits,
)
from qpde_perception.learning.zoo.joint import activation_distance, soft_shrink


def test_shrinkage_is_soft():
    x = torch.tensor([-2.0, -0.5, 0.0, 0.5, 2.0])
    assert torch.equal(soft_shrink(x, torch.tensor(0.5)), F.softshrink(x, 0.5))


def test_rounding_alone_is_no_distance():
    high = torch.rand(1000)
    low = torch.round(high * 15) / 15
    assert activation_distance(high, low, 4).item() == 0.0
    assert activation_distance(high, low + 0.2, 4).item() > 0


def test_distance_has_its_true_gradient():
    torch.manual_seed(0)
    high, low = torch.randn(2, 20, dtype=torch.float64)
    low.requires_grad_()
    assert torch.autograd.gradcheck(lambda low: activation_distance(high, low, 3), (low,))


def test_loss_is_both_entropies_and_the_distances(small, separable):
    network = small("resnet20", "paper").eval()
    arguments, targets = separable("resnet20")
    loss = joint_precision_loss(network, arguments, targets, JointPrecision(8, 3, 16, 0.25))
    seen = {}
    for bits in (16, 3):
        set_bits(network, 8, bits)
        with block_outputs(network) as outputs:
            network(*arguments)
        seen[bits] = [t for _, t in outputs]
    expected = sum(F.cross_entropy(seen[bits][-1], targets) for bits in (16, 3))
    blocks = zip(seen[16][:-2], seen[3][:-2], strict=True)
    expected += 0.25 * sum(activation_distance(a, b, 3) for a, b in blocks)
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("name", ["resnet20", "mobilenetv2", "pde_gcn"])
def test_both_precisions_are_learned_together(name, flavour, small, separable):
    network = small(name, flavour)
    arguments, targets = separable(name)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.02, momentum=0.9)
    losses = []
    for _ in range(15):
        loss = joint_precision_loss(network, arguments, targets, JointPrecision(8, 4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
