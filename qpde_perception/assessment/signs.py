"""The experiment `signs`: a traffic-sign model held to everything that is claimed of it."""

from __future__ import annotations

import hashlib
import math
import time
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator

from qpde_perception.assessment.boxes import Boxes, read_boxes
from qpde_perception.assessment.candidates import (
    BundleCandidate,
    Candidate,
    TrainedCandidate,
    finished_runs,
)
from qpde_perception.assessment.measuring import Pictures, Protocol, measure, pictures_of
from qpde_perception.assessment.presentation import present
from qpde_perception.assessment.tasks import answer_of, require_device
from qpde_perception.learning.errors import LearningError
from qpde_perception.learning.experiments.fitting import machine_name
from qpde_perception.learning.experiments.runs import write_json
from qpde_perception.learning.experiments.settings import Settings
from qpde_perception.learning.signs import ARCHIVE, INDEX, NAMES, PIXELS, SignSet, load_signs
from qpde_perception.learning.training import TrainingConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from qpde_perception.frames import InputSpec
    from qpde_perception.learning.experiments.experiment import Answer, Presentation, Row
    from qpde_perception.learning.experiments.jobs import Place

SIGNS = "gtsrb"
BURSTS = "road_drive/roadsign_drive.zip"
ROWS = 2
"""Changes with what rows hold, so that those of an older version are not read."""


class FilterSettings(BaseModel):
    """The temporal filter of tracks.

    Attributes:
        rate_hz: Frames per second.
        time_constant_s: Time after which an old value weighs 1/e, seconds.
        reset_after_s: A sign not seen for longer than this starts anew, seconds.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rate_hz: float = Field(gt=0)
    time_constant_s: float = Field(gt=0)
    reset_after_s: float = Field(gt=0)


class SignRecipe(BaseModel):
    """How networks are trained; what it does not name is as in `qpde train`.

    Attributes:
        float_epochs: Epochs before quantization.
        quantized_epochs: Epochs with quantization in the loop.
        frozen_epochs: Last epochs, with the statistics of the normalisations as deployed.
        batch: Images per step.
        compiled: Whether the rounding of the quantized epochs is fused; wants g++ on a CPU.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    float_epochs: int = Field(ge=0)
    quantized_epochs: int = Field(ge=1)
    frozen_epochs: int = Field(ge=0)
    batch: int = Field(ge=2)
    compiled: bool = False


class SignsSettings(Settings):
    """Profile of `signs`; the first seed is also that of the corruptions' noise.

    Attributes:
        bundles: Folders or names of bundles.
        runs: Folders of finished runs, each of one of the seeds; a pattern such as `runs/signs/*`
            stands for those that are there, be it none.
        networks: Names of networks, each trained with every seed.
        training: How they are trained; None where there are none.
        corrupt_every: Every n-th image of test-a is corrupted.
        filter: The temporal filter of tracks.
    """

    bundles: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    training: SignRecipe | None = None
    corrupt_every: int = Field(ge=1)
    filter: FilterSettings

    @model_validator(mode="after")
    def _names_what_it_needs(self) -> SignsSettings:
        if not (self.bundles or self.runs or self.networks):
            msg = "bundles, runs and networks are all empty"
            raise ValueError(msg)
        if (self.training is None) != (not self.networks):
            msg = "networks and training go together"
            raise ValueError(msg)
        return self

    def candidates(self) -> list[Candidate]:
        """Return what is assessed: bundles, runs, and networks to be trained."""
        recipe = {} if self.training is None else self.training.model_dump()
        trained = [
            TrainedCandidate(TrainingConfig(network=name, seed=seed, **recipe))
            for name in self.networks
            for seed in self.seeds
        ]
        return [*map(BundleCandidate, self.bundles), *finished_runs(self.runs), *trained]

    def protocol(self) -> Protocol:
        """Return what is a matter of choice in measuring."""
        return Protocol(self.corrupt_every, self.seeds[0], **self.filter.model_dump())


class SignsStudy:
    """The study; see `Study`."""

    question = (
        "How right is a traffic-sign model on its deployed integers, and what did quantizing cost: "
        "on the country that it learned, on whole tracks, in bad weather, in another country; and "
        "does it know when it does not know?"
    )
    settings = SignsSettings

    @staticmethod
    def present(rows: Sequence[Row]) -> Presentation:
        """Return the tables, the plots and the reading of the rows."""
        return present(rows)

    def answer(
        self,
        profile: SignsSettings,
        place: Place,
        jobs: int,
        advance: Callable[[int, int, str], None],
    ) -> Answer:
        """Train and measure what is not measured yet; see `Study`.

        Raises:
            LearningError: If data are missing, a network cannot be trained or the device is
                missing.
            BundleError: If there is no such bundle, or it is damaged.
        """
        require_device(place.device)
        data, protocol = fingerprint(place.data), profile.protocol()
        candidates = profile.candidates()
        _check_seeds(candidates, profile.seeds)
        tasks = [_Task(each, protocol, place, data) for each in candidates]
        return answer_of(tasks, jobs, advance)


STUDY = SignsStudy()


class _Task:
    """One candidate to be measured, and where that is kept."""

    def __init__(self, candidate: Candidate, protocol: Protocol, place: Place, data: str) -> None:
        self.candidate, self.protocol, self.place = candidate, protocol, place
        self.folder = candidate.folder(place.work, data)
        digest = hashlib.sha256(f"{ROWS} {protocol} {data}".encode()).hexdigest()[:8]
        self.path = self.folder / f"measured-{digest}.json"

    def make(self) -> str:
        """Train and measure, and return the name of the folder."""
        place = self.place
        network = self.candidate.deployed(lambda: _signs(place), self.folder, place.device)
        trains = isinstance(self.candidate, TrainedCandidate)
        signs, boxes = _signs(place), _boxes(place, network.spec)
        # Of the processor, in whole minutes: the page must not change with what else runs.
        since = time.process_time()
        pictures = _pictures(place, network.spec, self.protocol)
        rows = measure(network, signs, pictures, boxes, self.protocol)
        common = {
            "model": self.candidate.name,
            "seed": self.candidate.seed,
            "recipe": network.recipe,
            "training_seconds": network.training_seconds,
            "measuring_minutes": math.ceil((time.process_time() - since) / 60),
            "machine": machine_name(torch.device("cpu")),
            "trained_on": machine_name(torch.device(place.device)) if trains else None,
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.path, [{**common, **row} for row in rows])
        return self.folder.name


def _check_seeds(candidates: Sequence[Candidate], seeds: Sequence[int]) -> None:
    """Refuse what would be taken for another seed of the same network."""
    seen: set[tuple[str, int | None]] = set()
    for candidate in candidates:
        name, seed = candidate.name, candidate.seed
        if (name, seed) in seen:
            msg = f"{name} with the seed {seed} is listed twice; name each run and bundle once"
            raise LearningError(msg)
        if seed is not None and seed not in seeds:
            msg = f"{name}: the run has the seed {seed}, which is none of the profile's seeds"
            raise LearningError(msg)
        seen.add((name, seed))


def fingerprint(data: Path) -> str:
    """Return a hash of the sign data, published or prepared, and of the boxes.

    Raises:
        LearningError: If a file is missing.
    """
    signs = data / SIGNS
    pictures = [INDEX, PIXELS] if (signs / INDEX).is_file() else [ARCHIVE]
    digest = hashlib.sha256()
    for path in [*(signs / name for name in (*pictures, NAMES)), data / BURSTS]:
        if not path.is_file():
            msg = f"{path}: no such file; --data names the folder of the data sets"
            raise LearningError(msg)
        digest.update(path.read_bytes())
    return digest.hexdigest()


@lru_cache(maxsize=1)
def _signs(place: Place) -> SignSet:
    return load_signs(place.data / SIGNS)


@lru_cache(maxsize=1)
def _boxes(place: Place, spec: InputSpec) -> Boxes:
    return read_boxes(place.data / BURSTS, spec)


@lru_cache(maxsize=1)
def _pictures(place: Place, spec: InputSpec, protocol: Protocol) -> Pictures:
    return pictures_of(_signs(place), spec, protocol)
