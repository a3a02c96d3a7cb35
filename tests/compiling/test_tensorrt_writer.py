"""The graph for TensorRT: the reference's bits in float32, written as TensorRT takes it."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from qpde_perception.bundles import golden_of
from qpde_perception.compiling.errors import CompilingError
from qpde_perception.compiling.folding import fold
from qpde_perception.compiling.parity import reference_of
from qpde_perception.compiling.reference import IntegerReference
from qpde_perception.compiling.specification import SPECIFICATION, WEIGHTS, Specification
from qpde_perception.compiling.taps import taps_of
from qpde_perception.compiling.tensorrt_writer import tensorrt_graph
from qpde_perception.engines.registry import TENSORRT_GRAPH

NETWORKS = (
    *(f"{flavour}_mobilenet_v2_tiny" for flavour in ("symmetric", "twin", "ordinary")),
    "symmetric_mobilenet_v2_tiny_w4a8",
    "symmetric_mobilenet_v2",
)


@pytest.fixture(scope="module")
def shipped(shipped_bundle):
    texts = (shipped_bundle.read(name) for name in (SPECIFICATION, WEIGHTS))
    return Specification.from_files(*texts)


@pytest.fixture(scope="module", params=NETWORKS)
def specification(request, make_network):
    return fold(make_network(request.param, seed=1))


def test_values_are_bit_identical_on_every_flavour(specification, images, as_written):
    pixels = images(8, specification.document.input_height, seed=21)
    logits, saturation = IntegerReference(specification).observe(pixels)
    assert logits.std() > 0.1, "constant logits compare nothing"
    assert saturation.max(axis=0).all(), "a tap without saturation compares nothing"
    found = as_written(tensorrt_graph(specification), pixels)
    assert np.array_equal(found[0], logits)
    assert np.array_equal(found[1], saturation)


def test_values_are_bit_identical_on_the_shipped_model(shipped_bundle, shipped, images, as_written):
    golden = golden_of(shipped_bundle)
    graph = tensorrt_graph(shipped)
    logits, saturation = as_written(graph, golden.pixels)
    assert np.array_equal(logits, golden.logits)
    assert np.array_equal(saturation, golden.saturation)
    pixels = images(24, 48, seed=9)
    logits, saturation = as_written(graph, pixels)
    assert np.array_equal(logits, reference_of(shipped_bundle).infer(pixels))
    assert np.array_equal(saturation, reference_of(shipped_bundle).saturation(pixels))


def test_the_shipped_graph_is_the_one_that_is_written_today(shipped_bundle, shipped):
    assert shipped_bundle.read(TENSORRT_GRAPH) == tensorrt_graph(shipped)


def test_the_file_names_its_taps(specification):
    model = onnx.load_from_string(tensorrt_graph(specification))
    names = json.loads(next(p.value for p in model.metadata_props if p.key == "taps"))
    saturation = next(one for one in model.graph.output if one.name == "saturation")
    assert tuple(names) == taps_of(specification.document)
    assert len(names) == saturation.type.tensor_type.shape.dim[1].dim_value


def test_a_network_without_relu_has_no_taps_and_is_written_without_them(
    tiny_specification, images, as_written
):
    document = tiny_specification.document
    signed = {
        name: grid.model_copy(update={"q_min": -128, "q_max": 127})
        for name, grid in document.grids.items()
    }
    other = Specification(document.model_copy(update={"grids": signed}), tiny_specification.arrays)
    pixels = images(4, document.input_height, seed=3)
    (logits,) = as_written(tensorrt_graph(other), pixels)
    expected, saturation = IntegerReference(other).observe(pixels)
    assert np.array_equal(logits, expected)
    assert saturation.shape == (4, 0)


def test_every_zero_point_is_zero_and_every_bias_float(specification):
    graph = onnx.load_from_string(tensorrt_graph(specification)).graph
    constants = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    quantizers = [n for n in graph.node if n.op_type in {"QuantizeLinear", "DequantizeLinear"}]
    assert quantizers
    for node in quantizers:
        zero = constants[node.input[2]]
        assert zero.dtype == np.int8
        assert not zero.any()
        # A scale of one element in one dimension makes TensorRT leave the convolution in float.
        assert constants[node.input[1]].shape in {(), (zero.size,)} - {(1,)}
    for node in graph.node:
        assert node.op_type != "ConvTranspose"
        if node.op_type == "Conv":
            assert constants[node.input[2]].dtype == np.float32


def test_every_convolution_reads_quantized_tensors_and_nothing_is_padded_after_them(specification):
    graph = onnx.load_from_string(tensorrt_graph(specification)).graph
    makers = {output: node for node in graph.node for output in node.output}
    padded = 0
    for node in graph.node:
        if node.op_type != "Conv":
            continue
        assert [makers[name].op_type for name in node.input[:2]] == ["DequantizeLinear"] * 2
        quantizer = makers[makers[node.input[0]].input[0]]
        assert quantizer.op_type == "QuantizeLinear"
        padded += makers[quantizer.input[0]].op_type == "Pad"
    assert padded, "nothing tests the padding of codes that begin at zero"


def test_writing_twice_gives_the_same_bytes(tiny_specification):
    assert tensorrt_graph(tiny_specification) == tensorrt_graph(tiny_specification)


def test_a_grid_whose_saturation_is_not_that_of_int8_is_refused(tiny_specification):
    document = tiny_specification.document
    (name, grid), *_ = document.grids.items()
    grids = document.grids | {name: grid.model_copy(update={"q_min": -127})}
    other = Specification(document.model_copy(update={"grids": grids}), tiny_specification.arrays)
    with pytest.raises(CompilingError, match=r"-127 to 127 are not those of int8"):
        tensorrt_graph(other)
