"""The loop that trains a run epoch by epoch, resumes it, and keeps the weights that val chose."""

from __future__ import annotations

import json
import os
import pickle
import platform
import zipfile
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

import torch

from qpde_perception.frames import keep_memory
from qpde_perception.learning.errors import LearningError
from qpde_perception.learning.experiments.runs import (
    FLOAT,
    OUTCOME,
    START_BITS,
    WEIGHTS,
    Outcome,
    Precision,
    Run,
    as_dict,
    folder_of,
    read_outcome,
    write_json,
)
from qpde_perception.learning.networks import deployed_parameters
from qpde_perception.learning.zoo import BitSchedule

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

CHECKPOINT = "checkpoint.pt"
METRICS = "metrics.jsonl"
FALLING_SHARE = 0.5
"""Part of the quantized epochs in which the bits fall; in the rest they are the target's."""


class Task(Protocol):
    """What the loop is told of one kind of network.

    Attributes:
        epochs: Number of epochs.
        watched_epochs: Epochs between two looks at the validation part.
        checkpoint_epochs: Epochs between two checkpoints.
    """

    epochs: int
    watched_epochs: int
    checkpoint_epochs: int

    def build(self) -> nn.Module:
        """Return the network on its device, with the weights that training begins with."""
        ...

    def optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        """Return the optimizer."""
        ...

    def epoch(self, network: nn.Module, optimizer: torch.optim.Optimizer, epoch: int) -> Tensor:
        """Train one epoch and return the mean of its losses, left on the device."""
        ...

    def accuracy(self, network: nn.Module, split: str) -> float:
        """Return the accuracy on `val` or `test` at the bits that the network now has."""
        ...


def fit(run: Run, task: Task, work: Path, device: torch.device) -> Outcome:
    """Train a run, or go on where it stopped; a finished one is only read.

    Args:
        run: What is trained.
        task: How this kind of network is trained.
        work: Folder of all runs; the run's own gets `checkpoint.pt` and `metrics.jsonl`, and in the
            end `weights.pt` and `outcome.json`.
        device: The device of the network.

    Raises:
        LearningError: If a checkpoint is damaged.
    """
    folder = folder_of(run, work)
    finished = read_outcome(folder)
    if finished is not None:
        return finished
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "run.json", as_dict(run))
    keep_memory()
    torch.manual_seed(run.seed)
    network = task.build()
    optimizer = task.optimizer(network)
    state = _resume(folder, network, optimizer, device)
    for epoch in range(state["epoch"], task.epochs):
        if state["diverged"]:
            break
        start = perf_counter()
        # An epoch's randomness is its own, so that a resumed run is the uninterrupted one.
        torch.manual_seed(run.seed * 1_000_003 + epoch + 1)
        network.train()
        loss = float(task.epoch(network, optimizer, epoch))
        state["diverged"] = not loss < float("inf")
        last = epoch + 1 == task.epochs
        watched = not state["diverged"] and (last or (epoch + 1) % task.watched_epochs == 0)
        val = task.accuracy(network, "val") if watched else None
        if val is not None and at_target(run.precision, epoch, task.epochs):
            _keep_best(state, network, val, epoch + 1)
        state["epoch"] = epoch + 1
        state["seconds"] += perf_counter() - start
        state["metrics"].append({"epoch": epoch + 1, "loss": loss, "val_top1": val})
        if state["epoch"] % task.checkpoint_epochs == 0:
            _save(folder, state, network, optimizer)
    return _finish(task, network, state, folder, device)


def bits_at(target: Precision, progress: float) -> Precision:
    """Return the bits at a point of the quantized epochs: from 16, one after another off.

    Args:
        target: Bits at the end.
        progress: Share of the quantized epochs that is done, from 0 to 1.
    """
    falls = START_BITS - min(bits for bits in target if bits is not None)
    done = falls if progress >= FALLING_SHARE else int(progress / FALLING_SHARE * falls)
    schedule = BitSchedule(*target, start=START_BITS, epochs_per_bit=1)
    return Precision(*schedule.at(done))


def at_target(target: Precision, epoch: int, epochs: int) -> bool:
    """Tell whether the weights after an epoch, counted from 0, are those of the target's bits."""
    # The last epoch always counts, also where there are too few for the bits to have fallen before.
    return target == FLOAT or epoch + 1 == epochs or epoch / epochs >= FALLING_SHARE


def load_weights(network: nn.Module, run: Run, work: Path, device: torch.device) -> None:
    """Give a network the weights of a finished run.

    Raises:
        LearningError: If there are none or they are damaged.
    """
    path = folder_of(run, work) / WEIGHTS
    network.load_state_dict(_load(path, device))


def machine_name(device: torch.device) -> str:
    """Return the device in words."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{platform.machine()} CPU, {os.cpu_count()} cores"


def _keep_best(state: dict[str, Any], network: nn.Module, val: float, epoch: int) -> None:
    # Of equal ones the later: it has the smaller steps behind it.
    if state["best"] is None or val >= state["best"]["val"]:
        weights = {name: values.clone() for name, values in network.state_dict().items()}
        state["best"] = {"val": val, "epoch": epoch, "network": weights}


def _finish(
    task: Task,
    network: nn.Module,
    state: dict[str, Any],
    folder: Path,
    device: torch.device,
) -> Outcome:
    best, test = state["best"], None
    if best is not None:
        network.load_state_dict(best["network"])
        test = task.accuracy(network, "test")
        _write(best["network"], folder / WEIGHTS)
    outcome = Outcome(
        val_top1=None if best is None else best["val"],
        test_top1=test,
        parameters=deployed_parameters(network),
        epoch=0 if best is None else best["epoch"],
        seconds=round(state["seconds"], 2),
        diverged=state["diverged"],
        machine=machine_name(device),
    )
    lines = "".join(json.dumps(entry) + "\n" for entry in state["metrics"])
    (folder / METRICS).write_text(lines, encoding="utf-8")
    write_json(folder / OUTCOME, outcome.as_dict())
    (folder / CHECKPOINT).unlink(missing_ok=True)
    return outcome


def _save(
    folder: Path, state: dict[str, Any], network: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    parts = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
    _write({**state, **parts}, folder / CHECKPOINT)


def _resume(
    folder: Path, network: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device
) -> dict[str, Any]:
    path = folder / CHECKPOINT
    if not path.is_file():
        return {"epoch": 0, "seconds": 0.0, "diverged": False, "best": None, "metrics": []}
    state = _load(path, device)
    try:
        network.load_state_dict(state.pop("network"))
        optimizer.load_state_dict(state.pop("optimizer"))
    except (KeyError, RuntimeError, ValueError):
        msg = f"{path}: is of another version; remove its folder"
        raise LearningError(msg) from None
    return state


def _write(values: dict[str, Any], path: Path) -> None:
    unfinished = path.with_name(f"{path.name}.new")
    torch.save(values, unfinished)
    unfinished.replace(path)


def _load(path: Path, device: torch.device) -> dict[str, Any]:
    if not path.is_file():
        msg = f"{path}: is missing; remove its folder and run again"
        raise LearningError(msg)
    try:
        # What is no archive would be taken for a format of long ago, with errors of its own.
        if zipfile.is_zipfile(path):
            values: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
            return values
    except (pickle.UnpicklingError, EOFError, RuntimeError, ValueError, KeyError):
        pass
    msg = f"{path}: is damaged; remove its folder and run again"
    raise LearningError(msg)
