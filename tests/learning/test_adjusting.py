"""What is set between epochs: statistics and limits of limited steps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from coloured_signs import TINY

from qpde_perception.learning.adjusting import freeze, settle
from qpde_perception.learning.layers import PositiveBatchNorm
from qpde_perception.learning.networks import CONFIGS, DeployableMobileNetV2


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (5, 8, 3, 16, 16), dtype=torch.uint8, generator=generator)


def test_statistics_are_those_of_the_batches_and_not_of_the_steps_before(batches):
    network = DeployableMobileNetV2(replace(CONFIGS[TINY], stage_gain=1.0)).train()
    seen = []
    norm = network.stem.norm
    norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    norm.mean.fill_(100.0)
    settle(network, batches)
    means = torch.stack([x.mean((0, 2, 3)) for x in seen])
    variances = torch.stack([x.var((0, 2, 3)) for x in seen])
    torch.testing.assert_close(norm.mean, means.mean(0))
    torch.testing.assert_close(norm.variance, variances.mean(0))
    momenta = {m.momentum for m in network.modules() if isinstance(m, PositiveBatchNorm)}
    assert momenta == {0.1}


def test_a_network_without_limited_steps_is_left_as_it_is(batches):
    network = DeployableMobileNetV2(CONFIGS[TINY]).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    settle(network, batches)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(("stage_gain", "frozen"), [(None, True), (1.0, False)])
def test_statistics_are_frozen_but_where_steps_are_limited(stage_gain, frozen):
    network = DeployableMobileNetV2(replace(CONFIGS[TINY], stage_gain=stage_gain))
    freeze(network, frozen=True)
    found = {m.frozen for m in network.modules() if isinstance(m, PositiveBatchNorm)}
    assert found == {frozen}
