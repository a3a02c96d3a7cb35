"""Folding: the trained network and its integers compute the same numbers."""

from __future__ import annotations

from dataclasses import replace
from math import frexp

import numpy as np
import pytest
import torch

from qpde_perception.compiling.errors import CompilingError
from qpde_perception.compiling.folding import _Folder, fold
from qpde_perception.compiling.reference import IntegerReference
from qpde_perception.compiling.sizes import multiply_adds
from qpde_perception.compiling.specification import PIXELS, Add, Append, Conv, Smooth
from qpde_perception.learning.networks import CONFIGS, DeployableMobileNetV2
from qpde_perception.learning.quantizers import ActivationQuantizer, WeightQuantizer, set_active
from qpde_perception.learning.total_variation import SmoothingConfig
from qpde_perception.learning.training import predict

TINY = "symmetric_mobilenet_v2_tiny"


@pytest.mark.parametrize(("size", "seed"), [("_tiny", 0), ("_tiny", 1), ("_tiny", 2), ("", 0)])
def test_trained_network_and_its_integers_agree(make_network, images, flavour, size, seed):
    network = make_network(f"{flavour}_mobilenet_v2{size}", seed)
    pixels = images(24, network.config.input_size, seed + 50)
    features = []
    network.rectified.register_forward_hook(
        lambda quantizer, _, values: features.append(values / quantizer.scale)
    )
    trained, deployed = predict(network, pixels), IntegerReference(fold(network)).tensors(pixels)
    codes = torch.cat(features).permute(0, 2, 3, 1).numpy()
    assert len(np.unique(codes)) > 50, "constant codes compare nothing"
    assert np.array_equal(codes, deployed["features"])
    # The float sums of the dense layer differ in their last bits.
    atol = 1e-6 * np.abs(trained).max()
    np.testing.assert_allclose(trained, deployed["logits"], rtol=1e-6, atol=atol)
    assert np.array_equal(trained.argmax(1), deployed["logits"].argmax(1))


def test_four_bits_are_a_part_of_the_grid_and_compute_the_same(make_network, images):
    network = make_network(f"{TINY}_w4a8", seed=5)
    specification, pixels = fold(network), images(24, 16, seed=55)
    trained, deployed = predict(network, pixels), IntegerReference(specification).infer(pixels)
    np.testing.assert_allclose(trained, deployed, rtol=1e-6, atol=1e-6 * np.abs(trained).max())
    for layer in specification.layers:
        if not isinstance(layer, Conv) or layer.name.endswith("pool"):
            continue
        weight = specification.arrays[f"{layer.name}.weight"]
        narrow = layer.groups == 1 and layer.name != "stem"
        largest = np.abs(weight.astype(int)).max()
        assert largest <= 7 if narrow else largest > 7, layer.name


@pytest.mark.parametrize("bits", [{"activation_bits": 4}, {"weight_bits": 9}])
def test_bits_that_no_engine_has_are_refused(bits):
    network = DeployableMobileNetV2(replace(CONFIGS[TINY], **bits))
    with pytest.raises(CompilingError, match="bits cannot be deployed: engines have weights of"):
        fold(network)


def test_they_agree_when_every_kernel_has_a_step_of_its_own(make_network, images, flavour):
    network = make_network(f"{flavour}_mobilenet_v2_tiny", seed=3)
    quantizers = [m for m in network.modules() if isinstance(m, WeightQuantizer)]
    for index, quantizer in enumerate(quantizers):
        quantizer.alpha.data.fill_(3.0 * 2.0 ** (index % 4 - 2))
    pixels = images(12, 16, seed=53)
    trained, deployed = predict(network, pixels), IntegerReference(fold(network)).infer(pixels)
    np.testing.assert_allclose(trained, deployed, rtol=1e-6, atol=1e-6 * np.abs(trained).max())


@pytest.mark.parametrize("iterations", [2, 3])
def test_they_agree_with_more_smoothing_and_a_stage_that_keeps_its_channels(images, iterations):
    config = replace(
        CONFIGS[TINY],
        widths=(8, 8),
        smoothing=SmoothingConfig(rate=0.25, iterations=iterations),
    )
    torch.manual_seed(3)
    network = DeployableMobileNetV2(config).eval()
    network.head.weight.data.normal_()
    set_active(network, active=True)
    pixels = images(8, 16, seed=4)
    deployed = IntegerReference(fold(network)).infer(pixels)
    np.testing.assert_allclose(deployed, predict(network, pixels), atol=1e-5)


def test_both_directions_of_a_block_use_the_same_integers(tiny_specification, tiny_network):
    arrays = tiny_specification.arrays
    blocks = 0
    for index, stage in enumerate(tiny_network.stages):
        for number in range(len(stage.blocks)):
            name = f"stage{index}.block{number}"
            depthwise, back = (arrays[f"{name}.{n}.weight"] for n in ("depthwise", "depthwise_t"))
            assert np.array_equal(back, depthwise[:, :, ::-1, ::-1])
            expand, back = (arrays[f"{name}.{n}.weight"] for n in ("expand", "expand_t"))
            assert np.array_equal(back, -expand.transpose(1, 0, 2, 3))
            blocks += 1
    assert blocks == 2


def test_the_twin_has_four_kernels_of_its_own_where_the_symmetric_block_has_two(make_network):
    specification = fold(make_network("twin_mobilenet_v2_tiny"))
    names = [layer.name for layer in specification.layers if "block0" in layer.name]
    parts = ("expand", "depthwise", "depthwise_back", "project", "sum")
    assert names == [f"stage{index}.block0.{part}" for index in (0, 1) for part in parts]
    for block in ("stage0.block0", "stage1.block0"):
        expand, depthwise, back, project = (
            specification.arrays[f"{block}.{part}.weight"].astype(int) for part in parts[:4]
        )
        for turned in (depthwise, depthwise[:, :, ::-1, ::-1]):
            assert (turned != back).mean() > 0.9
        assert (np.abs(expand.transpose(1, 0, 2, 3)) != np.abs(project)).mean() > 0.9


def test_ordinary_blocks_are_three_convolutions_and_a_sum_where_the_shape_stays(make_network):
    specification = fold(make_network("ordinary_mobilenet_v2_tiny"))
    parts = ("expand", "depthwise", "project")
    expected = [f"stage{index}.block0.{part}" for index in (0, 1) for part in parts]
    expected.insert(3, "stage0.block0.sum")
    assert [layer.name for layer in specification.layers if "block" in layer.name] == expected
    assert not [layer for layer in specification.layers if isinstance(layer, Append | Smooth)]
    rectified = [specification.grid(name).rectifies for name in expected]
    assert rectified == [True, True, False, False, True, True, False]
    sums = [layer for layer in specification.layers if isinstance(layer, Add)]
    assert len({specification.grid(name).scale for name in (sums[0].trunk, sums[0].output)}) == 1


def test_multiply_adds_are_counted_layer_by_layer(make_network):
    stem, features, head = 8 * 27 * 64, 16 * 16 * 16, 5 * 16
    same = (16 * 8 + 16 * 9 + 8 * 16) * 64
    halving = 16 * 8 * 64 + (16 * 9 + 16 * 16) * 16
    found = multiply_adds(fold(make_network("ordinary_mobilenet_v2_tiny")))
    assert found == stem + same + halving + features + head


def test_flavours_are_of_equal_compute(make_network):
    symmetric, twin, ordinary = (
        multiply_adds(fold(make_network(f"{flavour}_mobilenet_v2")))
        for flavour in ("symmetric", "twin", "ordinary")
    )
    assert symmetric == twin
    assert symmetric < ordinary < 1.02 * symmetric


def test_every_scale_is_exact_in_float32(make_network, flavour):
    specification = fold(make_network(f"{flavour}_mobilenet_v2_tiny"))
    for grid in specification.document.grids.values():
        assert frexp(grid.scale)[0] == 0.5
    for layer in specification.layers:
        if not isinstance(layer, Conv):
            continue
        scale = specification.arrays[f"{layer.name}.scale"]
        assert scale.dtype == np.float32
        assert not (np.frexp(scale)[0] * 128 % 1).any(), "more than seven bits"
        source, target = (specification.grid(name) for name in (layer.input, layer.output))
        multiplier = source.scale * scale.astype(np.float64) / target.scale
        assert not (multiplier * 2**16 % 1).any(), "finer than 2^-16 of a code"
    assert (np.frexp(specification.arrays["head.scale"])[0] == 0.5).all()


def test_pixels_lie_on_the_grid_of_a_signed_byte(tiny_specification):
    grid = tiny_specification.grid(PIXELS)
    assert (grid.q_min, grid.q_max, grid.scale) == (-128, 127, 1 / 64)


def test_folding_leaves_the_network_as_it_is(make_network, images):
    network = make_network(seed=7)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    fold(network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("part", ["stem.weight_quantizer", "features.weight_quantizer"])
def test_weight_scale_that_is_not_positive_is_refused(make_network, part, alpha):
    network = make_network(seed=5)
    network.get_submodule(part).alpha.data.fill_(alpha)
    with pytest.raises(CompilingError, match="not positive"):
        fold(network)


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("index", [0, 3, -1])
def test_activation_scale_that_is_not_positive_is_refused(make_network, flavour, index, alpha):
    network = make_network(f"{flavour}_mobilenet_v2_tiny", seed=5)
    quantizers = [m for m in network.modules() if isinstance(m, ActivationQuantizer)]
    quantizers[index].alpha.data.fill_(alpha)
    with pytest.raises(CompilingError, match="not positive"):
        fold(network)


def test_statistics_that_are_no_numbers_are_refused(make_network):
    network = make_network(seed=5)
    network.stem.norm.mean.fill_(float("nan"))
    with pytest.raises(CompilingError, match="stem"):
        fold(network)


@pytest.mark.parametrize("scale", [0.75 + 2.0**-8, 1 / 3])
def test_scale_of_more_bits_than_float32_sums_carry_is_refused(tiny_network, scale):
    folder = _Folder(tiny_network)
    affine = (np.full(4, scale), np.zeros(4))
    with torch.no_grad(), pytest.raises(CompilingError, match="more bits"):
        folder._conv("x", PIXELS, tiny_network.rectified, np.ones((4, 3, 1, 1), np.int8), affine)


def test_bias_beyond_32_bits_is_refused(make_network):
    network = make_network(seed=5)
    network.stem.norm.shift.data.fill_(1e9)
    with pytest.raises(CompilingError, match="32 bits"):
        fold(network)


def test_head_whose_sums_would_overflow_float32_gets_coarser_weights():
    config = replace(CONFIGS[TINY], features=256)
    torch.manual_seed(0)
    network = DeployableMobileNetV2(config).eval()
    set_active(network, active=True)
    network.head.weight.data.fill_(1.27)  # all integers at their largest, were there eight bits
    codes = fold(network).arrays["head.weight"].astype(np.int64)
    assert (codes == codes[0, 0]).all()
    assert 2**23 <= codes.sum(1).max() * 255 * 2**network.head.EXTRA_BITS < 2**24
