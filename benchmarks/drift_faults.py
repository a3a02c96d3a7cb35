"""Faults of engines and inputs, really there, and what a watch observes under each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qpde_perception.assessment.faults import FAULTS, healthy_input
from qpde_perception.bundles import Bundle, Cause, golden_of
from qpde_perception.compiling.cpu_writer import cpu_graph
from qpde_perception.compiling.folding import fold
from qpde_perception.compiling.parity import in_batches
from qpde_perception.compiling.specification import (
    SPECIFICATION,
    WEIGHTS,
    Conv,
    Head,
    Specification,
)
from qpde_perception.engines import open_reference
from qpde_perception.engines.onnxruntime import OnnxRuntimeEngine
from qpde_perception.engines.registry import CPU_GRAPH
from qpde_perception.frames.statistics import input_statistics
from qpde_perception.learning.trained_run import load_run
from qpde_perception.monitoring import Observation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[np.generic]]
    Image = NDArray[np.uint8]

HEALTHY = "healthy"
GRADUAL = "sensor noise that grows"
_HIGH_BIT = 64
_BATCH = 64


@dataclass(frozen=True)
class Seen:
    """What the watch sees of one fault.

    Attributes:
        fault: Its name.
        cause: What it should be called; None for no fault.
        severity: 1 to 5; 0 where it has none.
        observations: One for each image.
        golden_identical: Whether golden frames are answered as by the healthy engine, bit by bit.
        golden: Root mean square and largest distance from the integer reference, over the noise.
    """

    fault: str
    cause: Cause | None
    severity: int
    observations: Sequence[Observation]
    golden_identical: bool
    golden: tuple[float, float]


class Laboratory:
    """Makes the faults of one model and observes them on the same images."""

    def __init__(self, bundle: Bundle, images: Sequence[Image]) -> None:
        """Take a model.

        Args:
            bundle: The model.
            images: uint8 BGR, what a detector would cut out.
        """
        self._spec, self._images = bundle.manifest.input, images
        self._specification = Specification.from_files(
            bundle.read(SPECIFICATION), bundle.read(WEIGHTS)
        )
        self._reference = open_reference(bundle)
        self._engine = OnnxRuntimeEngine(bundle.read(CPU_GRAPH), 1)
        self._golden = golden_of(bundle)
        self._first_answer = self._engine.infer(self._golden.pixels)
        self._healthy = np.stack([healthy_input(image, self._spec) for image in images])
        layers = self._specification.layers
        self._layers = [
            each for each in layers if isinstance(each, Conv) and ".pool" not in each.name
        ]
        self._scaled = [each.name for each in layers if isinstance(each, Conv | Head)]

    def healthy(self) -> Seen:
        """Observe the healthy engine on healthy inputs."""
        return self._seen(HEALTHY, None, self._engine, self._healthy)

    def engine_faults(self, runs: Sequence[Path], *, each: int) -> Iterator[Seen]:
        """Observe engines that are not what was validated.

        Args:
            runs: Folders of other training runs.
            each: In how many places each fault is put.
        """
        rng = np.random.default_rng(7)
        for factor in (2.008, 1.01):
            for name in rng.choice(self._scaled, each, replace=False):
                yield self._broken(f"scale times {factor}", name, self._scale(name, factor))
        for _ in range(each):
            layer = self._layers[rng.integers(len(self._layers))]
            yield self._broken("flipped high bit", layer.name, self._flip(layer.name, rng))
        for _ in range(each):
            layer = self._layers[rng.integers(len(self._layers))]
            yield self._broken("stuck channel", layer.name, self._stick(layer, rng))
        for run in runs:
            graph = cpu_graph(fold(load_run(run).network))
            engine = OnnxRuntimeEngine(graph, 1)
            yield self._seen(
                f"engine of another run ({run.name})", Cause.ENGINE_CHANGED, engine, self._healthy
            )

    def input_faults(self) -> Iterator[Seen]:
        """Observe the healthy engine on wrong inputs."""
        for fault in FAULTS:
            for severity in fault.severities:
                inputs = [
                    fault.input_of(image, self._spec, severity, (11, index))
                    for index, image in enumerate(self._images)
                ]
                yield self._seen(fault.name, fault.cause, self._engine, np.stack(inputs), severity)

    def _broken(self, name: str, place: str, change: Callable[[Arrays], None]) -> Seen:
        arrays = dict(self._specification.arrays)
        change(arrays)
        graph = cpu_graph(Specification(self._specification.document, arrays))
        fault = f"{name} ({place})"
        return self._seen(fault, Cause.ENGINE_CHANGED, OnnxRuntimeEngine(graph, 1), self._healthy)

    def _seen(
        self,
        fault: str,
        cause: Cause | None,
        engine: OnnxRuntimeEngine,
        inputs: NDArray[np.uint8],
        severity: int = 0,
    ) -> Seen:
        logits = in_batches(engine, inputs).astype(np.float64)
        answer = engine.infer(self._golden.pixels)
        observations = []
        for start in range(0, len(inputs), _BATCH):
            batch = np.ascontiguousarray(inputs[start : start + _BATCH])
            real, saturation = self._reference.observe(batch)
            for own, other, shares, statistics in zip(
                logits[start : start + _BATCH],
                real,
                saturation.tolist(),
                input_statistics(batch).tolist(),
                strict=True,
            ):
                distance = float(((own - other) ** 2).sum())
                best = int(own.argmax())
                differs = best != int(other.argmax())
                observations.append(
                    Observation(distance, differs, tuple(shares), tuple(statistics), best, 0.0)
                )
        identical = bool(np.array_equal(answer, self._first_answer))
        golden = self._golden.distance(answer)
        return Seen(fault, cause, severity, observations, identical, golden)

    @staticmethod
    def _scale(name: str, factor: float) -> Callable[[Arrays], None]:
        def change(arrays: Arrays) -> None:
            arrays[f"{name}.scale"] = arrays[f"{name}.scale"] * np.float32(factor)

        return change

    @staticmethod
    def _flip(name: str, rng: np.random.Generator) -> Callable[[Arrays], None]:
        def change(arrays: Arrays) -> None:
            weight = arrays[f"{name}.weight"].copy()
            weight.flat[rng.integers(weight.size)] ^= np.int8(_HIGH_BIT)
            arrays[f"{name}.weight"] = weight

        return change

    def _stick(self, layer: Conv, rng: np.random.Generator) -> Callable[[Arrays], None]:
        """Let one channel always give its largest code."""
        grid, step = self._specification.grid(layer.output), self._specification.grid(layer.input)

        def change(arrays: Arrays) -> None:
            weight = arrays[f"{layer.name}.weight"].copy()
            bias = arrays[f"{layer.name}.bias"].copy()
            channel = rng.integers(len(weight))
            unit = float(arrays[f"{layer.name}.scale"][channel]) * step.scale
            weight[channel] = 0
            bias[channel] = min(grid.q_max * grid.scale / unit, 2**31 - 1)
            arrays |= {f"{layer.name}.weight": weight, f"{layer.name}.bias": bias}

        return change
