"""The experiment `certificate`: what can be proven and predicted of networks, and its price."""

from __future__ import annotations

import hashlib
import math
import re
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator

from qpde_perception.assessment.candidates import (
    BundleCandidate,
    Candidate,
    RunCandidate,
    TrainedCandidate,
    finished_runs,
)
from qpde_perception.assessment.certificates_page import present
from qpde_perception.assessment.signs import SIGNS, SignRecipe, fingerprint
from qpde_perception.assessment.tasks import answer_of, require_device
from qpde_perception.compiling.certificate import certify
from qpde_perception.compiling.certificate.certificate import BATCH
from qpde_perception.compiling.certificate.local import LocalBound
from qpde_perception.compiling.certificate.noise import NoiseModel
from qpde_perception.compiling.cpu_writer import cpu_graph
from qpde_perception.compiling.evaluation import evaluate
from qpde_perception.compiling.parity import in_batches
from qpde_perception.engines.onnxruntime import OnnxRuntimeEngine
from qpde_perception.learning.experiments.fitting import machine_name
from qpde_perception.learning.experiments.runs import write_json
from qpde_perception.learning.experiments.settings import Settings
from qpde_perception.learning.signs import SignSet, load_signs, prepared_pixels
from qpde_perception.learning.training import TrainingConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from qpde_perception.assessment.candidates import Integers
    from qpde_perception.compiling.certificate import Certificate
    from qpde_perception.compiling.specification import Specification
    from qpde_perception.frames import InputSpec
    from qpde_perception.learning.experiments.experiment import Answer, Presentation, Row
    from qpde_perception.learning.experiments.jobs import Place

KINDS = {BundleCandidate: "bundle", RunCandidate: "run", TrainedCandidate: "network"}
PROVEN_EVERY = 4
"""One frame in so many gets a proven bound from every block on."""
DIGITS = 5
"""Significant digits of a figure: what no order of summation changes."""


class NetworkSettings(BaseModel):
    """A network to be trained.

    Attributes:
        network: Name of its configuration.
        noise_penalty: Weight of the penalty on rounding noise in training.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    network: str
    noise_penalty: float = Field(default=0.0, ge=0)


class CertificateSettings(Settings):
    """Profile of `certificate`.

    Attributes:
        bundles: Folders or names of bundles.
        runs: Folders of finished runs of `qpde train`, or patterns of them, see `finished_runs`.
        networks: Networks, each trained with every seed.
        training: How they are trained; None where there are none.
        every: Every n-th image of the training set is learned from.
        frames: Images of test-a that are certified, evenly spaced.
    """

    bundles: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    networks: tuple[NetworkSettings, ...] = ()
    training: SignRecipe | None = None
    every: int = Field(ge=1)
    frames: int = Field(ge=1)

    @model_validator(mode="after")
    def _names_what_it_needs(self) -> CertificateSettings:
        if not (self.bundles or self.runs or self.networks):
            msg = "bundles, runs and networks are all empty"
            raise ValueError(msg)
        if (self.training is None) != (not self.networks):
            msg = "networks and training go together"
            raise ValueError(msg)
        return self

    def candidates(self) -> list[Candidate]:
        """Return what is certified, bundles first, then runs."""
        recipe = {} if self.training is None else self.training.model_dump()
        trained = [
            TrainedCandidate(TrainingConfig(seed=seed, **each.model_dump(), **recipe))
            for each in self.networks
            for seed in self.seeds
        ]
        return [*map(BundleCandidate, self.bundles), *finished_runs(self.runs), *trained]


class CertificateStudy:
    """The study; see `Study`."""

    question = (
        "What can be proven, and what predicted, of how far rounding moves a deployed network: how "
        "does the noise gain grow with depth in each flavour, and which way of keeping it small "
        "costs how much accuracy?"
    )
    settings = CertificateSettings

    @staticmethod
    def present(rows: Sequence[Row]) -> Presentation:
        """Return the tables, the plots and the reading of the rows."""
        return present(rows)

    def answer(
        self,
        profile: CertificateSettings,
        place: Place,
        jobs: int,
        advance: Callable[[int, int, str], None],
    ) -> Answer:
        """Train and certify what is not certified yet; see `Study`.

        Raises:
            LearningError: If data are missing, a network cannot be trained or the device is
                missing.
            BundleError: If there is no such bundle, or it is damaged.
        """
        require_device(place.device)
        data = fingerprint(place.data)
        tasks = [_Task(each, profile, place, data) for each in profile.candidates()]
        return answer_of(tasks, jobs, advance)


STUDY = CertificateStudy()


@dataclass(frozen=True, slots=True)
class _Pictures:
    """What a network is measured on, as it sees it, and the classes."""

    val: NDArray[np.uint8]
    val_labels: NDArray[np.int64]
    test: NDArray[np.uint8]
    test_labels: NDArray[np.int64]


class _Task:
    """One candidate to be certified, and where that is kept."""

    def __init__(
        self, candidate: Candidate, profile: CertificateSettings, place: Place, data: str
    ) -> None:
        self.candidate, self.profile, self.place = candidate, profile, place
        # With every image a network is the one that `signs` trains by the same recipe.
        learned = data if profile.every == 1 else f"{data}-every{profile.every}"
        folder = candidate.folder(place.work, learned)
        digest = hashlib.sha256(f"{profile.frames} {data}".encode()).hexdigest()[:8]
        self.path = folder / f"certified-{digest}.json"

    def make(self) -> str:
        """Train and certify, and return the name of the folder."""
        place, folder = self.place, self.path.parent
        thinned = lambda: thin(_signs(place), self.profile.every)  # noqa: E731  (trains or not)
        network = self.candidate.integers(thinned, folder, place.device)
        # Of the processor, in whole minutes: the page must not change with what else runs.
        since = time.process_time()
        pictures = _pictures(place, network.spec)
        figures = certified_figures(network, pictures, self.profile.frames)
        trained = isinstance(self.candidate, TrainedCandidate)
        row = {
            "kind": KINDS[type(self.candidate)],
            "model": self.candidate.name,
            "noise_penalty": self.candidate.noise_penalty,
            "seed": self.candidate.seed,
            "parameters": network.parameters,
            **significant(figures),
            "training_seconds": network.training_seconds,
            "measuring_minutes": math.ceil((time.process_time() - since) / 60),
            "machine": machine_name(torch.device("cpu")),
            "trained_on": machine_name(torch.device(place.device)) if trained else None,
            "learned_every": self.profile.every if trained else None,
        }
        folder.mkdir(parents=True, exist_ok=True)
        write_json(self.path, [row])
        return folder.name


def thin(signs: SignSet, every: int) -> SignSet:
    """Keep every n-th image of the training part and all of the others."""
    learned = [record for record in signs.records if record.split == "train"]
    others = [record for record in signs.records if record.split != "train"]
    return SignSet(signs.pixels, [*learned[::every], *others], signs.names)


def certified_figures(network: Integers, pictures: _Pictures, frames: int) -> dict[str, Any]:
    """Measure what the page shows of one network.

    Args:
        network: The network as it is deployed.
        pictures: Images of val and test-a with their classes.
        frames: Number of images of test-a that are certified.

    Returns:
        Plain values; shares are between 0 and 1.

    Raises:
        CompilingError: If the classes of the data are not those of the network.
        EngineError: If the engine refuses the graph.
    """
    # With one thread the sums come out the same every time.
    engine = OnnxRuntimeEngine(cpu_graph(network.specification), threads=1)
    val, test = (in_batches(engine, pixels) for pixels in (pictures.val, pictures.test))
    engine.close()
    chosen = np.linspace(0, len(test) - 1, min(frames, len(test))).astype(int)
    pixels = pictures.test[chosen]
    found = certify(network.specification, pixels, test[chosen], engine.name)
    return {
        "val_top1": evaluate(val, pictures.val_labels).top1,
        "test_top1": evaluate(test, pictures.test_labels).top1,
        "test_images": len(test),
        "frames": found.images,
        "certified_share": found.certified_share,
        "refuted_share": found.refuted_share,
        "covered_share": float(np.mean(found.certified_from)),
        "margin": found.margin_median,
        "first_order": found.first_order_median,
        "five_sigma_share": found.five_sigma_share,
        "noise_ratio": found.noise_ratio,
        "global_bound": found.global_bound,
        "observed_max": found.observed_max,
        "broken_bounds": found.broken_bounds,
        "blocks": block_gains(found),
        "stages": stage_constants(found),
        **margin_figures(network.specification, pixels),
    }


def block_gains(found: Certificate) -> list[dict[str, Any]]:
    """Return the noise gain of the trunk after the stem and after every block."""
    gains = dict(zip(found.quantizers, found.noise_gain, strict=True))
    return [
        {"name": name, "gain": gains[place]}
        for name, place in trunk_places(found.quantizers).items()
    ]


def trunk_places(quantizers: Sequence[str]) -> dict[str, str]:
    """Return the quantizers of the trunk by what they come after: the stem and every block."""
    last = {"stem": "stem"}
    for name in quantizers:
        block = re.match(r"stage\d+\.block\d+", name)
        if block:
            last[block[0]] = name  # the last quantizer of a block stands on the trunk
    return last


def stage_constants(found: Certificate) -> list[dict[str, Any]]:
    """Return for every stage the product of its blocks' Lipschitz constants, and how many are."""
    products: dict[str, float] = {}
    for name, constant in zip(found.stages, found.stage_lipschitz, strict=True):
        stage = re.match(r"(stage\d+)\.block", name)
        if stage:
            products[stage[1]] = products.get(stage[1], 1.0) * constant
    return [{"name": name, "lipschitz": product} for name, product in products.items()]


def margin_figures(specification: Specification, pixels: NDArray[np.uint8]) -> dict[str, Any]:
    """Return what roundings can take from the margin to the second class, medians over frames.

    Returns:
        `proven`: the proven bound where the roundings of a quantizer of the trunk and all after it
        are free, on every `PROVEN_EVERY`-th frame; `predicted`: the predicted deviation; `limits`:
        by quantizer, its share of the sum of half steps times absolute gradients, mean over frames.
    """
    local, noise = LocalBound(specification), NoiseModel(specification)
    some = local.execution.codes(pixels[::PROVEN_EVERY])
    proven = [
        {"name": name, "bound": float(local.largest_change(some, place).median())}
        for name, place in trunk_places(local.names).items()
    ]
    predicted, shares = [], []
    for start in range(0, len(pixels), BATCH):
        x = local.execution.codes(pixels[start : start + BATCH])
        model = noise.predict(x.float())
        second = model.logits.topk(2, dim=1).indices[None, :, 1:].expand(len(noise.names), -1, 1)
        predicted.append(model.variance.gather(2, second).sum((0, 2)).sqrt())
        worst = model.worst.gather(2, second)[..., 0]
        shares.append(worst / worst.sum(0))
    limits = torch.cat(shares, dim=1).mean(1).tolist()
    return {
        "proven": proven,
        "predicted": float(torch.cat(predicted).median()),
        "limits": dict(zip(noise.names, limits, strict=True)),
    }


def significant(value: Any) -> Any:
    """Cut floats to `DIGITS` significant digits."""
    if isinstance(value, dict):
        return {key: significant(each) for key, each in value.items()}
    if isinstance(value, list):
        return [significant(each) for each in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


@lru_cache(maxsize=1)
def _signs(place: Place) -> SignSet:
    return load_signs(place.data / SIGNS)


@lru_cache(maxsize=1)
def _pictures(place: Place, spec: InputSpec) -> _Pictures:
    val, test = (_signs(place).split(name) for name in ("val", "test-a"))
    return _Pictures(
        prepared_pixels(val, spec), val.labels, prepared_pixels(test, spec), test.labels
    )
