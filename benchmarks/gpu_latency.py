"""Latency of TensorRT with and without CUDA graphs, the CPU engines beside it."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

import numpy as np
from engines import measure
from rich.console import Console
from rich.table import Table

from qpde_perception.bundles import Bundle, find_model, load_bundle
from qpde_perception.engines import EngineError
from qpde_perception.engines.cuda import device_of
from qpde_perception.engines.onnxruntime import OnnxRuntimeEngine
from qpde_perception.engines.openvino import OpenVinoEngine
from qpde_perception.engines.tensorrt import TensorRtEngine
from qpde_perception.engines.tensorrt_library import tensorrt_version
from qpde_perception.engines.tensorrt_plan import PlanOptions, build_plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from qpde_perception.engines import Engine

BATCHES = (1, 4, 8)
AWAKE_S = 1.0


def opened_on_gpu(bundle: Bundle, console: Console) -> dict[str, Engine]:
    """Build a plan and open it in both ways; none where the GPU or TensorRT is missing."""
    try:
        device, version = device_of(), tensorrt_version()
        start = time.perf_counter()
        plan = build_plan(bundle.read("tensorrt.onnx"), PlanOptions(max_batch=max(BATCHES)))
        built_s = time.perf_counter() - start
        console.print(
            f"{device.name}, compute capability {device.capability}, driver for CUDA "
            f"{device.driver}, tensorrt {version}: a plan of {len(plan)} bytes in {built_s:.1f} s"
        )
        return {
            "tensorrt, CUDA graphs": TensorRtEngine(plan),
            "tensorrt": TensorRtEngine(plan, cuda_graphs=False),
        }
    except EngineError as error:
        console.print(f"skipped, so that no figure of a GPU follows: {error}")
        return {}


def first_ms(engine: Engine, batch: np.ndarray) -> float:
    """Time the first batch of its size, which prepares what later ones use."""
    start = time.perf_counter_ns()
    engine.infer(batch)
    return (time.perf_counter_ns() - start) / 1e6


def keep_awake(engines: dict[str, Engine], batch: np.ndarray) -> None:
    """Work for a while: the clocks of an idle GPU are low."""
    end = time.perf_counter() + AWAKE_S
    while time.perf_counter() < end:
        for engine in engines.values():
            engine.infer(batch)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="A model's name, or the folder of a bundle.")
    bundle = load_bundle(find_model(parser.parse_args().model))
    spec = bundle.manifest.input
    console = Console(width=120)
    cpu_engines: dict[str, Callable[[bytes, int], Engine]] = {
        f"{built.name} int8, 1 thread": built for built in (OpenVinoEngine, OnnxRuntimeEngine)
    }
    # Those of one processor are timed in turns; a GPU that waits for a CPU would go to sleep.
    groups = (
        opened_on_gpu(bundle, console),
        {name: built(bundle.read("cpu.onnx"), 1) for name, built in cpu_engines.items()},
    )
    table = Table("engine", "batch", "first", "p50", "p99", "p50 an image")
    table.title = f"{bundle.manifest.name}, milliseconds per call"
    rng = np.random.default_rng(0)
    for group in groups:
        for size in BATCHES * bool(group):
            batch = rng.integers(0, 256, (size, spec.height, spec.width, 3), np.uint8)
            firsts = [first_ms(engine, batch) for engine in group.values()]
            keep_awake(group, batch)
            times_ms = measure(list(group.values()), batch)
            for name, first, ms in zip(group, firsts, times_ms, strict=True):
                p50, p99 = np.quantile(ms, (0.5, 0.99))
                figures = [f"{value:.3f}" for value in (first, p50, p99, p50 / size)]
                table.add_row(name, str(size), *figures)
    console.print(table)
    for engine in groups[0].values():
        engine.close()


if __name__ == "__main__":
    main()
