"""Statistics of the network's input: what light, lens, sensor and preparation leave in it.

Each is a cheap number per picture in which some fault shows; all are told apart by their pattern.
The estimate of the noise is that of Immerkaer, "Fast noise variance estimation", CVIU 64 (1996);
the dark channel that of He, Sun, Tang, "Single image haze removal using dark channel prior", CVPR
2009.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qpde_perception.frames.errors import FrameError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

STATISTICS = (
    "brightness",
    "contrast",
    "dark channel",
    "colourfulness",
    "red excess",
    "blue excess",
    "black share",
    "white share",
    "sharpness",
    "fine detail",
    "colour noise",
    "repeated columns",
    "unevenness",
)
"""Names of the statistics, in their order."""

_BLOCK = 6
"""Side of the blocks that the dark channel and the unevenness are measured in."""
_TINY = 1e-3


def input_statistics(batch: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the statistics of pictures as the network gets them.

    - brightness: logarithm of the mean grey level;
    - contrast: logarithm of the standard deviation of grey over its mean;
    - dark channel: mean of the least value of each block over the mean grey level;
    - colourfulness: mean of the largest less the least channel over the mean grey level;
    - red excess, blue excess: how far the first, the last channel is above both others, mean over
      the mean grey level;
    - black share, white share: of values that are 0, that are 255;
    - sharpness: logarithm of the mean step between neighbours over the standard deviation;
    - fine detail: logarithm of what a Laplacian of the grey level leaves over the mean step;
    - colour noise: logarithm of what it leaves of the difference of first and second channel;
    - repeated columns: share of columns and rows that are the same as the one before;
    - unevenness: standard deviation, over blocks, of the logarithm of the mean step.

    Args:
        batch: uint8, shape (n, height, width, 3), red first, at least 12 pixels a side.

    Returns:
        float64, shape (n, len(STATISTICS)).

    Raises:
        FrameError: If the batch has another form.
    """
    if (
        batch.dtype != np.uint8
        or batch.ndim != 4
        or batch.shape[3] != 3
        or min(batch.shape[1:3]) < 2 * _BLOCK
    ):
        msg = (
            f"statistics need uint8 (n, height, width, 3) of at least {2 * _BLOCK} pixels a side, "
            f"not {batch.dtype}{batch.shape}"
        )
        raise FrameError(msg)
    n = len(batch)
    # Planes lie together in memory: everything below runs along rows.
    red, green, blue = np.ascontiguousarray(batch.transpose(3, 0, 1, 2))
    largest, least = np.maximum(red, green), np.minimum(red, green)
    red_excess = _mean(np.maximum(red, np.maximum(green, blue)) - np.maximum(green, blue))
    blue_excess = _mean(np.maximum(largest, blue) - largest)
    largest, least = np.maximum(largest, blue), np.minimum(least, blue)
    grey = np.asarray(green, np.int16)
    grey = 2 * grey + red + blue  # four times the grey level
    level = _mean(grey) / 4 + 1
    deviation = grey.reshape(n, -1).std(1, dtype=np.float32) / 4
    down, right = np.abs(np.diff(grey, axis=1)), np.abs(np.diff(grey, axis=2))
    step = (_mean(down) + _mean(right)) / 8
    blocks = _blocks(down[:, :, :-1] + right[:, :-1]).mean((2, 4), dtype=np.float32) / 8
    values = (
        np.log(level),
        np.log(deviation / level + _TINY),
        _blocks(least).min((2, 4)).mean((1, 2)) / level,
        _mean(largest - least) / level,
        red_excess / level,
        blue_excess / level,
        _mean(batch == 0),
        _mean(batch == np.uint8(255)),
        np.log((step + _TINY) / (deviation + 1)),
        np.log((_mean(np.abs(_laplacian(grey))) / 4 + _TINY) / (step + 1)),
        np.log(_mean(np.abs(_laplacian(np.asarray(red, np.int16) - green))) + _TINY),
        (_mean(~down.any(2)) + _mean(~right.any(1))) / 2,
        np.log(blocks + 1).std((1, 2)),
    )
    return np.stack(values, 1).astype(np.float64)


def _mean(values: Array) -> Array:
    return np.asarray(values.reshape(len(values), -1).mean(1, dtype=np.float32))


def _laplacian(plane: Array) -> Array:
    """Apply Immerkaer's mask, the difference of two Laplacians, to (n, height, width)."""
    rows = plane[:, :-2] - 2 * plane[:, 1:-1] + plane[:, 2:]
    return np.asarray(rows[..., :-2] - 2 * rows[..., 1:-1] + rows[..., 2:])


def _blocks(plane: Array) -> Array:
    """Cut (n, height, width) into whole blocks: (n, rows, _BLOCK, columns, _BLOCK)."""
    n, height, width = plane.shape
    rows, columns = height // _BLOCK, width // _BLOCK
    cut = plane[:, : rows * _BLOCK, : columns * _BLOCK]
    return cut.reshape(n, rows, _BLOCK, columns, _BLOCK)
