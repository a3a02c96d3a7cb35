"""Checkpoints of a training: written after every epoch, and gone on from."""

from __future__ import annotations

import pickle
from dataclasses import asdict
from typing import TYPE_CHECKING

import torch

from qpde_perception.learning.errors import LearningError

if TYPE_CHECKING:
    from pathlib import Path

    from qpde_perception.learning.training import TrainingConfig

CHECKPOINT = "checkpoint.pt"
METRICS = "metrics.jsonl"


def save_checkpoint(
    folder: Path,
    config: TrainingConfig,
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    epoch: int,
) -> None:
    """Write where a run is after so many epochs: the old checkpoint or the new one, never half."""
    state = {
        "config": asdict(config),
        "epoch": epoch,
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    unfinished = folder / f"{CHECKPOINT}.new"
    torch.save(state, unfinished)
    unfinished.replace(folder / CHECKPOINT)


def resume(
    folder: Path,
    config: TrainingConfig,
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
) -> int:
    """Bring a run back to where its checkpoint is.

    Returns:
        How many epochs are done; 0 where there is no checkpoint.

    Raises:
        LearningError: If the checkpoint is damaged or of another recipe.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        (folder / METRICS).unlink(missing_ok=True)
        return 0
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if type(config)(**state["config"]) == config:
            network.load_state_dict(state["network"])
            optimizer.load_state_dict(state["optimizer"])
            epoch = int(state["epoch"])
            _forget_after(epoch, folder)
            return epoch
    except (pickle.UnpicklingError, EOFError, RuntimeError, ValueError, KeyError, TypeError):
        msg = f"{path}: is damaged or of another version; use another folder or remove it"
        raise LearningError(msg) from None
    msg = f"{path}: belongs to a run with another recipe; use another folder or remove it"
    raise LearningError(msg)


def _forget_after(epoch: int, folder: Path) -> None:
    """Drop the figures of an epoch that was killed before its checkpoint."""
    path = folder / METRICS
    if path.is_file():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        path.write_text("".join(lines[:epoch]), encoding="utf-8")
