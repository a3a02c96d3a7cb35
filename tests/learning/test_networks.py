"""The networks: shapes, sizes, configurations."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from qpde_perception.learning.errors import LearningError
from qpde_perception.learning.networks import (
    CONFIGS,
    DeployableMobileNetV2,
    NetworkConfig,
    append_and_pool,
    build_network,
    deployed_parameters,
)
from qpde_perception.learning.quantizers import set_active
from qpde_perception.learning.total_variation import SmoothingConfig

TINY = CONFIGS["symmetric_mobilenet_v2_tiny"]


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("active", [False, True])
def test_pixels_of_any_batch_become_one_row_of_logits_each(name, active):
    network = build_network(name).eval()
    set_active(network, active=active)
    size = network.config.input_size
    pixels = torch.randint(0, 256, (3, 3, size, size), dtype=torch.uint8)
    logits = network(pixels)
    assert logits.shape == (3, network.config.classes)
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()


def test_uint8_and_float_pixels_give_the_same_logits():
    network = build_network("symmetric_mobilenet_v2_tiny").eval()
    pixels = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    assert torch.equal(network(pixels), network(pixels.float()))


def test_traffic_sign_network_is_small():
    network = build_network("symmetric_mobilenet_v2")
    assert deployed_parameters(network) < 600_000
    assert (network.config.input_size, network.config.classes) == (48, 43)


def test_clippings_are_not_counted_as_deployed():
    network = build_network("symmetric_mobilenet_v2_tiny")
    clippings = [p for n, p in network.named_parameters() if n.endswith("alpha")]
    assert clippings
    everything = sum(p.numel() for p in network.parameters())
    assert deployed_parameters(network) == everything - len(clippings)


def test_a_stage_halves_the_resolution_and_appends_its_first_channels():
    x = torch.arange(2 * 4 * 4.0).reshape(1, 2, 4, 4)
    pooled = append_and_pool(x, 3)
    assert pooled.shape == (1, 3, 2, 2)
    assert pooled[0, 0, 0, 0].item() == x[0, 0, :2, :2].mean().item()
    assert torch.equal(pooled[:, 2], pooled[:, 0])


@pytest.mark.parametrize("name", CONFIGS)
def test_configuration_survives_json(name):
    config = CONFIGS[name]
    assert NetworkConfig.from_dict(json.loads(json.dumps(config.as_dict()))) == config


def test_weights_survive_a_state_dict():
    network, other = (build_network("symmetric_mobilenet_v2_tiny").eval() for _ in range(2))
    pixels = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    assert not torch.equal(network(pixels), other(pixels))
    other.load_state_dict(network.state_dict())
    assert torch.equal(network(pixels), other(pixels))


def test_every_parameter_learns(flavour):
    network = build_network(f"{flavour}_mobilenet_v2_tiny")
    nn.init.normal_(network.head.weight)
    set_active(network, active=True)
    network(torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8)).square().sum().backward()
    idle = [name for name, p in network.named_parameters() if p.grad is None]
    assert not idle


def test_names_of_a_symmetric_network_stay_those_of_its_checkpoints():
    block = [
        "expand",
        "depthwise",
        "expand_quantizer.alpha",
        "depthwise_quantizer.alpha",
        *(f"{norm}_norm.{p}" for norm in ("inner", "outer") for p in ("log_scale", "shift")),
        "expanded.alpha",
        "rectified.alpha",
        "returned.alpha",
    ]
    conv = ["weight", "weight_quantizer.alpha", "norm.log_scale", "norm.shift"]
    expected = [f"stem.{name}" for name in conv]
    for stage in ("stages.0", "stages.1"):
        expected += [f"{stage}.trunk.alpha", *(f"{stage}.blocks.0.{name}" for name in block)]
    expected += [f"features.{name}" for name in conv]
    expected += ["rectified.alpha", "head.weight", "head.bias"]
    names = [name for name, _ in DeployableMobileNetV2(TINY).named_parameters()]
    assert names == expected, "an optimizer's state goes by their order"


def test_configuration_of_a_run_from_before_there_were_flavours_is_symmetric():
    values = TINY.as_dict()
    del values["flavour"]
    assert NetworkConfig.from_dict(values) == TINY


@pytest.mark.parametrize(("stable", "stage_gain"), [(True, 1.0), (False, None)])
def test_configuration_of_a_run_that_was_called_stable_has_a_gain_of_one(stable, stage_gain):
    values = TINY.as_dict() | {"stable": stable}
    del values["stage_gain"], values["level_channels"]
    assert NetworkConfig.from_dict(values) == replace(TINY, stage_gain=stage_gain)


def test_names_of_a_stable_network_stay_those_of_its_runs():
    names = {name.split(".", 4)[-1] for name in build_network("stable_mobilenet_v2").state_dict()}
    assert {"direction", "outer_norm.limit"} <= names
    assert "inner_norm.limit" not in names


def test_twin_is_the_symmetric_network_but_for_its_kernels():
    symmetric, twin = (
        dict(build_network(f"{flavour}_mobilenet_v2").named_parameters())
        for flavour in ("symmetric", "twin")
    )
    assert symmetric.keys() < twin.keys()
    added = {name.split(".")[-1] for name in twin.keys() - symmetric.keys() if "alpha" not in name}
    assert added == {"depthwise_back", "project"}


def test_an_ordinary_network_halves_by_stride_and_smooths_nothing():
    network = build_network("ordinary_mobilenet_v2")
    strides = [[block.depthwise.stride for block in stage.blocks] for stage in network.stages]
    assert strides == [[1, 1], [2, 1, 1], [2, 1, 1, 1]]
    adds = [[block.adds for block in stage.blocks] for stage in network.stages]
    assert adds == [[stride == 1 for stride in stage] for stage in strides]
    assert not any(stage.pools or stage.smoothing for stage in network.stages)


def test_without_smoothing_stages_nothing_is_smoothed():
    network = DeployableMobileNetV2(replace(TINY, smoothing=SmoothingConfig(stages=(1,))))
    assert [stage.smoothing is not None for stage in network.stages] == [False, True]


def test_unknown_network_error_names_the_known_ones():
    with pytest.raises(LearningError, match=r"'resnet'.*symmetric_mobilenet_v2"):
        build_network("resnet")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depths": (1,)}, "one entry per stage"),
        ({"widths": (8, 17)}, "8 -> 17"),
        ({"widths": (8, 4)}, "8 -> 4"),
        ({"input_size": 18}, "18 is not divisible by 4"),
        ({"smoothing": SmoothingConfig(rate=0.3)}, "rate"),
        ({"smoothing": SmoothingConfig(rate=0.1)}, "rate"),
        ({"smoothing": SmoothingConfig(iterations=4)}, "iterations"),
        ({"flavour": "sour"}, "'sour'.*symmetric, twin, ordinary"),
        ({"flavour": "twin", "stage_gain": 1.0}, "only the gain of symmetric blocks.*not of twin"),
        ({"stage_gain": 0.5}, "from 1 on, not 0.5"),
        ({"stage_gain": float("inf")}, "from 1 on, not inf"),
        ({"level_channels": True}, "name the gain of a stage too"),
        ({"flavour": "ordinary"}, "no smoothing"),
    ],
)
def test_configuration_that_cannot_be_deployed_is_refused(change, message):
    with pytest.raises(LearningError, match=message):
        DeployableMobileNetV2(replace(TINY, **change))
