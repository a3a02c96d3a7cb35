"""The zoo by name: published sizes, precision, and that everything learns."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from qpde_perception.learning.errors import LearningError
from qpde_perception.learning.networks import deployed_parameters
from qpde_perception.learning.zoo import (
    FLAVOURS,
    ZOO,
    JointPrecision,
    SmoothingConfig,
    block_outputs,
    build,
    joint_precision_loss,
    set_bits,
)
from qpde_perception.learning.zoo.blocks import Block, SymmetricBlock
from qpde_perception.learning.zoo.certified import CertifiedBlock

FAMILIES = ("resnet20", "stablenet20", "mobilenetv2", "pde_gcn")
EVERY = [(name, flavour) for name in FAMILIES for flavour in FLAVOURS]
EVERY_GRID = [(*pair, ("uniform", "apot")[i % 2]) for i, pair in enumerate(EVERY)]
EVERY_GRID += [("mobilenetv2", "paper", "apot"), ("pde_gcn", "paper", "apot")]


@pytest.mark.parametrize(
    ("name", "flavour", "parameters"),
    [
        ("resnet20", "ordinary", 272_474),
        ("resnet20", "twin", 272_474),
        ("resnet20", "paper", 175_706),
        ("resnet56", "ordinary", 855_770),
        ("resnet56", "twin", 855_770),
        ("resnet56", "paper", 468_698),
        ("stablenet56", "twin", 806_746),
        ("stablenet56", "paper", 405_850),
        ("mobilenetv2", "ordinary", 2_236_074),
        ("mobilenetv2", "twin", 2_236_074),
        ("mobilenetv2", "paper", 1_719_306),
    ],
)
def test_networks_have_exactly_the_published_parameters(name, flavour, parameters):
    assert deployed_parameters(build(name, flavour, classes=10)) == parameters


def test_depths_are_those_of_the_names():
    for name in ("resnet20", "resnet34", "resnet56", "stablenet20", "stablenet56"):
        network = build(name, "ordinary", classes=10)
        blocks = sum(isinstance(part, Block) for part in network.modules())
        assert f"{2 * blocks + 2}" == name[-2:]


def test_published_symmetric_networks_keep_the_first_block_of_a_stage():
    network = build("resnet20", "paper", classes=10)
    kinds = [[isinstance(b, SymmetricBlock) for b in stage] for stage in network.stages]
    assert kinds == [[False, True, True]] * 3
    stable = build("stablenet20", "paper", classes=10)
    assert all(isinstance(b, SymmetricBlock) for stage in stable.stages for b in stage)


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("name", [name for name in ZOO if name != "pde_gcn"])
def test_images_become_one_row_of_logits_each(name, flavour):
    if name == "resnet34":
        network = build(name, flavour, classes=7, widths=(8, 16, 32, 64), depths=(1, 1, 1, 1))
    else:
        network = build(name, flavour, classes=7)
    set_bits(network, 8, 8)
    logits = network(torch.randn(2, 3, 32, 32).to(memory_format=torch.channels_last))
    assert logits.shape == (2, 7)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize(("name", "flavour"), EVERY)
@pytest.mark.parametrize("bits", [(None, None), (4, 4)])
def test_every_flavour_learns(name, flavour, bits, small, separable):
    network = small(name, flavour)
    set_bits(network, *bits)
    arguments, targets = separable(name)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(30):
        loss = F.cross_entropy(network(*arguments), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize(("name", "flavour", "grid"), EVERY_GRID)
def test_every_parameter_gets_a_gradient(name, flavour, grid, small, separable):
    sites = ("outer",) if flavour == "certified" or name == "pde_gcn" else ("inner", "outer")
    network = small(name, flavour, quantizer=grid, smoothing=SmoothingConfig(sites=sites))
    set_bits(network, 4, 4)
    arguments, targets = separable(name)
    F.cross_entropy(network(*arguments), targets).backward()
    assert not [n for n, p in network.named_parameters() if p.grad is None]
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


@pytest.mark.parametrize(("name", "flavour"), EVERY)
def test_precision_changes_activations_and_comes_back(name, flavour, small, separable):
    network = small(name, flavour).eval()
    arguments, _ = separable(name)
    set_bits(network, 8, 32)
    fine = network(*arguments)
    set_bits(network, 8, 3)
    coarse = network(*arguments)
    set_bits(network, 8, 32)
    torch.testing.assert_close(network(*arguments), fine, rtol=1e-2, atol=1e-2)
    assert (coarse - fine).abs().max() > 0


@pytest.mark.parametrize("name", FAMILIES)
def test_more_bits_come_nearer_to_floating_point(name, small, separable):
    network = small(name, "twin").eval()
    arguments, _ = separable(name)
    set_bits(network, 16, 32)
    reference = network(*arguments)
    errors = []
    for bits in (3, 6, 9):
        set_bits(network, 16, bits)
        errors.append((network(*arguments) - reference).norm().item())
    assert errors[0] > errors[1] > errors[2] > 0


def test_first_and_last_layer_stay_in_floating_point(small, separable):
    network = small("resnet20", "paper")
    set_bits(network, 2, 2)
    (x,), _ = separable("resnet20")
    convolution, head = network.stem.convolution, network.head
    assert type(convolution) is nn.Conv2d
    assert type(head) is nn.Linear
    expected = F.conv2d(x, convolution.weight, padding=1)
    assert torch.equal(convolution(x), expected)


def test_state_survives_and_precision_is_not_part_of_it(small, separable):
    for flavour in FLAVOURS:
        network, other = small("mobilenetv2", flavour), small("mobilenetv2", flavour)
        arguments, _ = separable("mobilenetv2")
        network(*arguments)
        network.eval()
        other.eval().load_state_dict(network.state_dict())
        assert torch.equal(network(*arguments), other(*arguments))


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("name", ["resnet20", "mobilenetv2"])
def test_float_phase_runs_in_reduced_precision(name, flavour, small, separable):
    network = small(name, flavour).to(memory_format=torch.channels_last)
    (x,), targets = separable(name)
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(x.to(memory_format=torch.channels_last))
    F.cross_entropy(logits.float(), targets).backward()
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize(("name", "flavour", "grid"), EVERY_GRID)
def test_steps_neither_leave_their_device_nor_wait_for_it(name, flavour, grid, small, separable):
    """On the device without data a tensor of another device, or reading a value, is an error."""
    network = small(name, flavour, quantizer=grid, smoothing=SmoothingConfig()).to("meta")
    arguments, targets = separable(name)
    arguments, targets = [part.to("meta") for part in arguments], targets.to("meta")
    for bits in ((None, None), (1, 2)):
        set_bits(network, *bits)
        F.cross_entropy(network(*arguments), targets).backward()
    joint_precision_loss(network, arguments, targets, JointPrecision(8, 4)).backward()


@pytest.mark.parametrize("name", ["resnet20", "mobilenetv2"])
def test_trained_certified_blocks_cost_no_more_than_appending(name, small, separable):
    """Appending costs sqrt(2) at most and pooling gives back 2: whatever was learned before."""
    network = small(name, "certified", smoothing=SmoothingConfig())
    arguments, targets = separable(name)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    set_bits(network, 4, 4)
    for _ in range(10):
        optimizer.zero_grad()
        F.cross_entropy(network(*arguments), targets).backward()
        optimizer.step()
    network.double().eval()
    set_bits(network, 4, None)
    for block in (part for part in network.modules() if isinstance(part, CertifiedBlock)):
        place = block.place
        limit = (2**0.5 if place.outputs > place.inputs else 1.0) / (2 if place.halves else 1)
        direction = block.norm.direction
        x = 5 * torch.randn(30, *direction.shape[1:], dtype=torch.float64)
        y = x + torch.cat([torch.randn_like(x[:15]), 3 * direction.expand(15, -1, -1, -1)])
        before, after = (x - y).flatten(1).norm(dim=1), (block(x) - block(y)).flatten(1).norm(dim=1)
        assert (after <= limit * before * (1 + 1e-12)).all()


def test_outputs_of_blocks_come_in_order_then_features_and_logits(small, separable):
    network = small("resnet20", "twin")
    arguments, _ = separable("resnet20", count=5)
    with block_outputs(network) as seen:
        logits = network(*arguments)
    names = [name for name, _ in seen]
    blocks = ["stages.0.0", "stages.0.1", "stages.1.0", "stages.1.1"]
    assert names == [*blocks, "pooled", "logits"]
    assert seen[-1][1] is logits
    assert [tuple(t.shape) for _, t in seen[-3:]] == [(5, 16, 4, 4), (5, 16), (5, 4)]
    network(*arguments)
    assert len(seen) == 6


def test_outputs_of_graph_layers_are_seen_too(small, separable):
    network = small("pde_gcn", "certified")
    arguments, _ = separable("pde_gcn")
    with block_outputs(network) as seen:
        network(*arguments)
    assert [name for name, _ in seen] == ["blocks.0", "blocks.1", "blocks.2", "pooled", "logits"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "vgg"}, r"network 'vgg'.*resnet20"),
        ({"flavour": "sweet"}, r"flavour 'sweet'.*twin"),
        ({"quantizer": "log"}, r"quantizer 'log'.*apot"),
        ({"heads": 3}, r"no setting heads"),
        ({"depths": (1,)}, "one entry per stage"),
        ({"widths": (4, 12, 12), "flavour": "certified"}, "4 -> 12"),
        ({"name": "mobilenetv2", "depths": (1,)}, "one entry per stage"),
    ],
)
def test_what_cannot_be_built_is_refused(change, message):
    with pytest.raises(LearningError, match=message):
        build(**{"name": "resnet20", "flavour": "paper", "classes": 10, **change})
