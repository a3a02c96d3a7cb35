"""Observations under every fault, for `drift.py`: real engines, real pictures, made once and kept.

An engine's fault is in its graph: the integer specification is changed and written again, and ONNX
Runtime executes it on int8. A fault of the input is simulated where it happens, see
`assessment/faults.py`. The pictures are the test split of the sign data, which neither training nor
calibration has seen.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from qpde_perception.assessment.faults import FAULTS, healthy_input
from qpde_perception.bundles import Cause, golden_of
from qpde_perception.compiling.cpu_writer import cpu_graph
from qpde_perception.compiling.folding import fold
from qpde_perception.compiling.specification import SPECIFICATION, WEIGHTS, Specification
from qpde_perception.engines import open_reference
from qpde_perception.engines.onnxruntime import OnnxRuntimeEngine
from qpde_perception.engines.registry import CPU_GRAPH
from qpde_perception.frames.statistics import input_statistics
from qpde_perception.learning.trained_run import load_run
from qpde_perception.monitoring import Observation
from qpde_perception.perception.golden_watch import AT_A_TIME, GoldenAnswer
from qpde_perception.perception.scores import softmax

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from qpde_perception.assessment.faults import Fault
    from qpde_perception.bundles import Bundle
    from qpde_perception.frames import InputSpec
    from qpde_perception.learning.signs import SignSet

SEED = 7
SCALE_OF_A_REAL_BUG = 2.008
BATCH = 64
SIGN_BIT, HIGH_BIT = 0x80, 0x40
# Early, middle and late; depthwise, dense, the last before the head, and the head.
FLIPPED = (
    ("stem", 3),
    ("stage0.block1.depthwise", 40),
    ("stage1.block1.expand", 100),
    ("stage2.block1.expand_t", 7),
    ("features", 50),
    ("head", 14),
)
SCALED = (
    "stage0.block0.expand",
    "stage0.block1.depthwise",
    "stage1.block1.depthwise_t",
    "stage2.block0.expand_t",
    "stage2.block3.depthwise",
    "features",
)
STUCK = (("stage0.block1.depthwise", 40), ("stage1.block0.expand_t", 9), ("features", 50))


@dataclass(frozen=True)
class Condition:
    """What is wrong.

    Attributes:
        name: Its name, unique.
        group: What it is one of, in the tables.
        cause: What it should be called; None where nothing is wrong.
        graph: The engine's graph; None for the healthy one's.
        fault: What happens to the picture.
        severity: How much of it, 1 to 5; 0 where there is but one.
    """

    name: str
    group: str
    cause: Cause | None
    graph: Callable[[], bytes] | None = None
    fault: Fault | None = None
    severity: int = 0


@dataclass(frozen=True)
class Observed:
    """What is known of one condition, a row a picture.

    Attributes:
        observations: In the order of the pictures.
        golden: The engine's answer to the golden frames; `identical` is to the healthy engine's.
    """

    observations: list[Observation]
    golden: GoldenAnswer


def conditions(bundle: Bundle, another_run: Path | None) -> Iterator[Condition]:
    """Yield every condition, the healthy one first."""
    healthy = specification_of(bundle)
    yield Condition("healthy", "healthy", None)
    for bit, called in ((SIGN_BIT, "sign bit"), (HIGH_BIT, "high bit")):
        for layer, channel in FLIPPED:
            yield _engine(
                f"{called} of one weight, {layer}",
                "one flipped high bit in one weight",
                lambda bit=bit, layer=layer, channel=channel: flipped(healthy, layer, channel, bit),
            )
    for factor, group in (
        (SCALE_OF_A_REAL_BUG, "one activation scale wrong by 2.008"),
        (1.01, "one activation scale wrong by 1 %"),
    ):
        for layer in SCALED:
            yield _engine(
                f"scale x {factor:g}, {layer}",
                group,
                lambda factor=factor, layer=layer: scaled(healthy, layer, factor),
            )
    for layer, channel in STUCK:
        yield _engine(
            f"stuck channel, {layer}",
            "one stuck channel",
            lambda layer=layer, channel=channel: stuck(healthy, layer, channel),
        )
    if another_run is not None:
        yield _engine(
            "engine of another training run",
            "engine of another training run",
            lambda: fold(load_run(another_run).network),
        )
    for fault in FAULTS:
        for severity in fault.severities:
            name = f"{fault.name} {severity}" if severity else fault.name
            yield Condition(name, fault.name, fault.cause, None, fault, severity)


def specification_of(bundle: Bundle) -> Specification:
    """Read a bundle's network in integers."""
    return Specification.from_files(bundle.read(SPECIFICATION), bundle.read(WEIGHTS))


def flipped(healthy: Specification, layer: str, channel: int, bit: int) -> Specification:
    """Flip one bit of the largest weight of one output channel that has this bit unset."""
    name = f"{layer}.weight"
    weight = healthy.arrays[name].copy()
    codes = weight[channel].reshape(-1).view(np.uint8)
    free = np.abs(weight[channel].reshape(-1).astype(int)) * ((codes & bit) == 0)
    codes[int(free.argmax())] ^= bit
    return replace(healthy, arrays=healthy.arrays | {name: weight})


def scaled(healthy: Specification, layer: str, factor: float) -> Specification:
    """Let a convolution put its output on the grid by a scale that is wrong by a factor."""
    name = f"{layer}.scale"
    scale = (healthy.arrays[name] * np.float32(factor)).astype(np.float32)
    return replace(healthy, arrays=healthy.arrays | {name: scale})


def stuck(healthy: Specification, layer: str, channel: int) -> Specification:
    """Hold one output channel at the largest code, whatever comes in."""
    weight, bias = (healthy.arrays[f"{layer}.{part}"].copy() for part in ("weight", "bias"))
    weight[channel] = 0
    bias[channel] = np.int32(2**20)
    return replace(
        healthy, arrays=healthy.arrays | {f"{layer}.weight": weight, f"{layer}.bias": bias}
    )


def golden_answer(bundle: Bundle, engine: OnnxRuntimeEngine, first: np.ndarray) -> GoldenAnswer:
    """Ask the golden frames as the node does, and compare with the healthy engine's answer."""
    golden = golden_of(bundle)
    logits = golden_logits(bundle, engine)
    return GoldenAnswer(np.array_equal(logits, first), *golden.distance(logits))


def golden_logits(bundle: Bundle, engine: OnnxRuntimeEngine) -> np.ndarray:
    pixels = golden_of(bundle).pixels
    starts = range(0, len(pixels), AT_A_TIME)
    return np.concatenate([engine.infer(pixels[start : start + AT_A_TIME]) for start in starts])


class Laboratory:
    """Makes observations, and keeps them in a folder."""

    def __init__(self, bundle: Bundle, signs: SignSet, frames: int, folder: Path) -> None:
        self._bundle, self._folder = bundle, folder
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(SEED)
        self._chosen = rng.permutation(len(signs))[:frames]
        self._signs, self._spec = signs, bundle.manifest.input
        self._reference = open_reference(bundle)
        self._healthy = OnnxRuntimeEngine(bundle.read(CPU_GRAPH), 1)
        self._first = golden_logits(bundle, self._healthy)
        self._inputs: np.ndarray | None = None
        self._of_healthy: tuple[np.ndarray, dict[str, np.ndarray]] | None = None
        files = sorted(bundle.manifest.files.items())
        self._model = hashlib.sha256(repr((files, len(signs), frames)).encode()).hexdigest()[:12]

    def observe(self, condition: Condition) -> Observed:
        """Return what is observed under a condition, from the folder where it is there."""
        graph = self._bundle.read(CPU_GRAPH)
        if condition.graph is not None:
            graph = condition.graph()
        key = hashlib.sha256(f"{self._model} {condition.name}".encode() + graph).hexdigest()[:16]
        path = self._folder / f"{key}.npz"
        if not path.is_file():
            engine = OnnxRuntimeEngine(graph, 1)
            made = self._made(condition, engine)
            golden = golden_answer(self._bundle, engine, self._first)
            answer = np.array([golden.identical, golden.rms_over_noise, golden.max_over_noise])
            partial = path.with_suffix(".part.npz")
            np.savez_compressed(partial, golden=answer, **made)
            partial.rename(path)
        with np.load(path) as file:
            identical, rms, largest = file["golden"].tolist()
            rows = zip(
                file["distance"].tolist(),
                file["disagrees"].tolist(),
                map(tuple, file["saturation"].tolist()),
                map(tuple, file["statistics"].tolist()),
                file["first"].tolist(),
                file["entropy"].tolist(),
                strict=True,
            )
            observations = [Observation(*row) for row in rows]
        return Observed(observations, GoldenAnswer(bool(identical), rms, largest))

    def _made(self, condition: Condition, engine: OnnxRuntimeEngine) -> dict[str, np.ndarray]:
        inputs = self._inputs_of(condition)
        # An engine's fault leaves the input and the reference as they are.
        if condition.fault is None:
            self._of_healthy = self._of_healthy or self._without_engine(inputs)
            real, made = self._of_healthy
        else:
            real, made = self._without_engine(inputs)
        logits = np.concatenate([engine.infer(batch) for batch in _batches(inputs)]).astype(float)
        shares = softmax(logits)
        logs = np.log(np.maximum(shares, np.finfo(np.float32).tiny))
        return made | {
            "distance": ((logits - real) ** 2).sum(1),
            "disagrees": logits.argmax(1) != real.argmax(1),
            "first": logits.argmax(1),
            "entropy": -(shares * logs).sum(1),
        }

    def _without_engine(self, inputs: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        seen = [self._reference.observe(batch) for batch in _batches(inputs)]
        saturation = np.concatenate([each for _, each in seen])
        made = {"saturation": saturation, "statistics": input_statistics(inputs)}
        return np.concatenate([logits for logits, _ in seen]), made

    def _inputs_of(self, condition: Condition) -> np.ndarray:
        spec: InputSpec = self._spec
        fault = condition.fault
        if fault is None:
            if self._inputs is None:
                images = (self._signs.image(int(index)) for index in self._chosen)
                self._inputs = np.stack([healthy_input(image, spec) for image in images])
            return self._inputs
        return np.stack(
            [
                fault.input_of(
                    self._signs.image(int(index)), spec, condition.severity, (SEED, int(index))
                )
                for index in self._chosen
            ]
        )


def _batches(inputs: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(inputs), BATCH):
        yield inputs[start : start + BATCH]


def _engine(name: str, group: str, changed: Callable[[], Specification]) -> Condition:
    return Condition(name, group, Cause.ENGINE_CHANGED, lambda: cpu_graph(changed()))
