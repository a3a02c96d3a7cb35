"""Statistics of the network's input: what light, lens, sensor and preparation leave in it.

Each is a cheap number per picture in which some fault shows; faults differ in their pattern. Fine
detail and colour noise are measured with the mask of Immerkaer, "Fast noise variance estimation",
CVIU 64 (1996); the dark channel is that of He, Sun, Tang, "Single image haze removal using dark
channel prior", CVPR 2009.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from qpde_perception.frames.errors import FrameError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

STATISTICS = (
    "brightness",
    "peak",
    "contrast",
    "dark channel",
    "colourfulness",
    "red over blue",
    "black share",
    "white share",
    "sharpness",
    "fine detail",
    "colour noise",
    "repeated lines",
    "unevenness",
)
"""Names of the statistics, in their order."""

_PATCH = 6
_SMALLEST = 12
# Grey level, first less second channel, third less second.
_PLANES = np.array([[0.25, 0.5, 0.25], [1, -1, 0], [0, -1, 1]], np.float32)
_MASK = np.outer([1, -2, 1], [1, -2, 1]).astype(np.float32)
_DARKEST = np.ones((_PATCH, _PATCH), np.uint8)
_PEAK = 0.99


def input_statistics(batch: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the statistics of pictures as the network gets them.

    - brightness: logarithm of the mean grey level;
    - peak: logarithm of the grey level that one pixel in a hundred reaches;
    - contrast: logarithm of the standard deviation of grey over its mean;
    - dark channel: mean, over patches, of the least value of any channel, over the mean grey level;
    - colourfulness: mean of the largest less the least channel, over the mean grey level;
    - red over blue: logarithm of how much more first less second channel varies than third less
      second;
    - black share, white share: of values that are 0, that are 255;
    - sharpness: logarithm of the root mean square step between neighbours over the standard
      deviation;
    - fine detail: logarithm of what the mask leaves of the grey level, over the mean step;
    - colour noise: logarithm of what it leaves of first less second channel;
    - repeated lines: share of rows and columns that are the same as the one before;
    - unevenness: standard deviation, over patches, of the logarithm of the mean step.

    Args:
        batch: uint8, shape (n, height, width, 3), red first, at least 12 pixels a side.

    Returns:
        float64, shape (n, len(STATISTICS)).

    Raises:
        FrameError: If the batch has another form.
    """
    plain = batch.dtype == np.uint8 and batch.ndim == 4 and batch.shape[3] == 3
    if not plain or min(batch.shape[1:3]) < _SMALLEST:
        msg = (
            f"statistics need uint8 (n, height, width, 3) of at least {_SMALLEST} pixels a side, "
            f"not {batch.dtype}{batch.shape}"
        )
        raise FrameError(msg)
    statistics = np.empty((len(batch), len(STATISTICS)))
    for row, picture in zip(statistics, batch, strict=True):
        row[:] = _of_one(np.ascontiguousarray(picture))
    return statistics


def _of_one(picture: NDArray[np.uint8]) -> tuple[float, ...]:
    # OpenCV, for NumPy takes four times as long on a picture of this size.
    planes = cv2.transform(picture.astype(np.float32), _PLANES)
    means, deviations = cv2.meanStdDev(planes)
    level, deviation = float(means[0, 0]) + 1, float(deviations[0, 0])
    grey = np.ascontiguousarray(planes[..., 0])
    red, green, blue = cv2.split(picture)
    largest, least = cv2.max(cv2.max(red, green), blue), cv2.min(cv2.min(red, green), blue)
    dark = cv2.mean(cv2.erode(least, _DARKEST))[0]
    down, right = cv2.absdiff(grey[1:], grey[:-1]), cv2.absdiff(grey[:, 1:], grey[:, :-1])
    step = (cv2.mean(down)[0] + cv2.mean(right)[0]) / 2
    edges = np.sqrt((cv2.norm(down) ** 2 + cv2.norm(right) ** 2) / (2 * grey.size))
    detail = cv2.mean(np.abs(cv2.filter2D(planes, -1, _MASK)[1:-1, 1:-1]))
    height, width = grey.shape
    patches = (width // _PATCH, height // _PATCH)
    local = cv2.resize(cv2.add(down[:, 1:], right[1:]), patches, interpolation=cv2.INTER_AREA)
    lines = cv2.reduce(down, 1, cv2.REDUCE_MAX), cv2.reduce(right, 0, cv2.REDUCE_MAX)
    place = int(_PEAK * grey.size)
    return (
        np.log(level),
        np.log(np.partition(grey.reshape(-1), place)[place] + 1),
        np.log(deviation / level + 1e-3),
        dark / level,
        (cv2.mean(largest)[0] - cv2.mean(least)[0]) / level,
        np.log((float(deviations[1, 0]) + 0.5) / (float(deviations[2, 0]) + 0.5)),
        1 - np.count_nonzero(picture) / picture.size,
        1 - np.count_nonzero(cv2.bitwise_not(picture)) / picture.size,
        np.log((edges + 1e-3) / (deviation + 1)),
        np.log((detail[0] + 1e-3) / (step + 1)),
        np.log(detail[1] + 1e-3),
        sum(1 - np.count_nonzero(each) / each.size for each in lines) / 2,
        float(cv2.meanStdDev(cv2.log(local + 1))[1][0, 0]),
    )
