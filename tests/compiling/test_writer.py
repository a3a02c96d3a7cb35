"""The written graphs: engines give the reference's bits, the float graph the float network's."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from qpde_perception.bundles import golden_of
from qpde_perception.compiling.cpu_writer import cpu_graph
from qpde_perception.compiling.parity import (
    float_reference_of,
    reference_of,
)
from qpde_perception.compiling.specification import SPECIFICATION, WEIGHTS, Specification
from qpde_perception.compiling.writer import float_graph
from qpde_perception.engines import CPU_ENGINES, open_reference
from qpde_perception.engines.onnxruntime import OnnxRuntimeEngine, UnroundedReference
from qpde_perception.engines.registry import CPU_GRAPH, FLOAT_GRAPH, UNROUNDED_GRAPH, build_engine
from qpde_perception.engines.self_test import Observing
from qpde_perception.learning.quantizers import WeightQuantizer, set_active
from qpde_perception.learning.training import predict


@pytest.fixture
def random_bundle(make_network, make_bundle, tmp_path):
    return lambda network, seed: make_bundle(make_network(network, seed), tmp_path / network)


@pytest.mark.parametrize("name", CPU_ENGINES)
@pytest.mark.parametrize("threads", [1, 2])
def test_engine_is_bit_identical_on_a_tiny_network(tiny_bundle, images, name, threads):
    pixels = images(40, 16, seed=8)
    expected = reference_of(tiny_bundle).infer(pixels)
    assert expected.std() > 0.1, "constant logits compare nothing"
    logits = build_engine(tiny_bundle, name, threads=threads).infer(pixels)
    assert np.array_equal(logits, expected)


@pytest.mark.parametrize("name", CPU_ENGINES)
@pytest.mark.parametrize("seed", range(3))
def test_engine_is_bit_identical_on_every_flavour(random_bundle, images, flavour, name, seed):
    bundle = random_bundle(f"{flavour}_mobilenet_v2_tiny", seed)
    pixels = images(24, 16, seed=seed + 20)
    expected = reference_of(bundle).infer(pixels)
    assert expected.std() > 0.1, "constant logits compare nothing"
    assert np.array_equal(build_engine(bundle, name, threads=1).infer(pixels), expected)


@pytest.mark.parametrize("name", CPU_ENGINES)
def test_engine_is_bit_identical_on_weights_of_four_bits(random_bundle, images, name):
    bundle = random_bundle("symmetric_mobilenet_v2_tiny_w4a8", 1)
    pixels = images(24, 16, seed=31)
    expected = reference_of(bundle).infer(pixels)
    assert expected.std() > 0.1, "constant logits compare nothing"
    assert np.array_equal(build_engine(bundle, name, threads=1).infer(pixels), expected)


@pytest.mark.parametrize("name", CPU_ENGINES)
def test_engine_is_bit_identical_on_the_golden_frames_of_the_shipped_model(shipped_bundle, name):
    golden = golden_of(shipped_bundle)
    assert np.array_equal(reference_of(shipped_bundle).infer(golden.pixels), golden.logits)
    logits = build_engine(shipped_bundle, name, threads=1).infer(golden.pixels)
    assert np.array_equal(logits, golden.logits)


@pytest.mark.parametrize("name", CPU_ENGINES)
@pytest.mark.parametrize("kind", ["blobs", "black", "white", "checkerboard"])
def test_engine_is_bit_identical_on_images_that_are_no_signs(shipped_bundle, images, name, kind):
    if kind == "blobs":
        pixels = images(24, 48, seed=9)
    else:
        pixels = np.zeros((1, 48, 48, 3), np.uint8)
        pixels[:, :: 1 if kind == "white" else 2, :: 1 if kind == "white" else 2] = 255
        pixels *= kind != "black"
    expected = reference_of(shipped_bundle).infer(pixels)
    logits = build_engine(shipped_bundle, name, threads=1).infer(pixels)
    assert np.array_equal(logits, expected)


@pytest.mark.parametrize("seed", range(2))
def test_full_network_with_random_weights_is_bit_identical(random_bundle, images, flavour, seed):
    bundle = random_bundle(f"{flavour}_mobilenet_v2", seed)
    pixels = images(4, 48, seed)
    expected = reference_of(bundle).infer(pixels)
    for name in CPU_ENGINES:
        assert np.array_equal(build_engine(bundle, name, threads=1).infer(pixels), expected), name


def test_float_graph_is_the_network_with_integer_weights_alone(make_network, images, flavour):
    from qpde_perception.compiling.folding import fold

    network = make_network(f"{flavour}_mobilenet_v2_tiny", seed=6)
    specification = fold(network)
    set_active(network, active=False)
    for part in network.modules():
        if isinstance(part, WeightQuantizer):
            part.active = True
    with torch.no_grad():
        scale = network.head.weight_scale()
        network.head.weight.copy_(torch.round(network.head.weight / scale) * scale)
    pixels = images(8, 16, seed=10)
    expected = predict(network, pixels)
    logits = OnnxRuntimeEngine(float_graph(specification), 1).infer(pixels)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4 * expected.std())


def test_float_graph_differs_from_the_integers_by_quantization_alone(tiny_bundle, images):
    pixels = images(16, 16, seed=11)
    exact = reference_of(tiny_bundle).infer(pixels)
    unquantized = float_reference_of(tiny_bundle).infer(pixels)
    difference = np.abs(exact - unquantized)
    assert 0 < difference.mean() < 0.2 * exact.std()


def test_writing_twice_gives_the_same_bytes(tiny_specification):
    assert cpu_graph(tiny_specification) == cpu_graph(tiny_specification)
    assert float_graph(tiny_specification) == float_graph(tiny_specification)


def test_every_convolution_stands_between_quantized_tensors(tiny_bundle):
    """Otherwise an engine would leave it in floating point, silently and slowly."""
    graph = onnx.load_from_string(tiny_bundle.read(CPU_GRAPH)).graph
    makers = {output: node for node in graph.node for output in node.output}
    readers = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.op_type)
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert convolutions
    for node in convolutions:
        assert {makers[name].op_type for name in node.input} == {"DequantizeLinear"}
        assert readers[node.output[0]] == ["QuantizeLinear"]


def test_every_depthwise_convolution_of_the_shipped_blocks_has_a_fast_number_of_channels(
    shipped_bundle,
):
    """ONNX Runtime has no integer kernel for others, and is three times slower without one."""
    graph = onnx.load_from_string(shipped_bundle.read(CPU_GRAPH)).graph
    groups = [
        next(a.i for a in node.attribute if a.name == "group")
        for node in graph.node
        if node.op_type == "Conv" and ".depthwise" in node.name
    ]
    assert len(groups) == 18
    assert all(group % 16 == 0 for group in groups)


def test_every_sum_stands_between_quantized_tensors(shipped_bundle):
    graph = onnx.load_from_string(shipped_bundle.read(CPU_GRAPH)).graph
    makers = {output: node.op_type for node in graph.node for output in node.output}
    sums = [node for node in graph.node if node.op_type == "Add" and node.output[0] != "logits"]
    assert len(sums) == 9 + 2 * 6
    for node in sums:
        assert [makers[name] for name in node.input] == ["DequantizeLinear"] * 2


@pytest.mark.parametrize(
    ("name", "outputs"),
    [
        (CPU_GRAPH, ["logits"]),
        (FLOAT_GRAPH, ["logits"]),
        (UNROUNDED_GRAPH, ["logits", "saturation"]),
    ],
)
def test_graphs_take_bytes_of_any_batch_and_name_their_outputs(tiny_bundle, name, outputs):
    graph = onnx.load_from_string(tiny_bundle.read(name)).graph
    pixels = graph.input[0].type.tensor_type
    assert pixels.elem_type == onnx.TensorProto.UINT8
    assert [d.dim_value or d.dim_param for d in pixels.shape.dim] == ["n", 16, 16, 3]
    assert [output.name for output in graph.output] == outputs


def test_the_unrounded_reference_tells_what_share_of_values_its_grids_cut_off(tiny_bundle, images):
    """Held against the values of the tapped tensors themselves."""
    files = tiny_bundle.read(SPECIFICATION), tiny_bundle.read(WEIGHTS)
    document = Specification.from_files(*files).document
    model = onnx.load_from_string(tiny_bundle.read(UNROUNDED_GRAPH))
    taps = golden_of(tiny_bundle).taps
    values = [onnx.helper.make_empty_tensor_value_info(f"{tap}.values") for tap in taps]
    model.graph.output.extend(values)
    pixels = images(24, 16, seed=12)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    _, _, *tapped = session.run(None, {"pixels": pixels})
    _, saturation = open_reference(tiny_bundle).observe(pixels)
    for tap, real, share in zip(taps, tapped, saturation.T, strict=True):
        grid = document.grids[tap]
        codes = np.rint(real / grid.scale)
        np.testing.assert_allclose(share, (codes >= grid.q_max).mean((1, 2, 3)), atol=1e-6)
    assert (saturation.max(0) > 0).all()


def test_what_is_not_rounded_is_nearer_to_the_integers_than_what_is_not_clipped(shipped_bundle):
    golden = golden_of(shipped_bundle)
    rounding, both = (
        np.mean((reference.infer(golden.pixels) - golden.logits) ** 2)
        for reference in (
            open_reference(shipped_bundle),
            float_reference_of(shipped_bundle),
        )
    )
    assert 0 < rounding < 0.2 * both


def test_a_reference_without_taps_gives_logits_alone(tiny_bundle, images):
    reference = UnroundedReference(tiny_bundle.read(CPU_GRAPH), 1)
    logits, saturation = reference.observe(images(3, 16, seed=13))
    assert np.array_equal(logits, reference.infer(images(3, 16, seed=13)))
    assert saturation.shape == (3, 0)


@pytest.mark.parametrize("name", CPU_ENGINES)
def test_a_cpu_engine_tells_nothing_of_taps(tiny_bundle, name):
    assert not isinstance(build_engine(tiny_bundle, name, threads=1), Observing)
