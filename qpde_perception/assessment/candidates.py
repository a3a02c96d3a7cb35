"""The networks that are assessed: bundles as they ship, and networks trained for it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qpde_perception.assessment.post_training import (
    CALIBRATION_IMAGES,
    POST_TRAINING_BITS,
    quantized_after_training,
    trained_float_graph,
)
from qpde_perception.assessment.stopwatch import CLOCK, Stopwatch, seconds_of
from qpde_perception.bundles import Bundle, find_model, load_bundle
from qpde_perception.compiling.cpu_writer import cpu_graph
from qpde_perception.compiling.folding import fold
from qpde_perception.compiling.sizes import multiply_adds
from qpde_perception.compiling.specification import SPECIFICATION, WEIGHTS, Specification
from qpde_perception.compiling.writer import float_graph
from qpde_perception.engines.registry import CPU_GRAPH, FLOAT_GRAPH
from qpde_perception.frames import InputSpec
from qpde_perception.learning.errors import LearningError
from qpde_perception.learning.networks import CONFIGS, deployed_parameters
from qpde_perception.learning.signs import REGION_MARGIN, SignSet, prepared_pixels
from qpde_perception.learning.trained_run import FLOAT_WEIGHTS, RECIPE, load_float_network, load_run
from qpde_perception.learning.trained_run import WEIGHTS as RUN_WEIGHTS
from qpde_perception.learning.training import train

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy as np
    from numpy.typing import NDArray

    from qpde_perception.learning.trained_run import TrainedRun
    from qpde_perception.learning.training import TrainingConfig


class Role(str, Enum):
    """What is executed of a network.

    Attributes:
        DEPLOYED: The integers, as they ship.
        UNQUANTIZED: The same integer weights, activations neither rounded nor clipped.
        FLOAT: The network at the end of its float epochs.
        POST_TRAINING: That network, quantized by ONNX Runtime without any training.
    """

    DEPLOYED = "deployed"
    UNQUANTIZED = "unquantized"
    FLOAT = "float"
    POST_TRAINING = "post-training"


@dataclass(frozen=True, slots=True)
class Execution:
    """One way to execute a network.

    Attributes:
        role: What it is.
        precision: Its bits, in words.
        graph: Pixels in, logits out.
    """

    role: Role
    precision: str
    graph: bytes


@dataclass(frozen=True, slots=True)
class Deployed:
    """A network as it is deployed, and what that is held against.

    Attributes:
        spec: Its input.
        parameters: Number of trained parameters that are deployed.
        multiply_adds: For one image.
        executions: `DEPLOYED` and `UNQUANTIZED`; and `FLOAT` where the float network was kept, and
            `POST_TRAINING` where besides the deployed weights have the same eight bits.
        recipe: How it was trained, as plain values; None for a bundle, which does not say.
        training_seconds: Time of training; None where it is not known.
    """

    spec: InputSpec
    parameters: int
    multiply_adds: int
    executions: tuple[Execution, ...]
    recipe: dict[str, Any] | None
    training_seconds: float | None


@dataclass(frozen=True, slots=True)
class Integers:
    """A network as it is deployed, without what it is held against.

    Attributes:
        spec: Its input.
        specification: The network in integers.
        parameters: Number of trained parameters that are deployed.
        training_seconds: Time of training; None where it is not known.
    """

    spec: InputSpec
    specification: Specification
    parameters: int
    training_seconds: float | None


@dataclass(frozen=True, slots=True)
class BundleCandidate:
    """A bundle in its folder, or the name of one that ships."""

    bundle: str
    seed: None = None
    noise_penalty: None = None

    @property
    def name(self) -> str:
        """The bundle's own name."""
        return self._load().manifest.name

    def folder(self, work: Path, data: str) -> Path:  # noqa: ARG002  (measured beside it)
        """Return where measurements of exactly these files are kept."""
        manifest = self._load().manifest
        digest = _digest(manifest.model_dump(mode="json"))
        return work / f"signs-{manifest.name}-{digest}"

    def deployed(self, _signs: Callable[[], SignSet], _folder: Path, _device: str) -> Deployed:
        """Return the graphs of the bundle.

        Raises:
            BundleError: If there is no such bundle, or it is damaged.
        """
        bundle = self._load()
        manifest = bundle.manifest
        graphs = bundle.read(CPU_GRAPH), bundle.read(FLOAT_GRAPH)
        return Deployed(
            manifest.input,
            manifest.parameters,
            multiply_adds(_specification_of(bundle)),
            _of_integers(manifest.weight_bits, manifest.activation_bits, graphs),
            recipe=None,
            training_seconds=None,
        )

    def integers(self, _signs: Callable[[], SignSet], _folder: Path, _device: str) -> Integers:
        """Return the integers of the bundle; raises as `deployed` does."""
        bundle = self._load()
        manifest = bundle.manifest
        return Integers(manifest.input, _specification_of(bundle), manifest.parameters, None)

    def _load(self) -> Bundle:
        return load_bundle(find_model(self.bundle))


@dataclass(frozen=True, slots=True)
class RunCandidate:
    """A run that is finished, in its folder."""

    run: str

    @property
    def name(self) -> str:
        """Name of its network's configuration; that of a taught one says so."""
        run = load_run(Path(self.run))
        return f"{run.name}_taught" if run.taught_by else run.name

    @property
    def seed(self) -> int:
        """Seed of weights, order and augmentation."""
        return int(load_run(Path(self.run)).recipe["seed"])

    @property
    def noise_penalty(self) -> float:
        """Weight of the penalty on rounding noise."""
        return float(load_run(Path(self.run)).recipe.get("noise_penalty", 0.0))

    def folder(self, work: Path, data: str) -> Path:  # noqa: ARG002  (measured beside it)
        """Return where measurements of exactly these files are kept."""
        digest = hashlib.sha256()
        for name in (RECIPE, RUN_WEIGHTS, FLOAT_WEIGHTS):
            path = Path(self.run) / name
            digest.update(path.read_bytes() if path.is_file() else b"")
        return work / f"signs-{self.name}-seed{self.seed}-{digest.hexdigest()[:12]}"

    def deployed(self, signs: Callable[[], SignSet], _folder: Path, _device: str) -> Deployed:
        """Write the network in integers, and what it is held against.

        Raises:
            LearningError: If the run is not finished, or its files are damaged.
            CompilingError: If it cannot be deployed.
        """
        return _of_run(Path(self.run), signs)

    def integers(self, _signs: Callable[[], SignSet], _folder: Path, _device: str) -> Integers:
        """Write the network in integers; raises as `deployed` does."""
        return _integers_of(Path(self.run))


def finished_runs(patterns: Iterable[str]) -> list[RunCandidate]:
    """Return the runs of folders, each by its name or by a pattern such as `runs/signs/*`.

    A folder by its name is missed where it is not; a pattern stands for those that are there, be it
    none.
    """
    found: list[str] = []
    for pattern in patterns:
        is_pattern = any(sign in pattern for sign in "*?[")
        found += sorted(map(str, Path().glob(pattern))) if is_pattern else [pattern]
    return [RunCandidate(folder) for folder in found]


@dataclass(frozen=True, slots=True)
class TrainedCandidate:
    """A network that is trained to be assessed."""

    config: TrainingConfig

    @property
    def name(self) -> str:
        """Name of its configuration."""
        return self.config.network

    @property
    def seed(self) -> int:
        """Seed of weights, order and augmentation."""
        return self.config.seed

    @property
    def noise_penalty(self) -> float:
        """Weight of the penalty on rounding noise."""
        return self.config.noise_penalty

    def folder(self, work: Path, data: str) -> Path:
        """Return the folder of its run: readable, and unique by all that it depends on."""
        digest = _digest({"training": asdict(self.config), "data": data})
        return work / f"signs-{self.name}-seed{self.seed}-{digest}"

    def deployed(self, signs: Callable[[], SignSet], folder: Path, device: str) -> Deployed:
        """Train what is not trained yet, and write the network in integers.

        Raises:
            LearningError: If there is no such network, or it cannot be trained.
            CompilingError: If it cannot be deployed.
        """
        self._train(signs, folder, device)
        return _of_run(folder, signs)

    def integers(self, signs: Callable[[], SignSet], folder: Path, device: str) -> Integers:
        """Train and write as `deployed` does, which says what it raises."""
        self._train(signs, folder, device)
        return _integers_of(folder)

    def _train(self, signs: Callable[[], SignSet], folder: Path, device: str) -> None:
        if not (folder / RECIPE).is_file():
            if self.name not in CONFIGS:
                msg = f"no network {self.name!r}; known are {', '.join(sorted(CONFIGS))}"
                raise LearningError(msg)
            size = CONFIGS[self.name].input_size
            spec = InputSpec(height=size, width=size, region_margin=REGION_MARGIN)
            train(self.config, signs(), spec, folder, Stopwatch(folder / CLOCK), device=device)


Candidate = BundleCandidate | RunCandidate | TrainedCandidate


def _specification_of(bundle: Bundle) -> Specification:
    return Specification.from_files(bundle.read(SPECIFICATION), bundle.read(WEIGHTS))


def _integers_of(folder: Path) -> Integers:
    run = load_run(folder)
    seconds = seconds_of(folder / CLOCK)
    return Integers(run.spec, fold(run.network), deployed_parameters(run.network), seconds)


def _of_run(folder: Path, signs: Callable[[], SignSet]) -> Deployed:
    run = load_run(folder)
    specification, config = fold(run.network), run.network.config
    graphs = cpu_graph(specification), float_graph(specification)
    executions = _of_integers(config.weight_bits, config.activation_bits, graphs)
    trained = load_float_network(run, folder)
    if trained is not None:
        graph = trained_float_graph(trained)
        executions += (Execution(Role.FLOAT, "float", graph),)
        if config.weight_bits == POST_TRAINING_BITS:
            pixels = _calibration_pixels(signs(), run.spec)
            graph = quantized_after_training(graph, pixels)
            executions += (Execution(Role.POST_TRAINING, "W8A8, post-training", graph),)
    return Deployed(
        run.spec,
        deployed_parameters(run.network),
        multiply_adds(specification),
        executions,
        recipe=_recipe(run),
        training_seconds=seconds_of(folder / CLOCK),
    )


def _recipe(run: TrainedRun) -> dict[str, Any]:
    """Return how a run was trained, and in a few words what came before it."""
    recipe = dict(run.recipe)
    if earlier := run.begun_with:
        recipe["begun_with"] = f"{earlier['float_epochs']} float epochs of seed {earlier['seed']}"
    if run.taught_by:
        taught_by = [f"{teacher['network']} of seed {teacher['seed']}" for teacher in run.taught_by]
        recipe["taught_by"] = " and ".join(taught_by)
    return recipe


def _of_integers(
    weight_bits: int, activation_bits: int, graphs: tuple[bytes, bytes]
) -> tuple[Execution, ...]:
    integers, unquantized = graphs
    return (
        Execution(Role.DEPLOYED, f"W{weight_bits}A{activation_bits}", integers),
        Execution(Role.UNQUANTIZED, f"W{weight_bits}, activations float", unquantized),
    )


def _calibration_pixels(signs: SignSet, spec: InputSpec) -> NDArray[np.uint8]:
    pupils = signs.split("train")
    count = min(CALIBRATION_IMAGES, len(pupils))
    records = [pupils.records[index * len(pupils) // count] for index in range(count)]
    return prepared_pixels(SignSet(pupils.pixels, records, pupils.names), spec)


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]
