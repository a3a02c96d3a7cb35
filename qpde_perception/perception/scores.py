"""From logits to probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def softmax(logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return the softmax over the last axis; the largest logit is subtracted, so none overflows.

    Args:
        logits: Finite, shape (..., classes).

    Returns:
        Probabilities, float64, the same shape.
    """
    wide = np.asarray(logits, np.float64)
    exponentials = np.exp(wide - wide.max(axis=-1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True), np.float64)


def leading(probabilities: NDArray[np.floating[Any]]) -> int:
    """Return the index of the largest of one item's probabilities, the first of equal ones.

    NumPy's `argmax` lets other threads go first even for a few numbers, which in a node or a replay
    takes far longer than to look.

    Args:
        probabilities: Finite, shape (classes,).
    """
    values = probabilities.tolist()
    return int(values.index(max(values)))
