"""Latency of every CPU engine: int8 against the float reference of the same model, interleaved."""

from __future__ import annotations

import argparse
import os
import platform
import time

import numpy as np
from rich.console import Console
from rich.table import Table

from qpde_perception.bundles import Bundle, find_model, load_bundle
from qpde_perception.engines import CPU_ENGINES, Engine, engine_status
from qpde_perception.engines.registry import CPU_GRAPH, build_engine

FLOAT_GRAPH = "reference_fp32.onnx"
THREADS = (1, 2)
BATCHES = (1, 4)
WARM_UP = 20
ROUNDS = 300


def float_bundle(bundle: Bundle) -> Bundle:
    """Return the bundle with its float reference in the place of the int8 graph."""
    contents = {**bundle.contents, CPU_GRAPH: bundle.read(FLOAT_GRAPH)}
    return Bundle(bundle.path, bundle.manifest, contents)


def measure(engines: list[Engine], batch: np.ndarray) -> list[np.ndarray]:
    """Time the engines in turns, so that whatever else the machine does hits all alike.

    Returns:
        Milliseconds per call, one array of `ROUNDS` values per engine.
    """
    times_ms: list[list[float]] = [[] for _ in engines]
    for index in range(WARM_UP + ROUNDS):
        for engine, noted in zip(engines, times_ms, strict=True):
            start = time.perf_counter_ns()
            engine.infer(batch)
            if index >= WARM_UP:
                noted.append((time.perf_counter_ns() - start) / 1e6)
    return [np.array(noted) for noted in times_ms]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="A model's name, or the folder of a bundle.")
    bundle = load_bundle(find_model(parser.parse_args().model))
    spec = bundle.manifest.input
    rng = np.random.default_rng(0)
    table = Table("engine", "threads", "batch", "int8 p50", "p99", "fp32 p50", "p99", "fp32 / int8")
    table.title = (
        f"{bundle.manifest.name}, milliseconds per call, {ROUNDS} interleaved calls each, "
        f"{platform.machine()} with {os.cpu_count()} processors"
    )
    for threads in THREADS:
        pairs = [
            (name, kind, build_engine(source, name, threads=threads))
            for name in CPU_ENGINES
            for kind, source in (("int8", bundle), ("fp32", float_bundle(bundle)))
        ]
        for size in BATCHES:
            batch = rng.integers(0, 256, (size, spec.height, spec.width, 3), np.uint8)
            times_ms = measure([engine for _, _, engine in pairs], batch)
            by_engine = {
                (name, kind): (float(np.median(ms)), float(np.quantile(ms, 0.99)))
                for (name, kind, _), ms in zip(pairs, times_ms, strict=True)
            }
            for name in CPU_ENGINES:
                int8, fp32 = by_engine[name, "int8"], by_engine[name, "fp32"]
                figures = [f"{value:.2f}" for value in (*int8, *fp32)]
                row = [f"{name} {engine_status(name).version}", str(threads), str(size), *figures]
                table.add_row(*row, f"{fp32[0] / int8[0]:.2f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
