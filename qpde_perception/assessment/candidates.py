"""The networks that are assessed: bundles as they ship, and networks trained for it."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from qpde_perception.bundles import Bundle, find_model, load_bundle
from qpde_perception.compiling.folding import fold
from qpde_perception.compiling.parity import FLOAT_GRAPH
from qpde_perception.compiling.writer import cpu_graph, float_graph
from qpde_perception.engines.registry import CPU_GRAPH
from qpde_perception.frames import InputSpec
from qpde_perception.learning.errors import LearningError
from qpde_perception.learning.networks import CONFIGS, deployed_parameters
from qpde_perception.learning.signs import REGION_MARGIN
from qpde_perception.learning.training import RECIPE, load_run, train

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qpde_perception.learning.signs import SignSet
    from qpde_perception.learning.training import TrainingConfig

CLOCK = "seconds.json"


@dataclass(frozen=True, slots=True)
class Deployed:
    """A network as it is deployed.

    Attributes:
        spec: Its input.
        parameters: Number of trained parameters that are deployed.
        int8: Graph for CPU engines.
        unquantized: Graph with the same integer weights and unquantized activations.
        training_seconds: Time of training; None for a bundle, which does not say.
    """

    spec: InputSpec
    parameters: int
    int8: bytes
    unquantized: bytes
    training_seconds: float | None


@dataclass(frozen=True, slots=True)
class BundleCandidate:
    """A bundle in its folder, or the name of one that ships."""

    bundle: str
    seed: None = None

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
        return Deployed(
            bundle.manifest.input,
            bundle.manifest.parameters,
            bundle.read(CPU_GRAPH),
            bundle.read(FLOAT_GRAPH),
            None,
        )

    def _load(self) -> Bundle:
        return load_bundle(find_model(self.bundle))


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
        if not (folder / RECIPE).is_file():
            if self.name not in CONFIGS:
                msg = f"no network {self.name!r}; known are {', '.join(sorted(CONFIGS))}"
                raise LearningError(msg)
            size = CONFIGS[self.name].input_size
            spec = InputSpec(height=size, width=size, region_margin=REGION_MARGIN)
            train(self.config, signs(), spec, folder, Stopwatch(folder / CLOCK), device=device)
        run = load_run(folder)
        specification = fold(run.network)
        return Deployed(
            run.spec,
            deployed_parameters(run.network),
            cpu_graph(specification),
            float_graph(specification),
            seconds_of(folder / CLOCK),
        )


Candidate = BundleCandidate | TrainedCandidate


class Stopwatch:
    """Keeps the time of every epoch, so that an interrupted training knows it all in the end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._since = time.monotonic()

    def batch(self, epoch: int, done: int, total: int) -> None:
        """Hear of a step."""

    def epoch(self, metrics: dict[str, Any]) -> None:
        """Write down how long a finished epoch took."""
        times = json.loads(self._path.read_text("utf-8")) if self._path.is_file() else {}
        now = time.monotonic()
        times[str(metrics["epoch"])] = round(now - self._since, 1)
        self._since = now
        self._path.write_text(json.dumps(times), encoding="utf-8")


def seconds_of(path: Path) -> float:
    """Return the time of all epochs that a stopwatch wrote down."""
    return float(sum(json.loads(path.read_text(encoding="utf-8")).values()))


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]
