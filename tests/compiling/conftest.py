"""Specifications for the tests of compiling."""

from __future__ import annotations

import onnxruntime
import pytest


@pytest.fixture(scope="session")
def tiny_network(make_network):
    return make_network()


@pytest.fixture(scope="session")
def tiny_specification(tiny_network):
    from qpde_perception.compiling.folding import fold

    return fold(tiny_network)


@pytest.fixture(scope="session")
def as_written():
    """Execute a graph as it is written: every node alone, values in float32.

    Left to optimise, ONNX Runtime rounds float biases to whole steps of the accumulator, which the
    lowered biases of the graph for TensorRT are not. Returns logits and saturation.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL

    def run(graph, pixels):
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        return session.run(None, {"pixels": pixels})

    return run
