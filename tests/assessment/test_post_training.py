"""The float network as a graph, and what ONNX Runtime's quantizer makes of it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from qpde_perception.assessment.candidates import _calibration_pixels
from qpde_perception.assessment.post_training import (
    CALIBRATION_IMAGES,
    quantized_after_training,
    trained_float_graph,
)
from qpde_perception.compiling.parity import in_batches
from qpde_perception.engines.onnxruntime import OnnxRuntimeEngine
from qpde_perception.frames import resize
from qpde_perception.learning.quantizers import set_active
from qpde_perception.learning.signs import load_signs
from qpde_perception.learning.training import predict


@pytest.fixture(scope="module")
def network(make_network, flavour):
    """A network as it is after its float epochs."""
    network = make_network(f"{flavour}_mobilenet_v2_tiny")
    set_active(network, active=False)
    return network.eval()


@pytest.fixture(scope="module")
def float_graph(network):
    return trained_float_graph(network)


def operators(graph):
    return Counter(node.op_type for node in onnx.load_from_string(graph).graph.node)


def logits_of(graph, pixels):
    return in_batches(OnnxRuntimeEngine(graph, threads=1), pixels)


def test_the_float_graph_computes_what_the_float_network_does(network, float_graph, images):
    pixels = images(33, 16, seed=61)
    expected = predict(network, pixels)
    assert expected.std() > 0.1, "constant logits compare nothing"
    np.testing.assert_allclose(
        logits_of(float_graph, pixels), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max()
    )


def test_normalisations_are_folded_into_constant_weights(float_graph):
    model = onnx.load_from_string(float_graph)
    assert not {"BatchNormalization", "Exp", "Sqrt", "Div"} & set(operators(float_graph))
    constants = {tensor.name for tensor in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(convolutions) >= 8
    assert all(set(node.input[1:]) <= constants for node in convolutions)


def test_the_quantized_graph_has_int8_weights_with_a_scale_for_every_channel(float_graph, images):
    graph = quantized_after_training(float_graph, images(40, 16, seed=62))
    model = onnx.load_from_string(graph)
    made_by = {node.output[0]: node for node in model.graph.node}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert convolutions
    for node in convolutions:
        weight = made_by[node.input[1]]
        codes, scales = constants[weight.input[0]], constants[weight.input[1]]
        assert codes.data_type == TensorProto.INT8
        assert scales.dims[0] == codes.dims[0]
        assert made_by[node.input[0]].op_type == "DequantizeLinear"


def test_quantizing_changes_logits_by_little_and_is_the_same_every_time(float_graph, images):
    seen, pixels = images(40, 16, seed=63), images(24, 16, seed=64)
    graphs = [quantized_after_training(float_graph, seen) for _ in range(2)]
    assert graphs[0] == graphs[1]
    before, after = logits_of(float_graph, pixels), logits_of(graphs[0], pixels)
    error = np.sqrt(np.mean((after - before) ** 2))
    assert 0.0 < error < 0.2 * before.std()


def test_ranges_are_those_of_the_images_it_is_shown(float_graph, images):
    bright, dark = images(40, 16, seed=63), images(40, 16, seed=63) // 16
    graphs = [quantized_after_training(float_graph, pixels) for pixels in (bright, dark)]
    pixels = images(24, 16, seed=64)
    real = logits_of(float_graph, pixels)
    errors = [np.abs(logits_of(graph, pixels) - real).mean() for graph in graphs]
    assert errors[0] < errors[1], "ranges of dark images cut bright ones off"


def test_calibration_images_are_spread_over_train_and_prepared_as_the_vehicle_does(data, spec):
    signs = load_signs(data / "gtsrb")
    pupils = signs.split("train")
    assert len(pupils) < CALIBRATION_IMAGES
    pixels = _calibration_pixels(signs, spec)
    assert len(pixels) == len(pupils)
    assert np.array_equal(pixels[7], resize(pupils.image(7), spec)[..., ::-1])
