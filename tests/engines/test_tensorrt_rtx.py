"""The gate without a GPU: what the real TensorRT builder makes of the graphs, right and wrong."""

from __future__ import annotations

import onnx
import pytest

from qpde_perception.compiling.specification import (
    SPECIFICATION,
    WEIGHTS,
    Conv,
    Smooth,
    Specification,
)
from qpde_perception.compiling.taps import taps_of
from qpde_perception.compiling.tensorrt_writer import tensorrt_graph
from qpde_perception.engines import EngineError
from qpde_perception.engines.tensorrt_rtx import REMEDY, inspect

pytest.importorskip("tensorrt_rtx_bindings", reason=f"TensorRT for RTX is missing; {REMEDY}")


def specification_of(bundle):
    return Specification.from_files(bundle.read(SPECIFICATION), bundle.read(WEIGHTS))


@pytest.fixture(params=["shipped_bundle", "tiny_bundle"], scope="module")
def specification(request):
    return specification_of(request.getfixturevalue(request.param))


@pytest.fixture(scope="module")
def inspection(specification):
    return inspect(tensorrt_graph(specification))


def test_every_convolution_is_int8_and_no_float_stands_between(
    inspection, specification, record_property
):
    convolutions = [layer for layer in specification.layers if isinstance(layer, Conv)]
    record_property("convolutions", len(convolutions))
    record_property("fused layers", len(inspection.layers))
    assert inspection.faults == ()
    assert inspection.float_islands == ()
    assert inspection.transposed == ()
    assert sorted(inspection.int8) == sorted(f"{layer.output}.values" for layer in convolutions)


def test_what_follows_a_convolution_quantizes_it_in_the_same_kernel(inspection):
    """Sums leave a convolution as float values, once, and only the head's stay float."""
    convolutions = [layer for layer in inspection.layers if layer.kind == "correlation"]
    sums = {tensor.name for layer in convolutions for tensor in layer.outputs}
    for layer in inspection.layers:
        if sums & {tensor.name for tensor in layer.inputs}:
            types = {tensor.type for tensor in layer.outputs}
            assert "Int8" in types or any(node.startswith("head.") for node in layer.nodes)


def test_each_smoothing_is_two_fused_kernels_at_most(inspection, specification, record_property):
    smoothings = [layer for layer in specification.layers if isinstance(layer, Smooth)]
    assert smoothings
    for smoothing in smoothings:
        steps = tuple(f"{smoothing.name}.{step}." for step in range(smoothing.iterations))
        kernels = [
            layer
            for layer in inspection.layers
            if any(node.startswith(steps) for node in layer.nodes)
        ]
        record_property(f"{smoothing.name}: kernels", len(kernels))
        assert 1 <= len(kernels) <= 2


def test_taps_count_in_the_kernel_that_quantizes_and_take_two_more_each(
    inspection, specification, record_property
):
    """One sets the sum to zero, one pads or divides, and one for all puts them together."""
    taps = taps_of(specification.document)
    plain = onnx.load_from_string(tensorrt_graph(specification))
    drop_output(plain, "saturation")
    without = inspect(plain.SerializeToString())
    more = len(inspection.layers) - len(without.layers)
    record_property("kernels for taps", more)
    assert 0 < more <= 2 * len(taps) + 1
    assert inspection.int8 == without.int8
    counted = [
        layer
        for layer in inspection.layers
        if {f"{taps[0]}.saturation.ones", f"{taps[0]}.values"} <= set(layer.nodes)
    ]
    assert ["Int8" in {tensor.type for tensor in layer.outputs} for layer in counted] == [True]


def drop_output(model, name):
    """Drop an output, and every node that only it needs."""
    graph = model.graph
    graph.output.remove(next(one for one in graph.output if one.name == name))
    needed, kept = {one.name for one in graph.output}, []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))


def pad_after_quantizing(nodes):
    """Move the padding of the first padded tensor behind its DequantizeLinear."""
    pad = next(n for n in nodes.values() if n.op_type == "Pad" and n.name.endswith(".padded1"))
    quantize = next(n for n in nodes.values() if pad.output[0] in n.input)
    dequantize = next(n for n in nodes.values() if quantize.output[0] in n.input)
    reader = next(n for n in nodes.values() if dequantize.output[0] in n.input)
    quantize.input[0], pad.input[0] = pad.input[0], dequantize.output[0]
    reader.input[0] = pad.output[0]
    return reader.name


def transpose_a_convolution(nodes):
    node = nodes["stage0.block0.depthwise.values"]
    node.op_type = "ConvTranspose"
    return node.name


def read_values_that_nobody_quantized(nodes):
    node = nodes["stage0.block0.expand_t.values"]
    quantize = nodes[nodes[node.input[0]].input[0]]
    node.input[0] = quantize.input[0]
    return node.name


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (pad_after_quantizing, "not int8"),
        (transpose_a_convolution, "transposed"),
        (read_values_that_nobody_quantized, "not int8"),
    ],
)
def test_a_wrong_graph_fails_and_the_convolution_is_named(tiny_bundle, spoil, fault):
    model = onnx.load_from_string(tensorrt_graph(specification_of(tiny_bundle)))
    nodes = {node.name: node for node in model.graph.node}
    convolution = spoil(nodes)
    in_order(model.graph)
    onnx.checker.check_model(model)
    inspection = inspect(model.SerializeToString())
    assert any(line.startswith(f"{convolution}: ") and fault in line for line in inspection.faults)
    assert inspection.float_islands
    assert convolution not in inspection.int8


def in_order(graph):
    """Put every node behind those that it reads."""
    waiting = list(graph.node)
    known = {one.name for one in (*graph.input, *graph.initializer)} | {""}
    del graph.node[:]
    while waiting:
        ready = next(node for node in waiting if known.issuperset(node.input))
        waiting.remove(ready)
        graph.node.append(ready)
        known.update(ready.output)


def test_bytes_that_are_no_graph_are_refused():
    with pytest.raises(EngineError, match="refuses the graph"):
        inspect(b"nothing")
