"""Latency of the CPU engines: a model's int8 graph beside what else one could deploy, in turns.

All are graphs from pixels to logits at the model's input size:

- the model in int8, the same without its total-variation smoothing, and its float reference;
- MobileNetV2 1.0 as published (Sandler et al., CVPR 2018, table 2, with the model's classes; the
  layers of torchvision's `mobilenet_v2`), exported from torch in float32;
- this project's ordinary MobileNetV2, as the experiments have it and as wide as the model, then of
  about equal compute; in float32, and in int8 as ONNX Runtime's own static quantizer makes it.

The weights of the last two are random, which times do not depend on.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from dataclasses import replace

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from qpde_perception.assessment.post_training import quantized_after_training, trained_float_graph
from qpde_perception.bundles import Bundle, find_model, load_bundle
from qpde_perception.compiling.cpu_writer import cpu_graph
from qpde_perception.compiling.specification import SPECIFICATION, WEIGHTS, Smooth, Specification
from qpde_perception.engines import CPU_ENGINES, Engine, engine_status
from qpde_perception.engines.registry import CPU_GRAPH, FLOAT_GRAPH, build_engine
from qpde_perception.learning.networks import CONFIGS, DeployableMobileNetV2
from qpde_perception.learning.quantizers import set_active

PUBLISHED = "MobileNetV2 1.0, fp32"
INT8, UNSMOOTHED = "the model, int8", "without smoothing, int8"
ORDINARY = "ordinary_mobilenet_v2"
WARM_UP = 20


class Published(nn.Module):
    """MobileNetV2 1.0: rows of expansion, channels, blocks, stride."""

    ROWS = (
        *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
        *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
    )

    def __init__(self, size: int, classes: int) -> None:
        super().__init__()
        self.config = replace(CONFIGS[ORDINARY], input_size=size)
        layers, channels = [convolution(3, 32, 3, stride=2)], 32
        for expansion, outputs, blocks, stride in self.ROWS:
            for number in range(blocks):
                first = stride if number == 0 else 1
                layers.append(InvertedResidual(channels, outputs, first, expansion))
                channels = outputs
        layers += [convolution(channels, 1280, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        self.layers = nn.Sequential(*layers, nn.Linear(1280, classes))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.layers((pixels.float() - 128.0) / 64.0)


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, projection, and the input where shapes allow it."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.adds = stride == 1 and inputs == outputs
        self.layers = nn.Sequential(
            *([convolution(inputs, hidden, 1)] if expansion > 1 else []),
            convolution(hidden, hidden, 3, stride=stride, groups=hidden),
            convolution(hidden, outputs, 1)[:2],
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.adds else self.layers(x)


def convolution(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Return convolution, batch normalisation and ReLU6."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU6())


def without_smoothing(specification: Specification) -> Specification:
    """Let whoever reads a smoothed tensor read the one before it."""
    before = {
        layer.output: layer.input for layer in specification.layers if isinstance(layer, Smooth)
    }
    layers = [
        layer.model_copy(
            update={
                role: before[tensor]
                for role in ("input", "trunk")
                if (tensor := getattr(layer, role, None)) in before
            }
        )
        for layer in specification.layers
        if not isinstance(layer, Smooth)
    ]
    document = specification.document.model_copy(update={"layers": tuple(layers)})
    return replace(specification, document=document)


def trivial_graph(bundle: Bundle) -> bytes:
    """Return a graph of one sum over some pixels: what it takes is the call's own time."""
    size, ints = bundle.manifest.input, {"from": [0, 0], "to": [1, 1], "axes": [1, 2]}
    nodes = [
        helper.make_node("Slice", ["pixels", *ints], ["corner"]),
        helper.make_node("Cast", ["corner"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["values", "axes"], ["logits"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "trivial",
        [
            helper.make_tensor_value_info(
                "pixels", TensorProto.UINT8, ["n", size.height, size.width, 3]
            )
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor(name, TensorProto.INT64, [2], values) for name, values in ints.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def graphs_of(bundle: Bundle, calibration: np.ndarray) -> dict[str, bytes]:
    """Return every graph by what it is."""
    specification = Specification.from_files(bundle.read(SPECIFICATION), bundle.read(WEIGHTS))
    config, size = CONFIGS[bundle.manifest.network], bundle.manifest.input.height
    torch.manual_seed(0)
    graphs = {
        PUBLISHED: trained_float_graph(Published(size, len(bundle.manifest.labels)).eval()),
        INT8: bundle.read(CPU_GRAPH),
        UNSMOOTHED: cpu_graph(without_smoothing(specification)),
        "the model, fp32": bundle.read(FLOAT_GRAPH),
    }
    ordinary = CONFIGS[ORDINARY]
    for name, widths in ((ORDINARY, ordinary.widths), ("as wide as the model", config.widths)):
        network = DeployableMobileNetV2(replace(ordinary, widths=widths)).eval()
        set_active(network, active=False)
        graph = trained_float_graph(network)
        graphs[f"{name}, fp32"] = graph
        graphs[f"{name}, static int8"] = quantized_after_training(graph, calibration)
    return graphs


def multiply_adds(graph: bytes) -> float:
    """Return the millions of multiply-adds of a graph's convolutions."""
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(graph)).graph
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.value_info}
    shapes |= {constant.name: list(constant.dims) for constant in model.initializer}
    return sum(
        np.prod(shapes[node.input[1]]) * np.prod(shapes[node.output[0]][2:]) / 1e6
        for node in model.node
        if node.op_type == "Conv"
    )


def measure(
    engines: list[Engine], batch: np.ndarray, calls: int, in_a_row: int
) -> list[np.ndarray]:
    """Time the engines in turns, so that whatever else the machine does hits all alike.

    Returns:
        Milliseconds of every call, one array (2, calls) per engine: by the clock, and those that
        the process got of the processors.
    """
    times_ns: list[list[tuple[int, int]]] = [[] for _ in engines]
    for turn in range((WARM_UP + calls) // in_a_row):
        for engine, noted in zip(engines, times_ns, strict=True):
            for _ in range(in_a_row):
                start, used = time.perf_counter_ns(), time.process_time_ns()
                engine.infer(batch)
                now_used, now = time.process_time_ns(), time.perf_counter_ns()
                if turn * in_a_row >= WARM_UP:
                    noted.append((now - start, now_used - used))
    return [np.array(noted).T / 1e6 for noted in times_ns]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--model", help="A model's name, or the folder of a bundle.")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--signs", type=int, nargs="+", default=[1, 4], help="Images per call.")
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument(
        "--in-a-row", type=int, default=1, help="Calls in one turn; more keep caches warm."
    )
    arguments = parser.parse_args()
    bundle = load_bundle(find_model(arguments.model))
    spec, rng = bundle.manifest.input, np.random.default_rng(0)

    def images(count: int) -> np.ndarray:
        return rng.integers(0, 256, (count, spec.height, spec.width, 3), np.uint8)

    graphs = graphs_of(bundle, images(64))
    amounts = {kind: multiply_adds(graph) for kind, graph in graphs.items()}
    console = Console(width=110)
    for threads in arguments.threads:
        engines = {
            (name, kind): build_engine(with_graph(bundle, graph), name, threads=threads)
            for name in CPU_ENGINES
            for kind, graph in graphs.items()
        }
        for signs in arguments.signs:
            timed = measure(
                list(engines.values()), images(signs), arguments.calls, arguments.in_a_row
            )
            times_ms = dict(zip(engines, timed, strict=True))
            medians = {key: np.median(ms, axis=1) for key, ms in times_ms.items()}
            table = Table("engine", "graph", "10^6 MAC", "p50", "p99", "busy p50", "faster", "busy")
            table.title = (
                f"{bundle.manifest.name}, {signs} sign(s), {threads} thread(s): milliseconds of "
                f"{arguments.calls} calls, {arguments.in_a_row} in a row, {platform.machine()} "
                f"with {os.cpu_count()} processors; busy: processor time; faster: than {PUBLISHED}"
            )
            for name in CPU_ENGINES:
                for kind in graphs:
                    p50, p99 = medians[name, kind], np.quantile(times_ms[name, kind][0], 0.99)
                    ratios = medians[CPU_ENGINES[0], PUBLISHED] / p50
                    figures = [amounts[kind], p50[0], p99, p50[1], *ratios]
                    row = [f"{name} {engine_status(name).version}", kind]
                    table.add_row(*row, *(f"{figure:.2f}" for figure in figures))
            console.print(table)
            for name in CPU_ENGINES:
                shares = 1.0 - medians[name, UNSMOOTHED] / medians[name, INT8]
                console.print(f"{name}: smoothing takes {shares[0]:.1%}, busy {shares[1]:.1%}")
    for name in CPU_ENGINES:
        engine = build_engine(with_graph(bundle, trivial_graph(bundle)), name, threads=1)
        (ms,) = measure([engine], images(1), 2000, 1)
        console.print(f"{name}: a call's own time is {1e3 * np.median(ms[0]):.0f} microseconds")


def with_graph(bundle: Bundle, graph: bytes) -> Bundle:
    """Return a bundle with another graph in the place of its own."""
    return Bundle(bundle.path, bundle.manifest, {**bundle.contents, CPU_GRAPH: graph})


if __name__ == "__main__":
    main()
