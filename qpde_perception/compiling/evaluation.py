"""Accuracy of logits against labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qpde_perception.compiling.errors import CompilingError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How often the first class is right.

    Attributes:
        images: Number of images.
        top1: Share of images whose first class is right.
        per_class: The same for each class; None for a class without images.
        confusion: Counts, shape (classes, classes): row the true class, column the answer.
    """

    images: int
    top1: float
    per_class: tuple[float | None, ...]
    confusion: NDArray[np.int64]


def evaluate(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> Evaluation:
    """Compare logits, shape (n, classes), with true class indexes, shape (n,).

    Raises:
        CompilingError: If there is no image, or a class that the network does not have.
    """
    classes = logits.shape[1]
    if not len(labels) or labels.max() >= classes:
        msg = f"true classes of {len(labels)} images do not fit a network of {classes} classes"
        raise CompilingError(msg)
    answers = logits.argmax(1)
    confusion = np.bincount(labels * classes + answers, minlength=classes**2)
    confusion = confusion.reshape(classes, classes)
    totals = confusion.sum(1)
    per_class = tuple(
        float(confusion[c, c] / totals[c]) if totals[c] else None for c in range(classes)
    )
    return Evaluation(len(labels), float(np.mean(answers == labels)), per_class, confusion)
