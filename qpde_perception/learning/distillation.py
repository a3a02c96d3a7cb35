"""Distillation: a network learns the probabilities of a larger or more accurate one as well."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F  # noqa: N812  (the field's name)

from qpde_perception.learning.errors import LearningError
from qpde_perception.learning.trained_run import load_float_network, load_run

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from qpde_perception.frames import InputSpec

TEMPERATURE = 2.0
"""Divides both networks' logits, so that the smaller probabilities are heard, too."""

TAUGHT_SHARE = 0.8
"""Share of the loss that a teacher has, unless said otherwise."""


class Teacher:
    """A trained network whose answers are learned from.

    Source: Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network", 2015, section 2.
    """

    def __init__(self, network: nn.Module) -> None:
        """Take a network; it is not trained any further."""
        self.network = network.eval().requires_grad_(requires_grad=False)

    def loss(self, logits: Tensor, pixels: Tensor) -> Tensor:
        """Return how far a pupil's probabilities are from the teacher's, averaged over a batch.

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
            taught = self.network(pixels).float()
        divergence = F.kl_div(
            F.log_softmax(logits / TEMPERATURE, dim=1),
            F.log_softmax(taught / TEMPERATURE, dim=1),
            reduction="batchmean",
            log_target=True,
        )
        return divergence * TEMPERATURE**2


def load_teacher(folder: Path, names: tuple[str, ...], spec: InputSpec) -> Teacher:
    """Read the network of a finished run: as it was in float, where the run kept that.

    Args:
        folder: The run's.
        names: Class names of the pupil.
        spec: Input of the pupil.

    Raises:
        LearningError: If the run is unfinished or damaged, or of other classes or another input.
    """
    run = load_run(folder)
    for what, own, wanted in (("classes", run.labels, names), ("inputs", run.spec, spec)):
        if own != wanted:
            msg = f"{folder}: cannot teach: it has other {what} than this training"
            raise LearningError(msg)
    return Teacher(load_float_network(run, folder) or run.network)
