"""The temperature of a network's probabilities.

Source: Guo, Pleiss, Sun, Weinberger, "On calibration of modern neural networks", ICML 2017.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLDEST, HOTTEST = 0.05, 20.0
_HALVINGS = 50


def fit_temperature(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the temperature under which the labels are likeliest.

    The likelihood is concave in the inverse temperature, so its slope is bisected.

    Args:
        logits: Shape (n, classes), n at least 1.
        labels: True class indexes, shape (n,).

    Returns:
        The temperature, within `COLDEST` and `HOTTEST`.
    """
    wide = torch.from_numpy(logits).double()
    wanted = float(wide[torch.arange(len(labels)), torch.from_numpy(labels)].mean())
    low, high = np.log(1.0 / HOTTEST), np.log(1.0 / COLDEST)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        expected = float((torch.softmax(wide * np.exp(middle), 1) * wide).sum(1).mean())
        low, high = (middle, high) if expected < wanted else (low, middle)
    return float(np.exp(-(low + high) / 2.0))
