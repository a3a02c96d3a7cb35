"""Trains and measures runs, some at once in processes of their own; finished ones are read."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import torch

from qpde_perception.learning.errors import LearningError
from qpde_perception.learning.experiments.fitting import fit, load_weights
from qpde_perception.learning.experiments.graph_task import GraphTask
from qpde_perception.learning.experiments.graphs import CitationGraph, load_graph
from qpde_perception.learning.experiments.image_task import ImageTask, build_image_network
from qpde_perception.learning.experiments.images import ImageSplits, decode_images, load_images
from qpde_perception.learning.experiments.runs import (
    FLOAT,
    ImageRun,
    Outcome,
    Run,
    float_run,
    folder_of,
    read_outcome,
    write_json,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import nn

    from qpde_perception.learning.experiments.settings import ImageRecipe


class Measurement(Protocol):
    """What is measured on a trained image network: a frozen dataclass of its settings."""

    @property
    def name(self) -> str:
        """Name of the measurement."""
        ...

    def measure(self, run: ImageRun, network: nn.Module, images: ImageSplits) -> dict[str, Any]:
        """Return plain values."""
        ...


@dataclass(frozen=True, slots=True)
class Step:
    """A run that an experiment needs, and what it wants to know of it.

    Attributes:
        run: What is trained.
        measurement: What is measured then; None for the accuracy alone.
    """

    run: Run
    measurement: Measurement | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a step.

    Attributes:
        run: What was trained.
        outcome: What the run says of itself.
        measured: What the measurement gave; None without one, or if nothing was learned.
    """

    run: Run
    outcome: Outcome
    measured: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Place:
    """Where runs are made.

    Attributes:
        data: Folder of the data sets.
        work: Folder of all runs.
        device: `cpu` or `cuda`.
    """

    data: Path
    work: Path
    device: str


def perform(
    steps: Sequence[Step], place: Place, jobs: int, advance: Callable[[int, int, str], None]
) -> list[Result]:
    """Make all runs and measurements that are not made yet.

    Args:
        steps: What an experiment needs; the float runs that quantized ones go on from are added.
        place: Where runs are made.
        jobs: Number of processes.
        advance: Told the number of finished steps, their total, and which finished.

    Returns:
        One result per step, in their order.

    Raises:
        LearningError: If data are missing or damaged, or the device is.
    """
    if place.device == "cuda" and not torch.cuda.is_available():
        msg = "--device cuda: torch finds no CUDA device here"
        raise LearningError(msg)
    if any(isinstance(step.run, ImageRun) for step in steps):
        decode_images(place.data, place.work)
    bases = [Step(float_run(step.run)) for step in steps]
    filed = [
        replace(step, run=base.run) if step.run.precision == FLOAT else step
        for step, base in zip(steps, bases, strict=True)
    ]
    every = list(dict.fromkeys([*bases, *filed]))
    waiting = [step for step in every if not _is_finished(step, place)]
    done = len(every) - len(waiting)

    def finished(step: Step) -> None:
        nonlocal done
        done += 1
        advance(done, len(every), folder_of(step.run, place.work).name)

    advance(done, len(every), "")
    if jobs == 1:
        for step in waiting:
            _make(step, place)
            finished(step)
    elif waiting:
        _make_at_once(waiting, place, jobs, finished)
    return [_read(step, place) for step in filed]


def _make_at_once(
    waiting: list[Step], place: Place, jobs: int, finished: Callable[[Step], None]
) -> None:
    """Make steps in processes; a step starts when no other still has to make its float run."""
    # CUDA does not survive a fork.
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _share_cores, (jobs,))
    running: dict[Future[None], Step] = {}
    try:
        while waiting or running:
            claimed = {step.run for step in running.values()} | {step.run for step in waiting}
            busy = {step.run for step in running.values()}
            ready = []
            for step in waiting:
                base = float_run(step.run)
                if step.run not in busy and (base == step.run or base not in claimed):
                    busy.add(step.run)
                    ready.append(step)
            for step in ready:
                waiting.remove(step)
                running[pool.submit(_make, step, place)] = step
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                step = running.pop(future)
                future.result()
                finished(step)
    finally:
        pool.shutdown(cancel_futures=True)


def _share_cores(jobs: int) -> None:
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // jobs))


def _make(step: Step, place: Place) -> None:
    device = torch.device(place.device)
    # All batches of a run have one shape, so the fastest kernel for it is worth looking for.
    torch.backends.cudnn.benchmark = True
    if not isinstance(step.run, ImageRun):
        graph = _graph(place, step.run.graph)
        fit(step.run, GraphTask(step.run, graph, place.work, device), place.work, device)
        return
    images = _images(place, step.run.recipe)
    outcome = fit(step.run, ImageTask(step.run, images, place.work, device), place.work, device)
    if step.measurement is not None and outcome.test_top1 is not None:
        network = build_image_network(step.run, device)
        load_weights(network, step.run, place.work, device)
        network.eval()
        values = step.measurement.measure(step.run, network, images)
        write_json(_measured_path(step, place), values)


def _is_finished(step: Step, place: Place) -> bool:
    outcome = read_outcome(folder_of(step.run, place.work))
    if outcome is None:
        return False
    nothing_to_measure = step.measurement is None or outcome.test_top1 is None
    return nothing_to_measure or _measured_path(step, place).is_file()


def _read(step: Step, place: Place) -> Result:
    outcome = read_outcome(folder_of(step.run, place.work))
    assert outcome is not None
    if step.measurement is None or outcome.test_top1 is None:
        return Result(step.run, outcome, None)
    path = _measured_path(step, place)
    try:
        return Result(step.run, outcome, json.loads(path.read_text(encoding="utf-8")))
    except ValueError:
        msg = f"{path}: is damaged; remove it and run again"
        raise LearningError(msg) from None


def _measured_path(step: Step, place: Place) -> Path:
    measurement: Any = step.measurement
    settings = json.dumps(asdict(measurement), sort_keys=True)
    digest = hashlib.sha256(settings.encode()).hexdigest()[:8]
    return folder_of(step.run, place.work) / f"{measurement.name}-{digest}.json"


@lru_cache(maxsize=1)
def _images(place: Place, recipe: ImageRecipe) -> ImageSplits:
    return load_images(decode_images(place.data, place.work), recipe, torch.device(place.device))


@lru_cache(maxsize=1)
def _graph(place: Place, name: str) -> CitationGraph:
    return load_graph(place.data, name, torch.device(place.device))
