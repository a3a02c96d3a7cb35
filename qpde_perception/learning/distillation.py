"""Distillation: a network learns the probabilities of more accurate ones as well."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812  (the field's name)

from qpde_perception.learning.errors import LearningError
from qpde_perception.learning.trained_run import load_run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from qpde_perception.frames import InputSpec

TEMPERATURE = 2.0
"""Divides the logits of pupil and teachers, so that small probabilities are heard, too."""

TAUGHT_SHARE = 0.8
"""Share of the loss that the teachers have, unless said otherwise."""


class Teachers:
    """Trained networks whose answers are learned from.

    Source: Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network", 2015, section 2.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        """Take networks; they are not trained any further."""
        self.networks = nn.ModuleList(networks).eval().requires_grad_(requires_grad=False)

    def loss(self, logits: Tensor, pixels: Tensor) -> Tensor:
        """Return how far a pupil's probabilities are from the teachers', averaged over a batch.

        The teachers' are the mean of what each of them says at `TEMPERATURE`.

        Args:
            logits: The pupil's, shape (n, classes).
            pixels: What the pupil saw, shape (n, 3, height, width).

        Returns:
            The Kullback-Leibler divergence at `TEMPERATURE`, in nats, times the square of the
            temperature: its gradient then weighs as that of a cross-entropy does.
        """
        with (
            torch.no_grad(),
            torch.autocast(pixels.device.type, torch.bfloat16, cache_enabled=False),
        ):
            answers = [
                F.softmax(network(pixels).float() / TEMPERATURE, dim=1) for network in self.networks
            ]
            taught = torch.stack(answers).mean(0)
        divergence = F.kl_div(
            F.log_softmax(logits / TEMPERATURE, dim=1),
            taught,
            reduction="batchmean",
        )
        return divergence * TEMPERATURE**2


def load_teachers(folders: Sequence[Path], names: tuple[str, ...], spec: InputSpec) -> Teachers:
    """Read the trained networks of finished runs.

    Args:
        folders: Those of the runs.
        names: Class names of the pupil.
        spec: Input of the pupil.

    Raises:
        LearningError: If a run is unfinished or damaged, or of other classes or another input.
    """
    runs = [load_run(folder) for folder in folders]
    for folder, run in zip(folders, runs, strict=True):
        for what, own, wanted in (("classes", run.labels, names), ("inputs", run.spec, spec)):
            if own != wanted:
                msg = f"{folder}: cannot teach: it has other {what} than this training"
                raise LearningError(msg)
    return Teachers([run.network for run in runs])
