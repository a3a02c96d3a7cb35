"""Augmentation of sign images, in uint8, through the very resize that the vehicle uses."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np

from qpde_perception.frames.prepare import resize

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qpde_perception.frames.input_spec import InputSpec

    Image = NDArray[np.uint8]


def augment(image: Image, spec: InputSpec, rng: np.random.Generator) -> Image:
    """Return one random view of a sign.

    Args:
        image: uint8 BGR, shape (height, width, 3), the sign with its margin.
        spec: The network's input.
        rng: Source of randomness.

    Returns:
        uint8 BGR, shape (spec.height, spec.width, 3).
    """
    view = resize(_jitter(image, rng), spec)
    if rng.random() < 0.8:
        view = _warp(view, rng)
    if rng.random() < 0.25:
        view = _restroke(view, rng)
    view = _relight(view, rng)
    if rng.random() < 0.3:
        view = _blur(view, rng)
    if rng.random() < 0.15:
        view = _sharpen(view, rng)
    if rng.random() < 0.2:
        view = _coarsen(view, rng)
    if rng.random() < 0.3:
        view = _speckle(view, rng)
    if rng.random() < 0.2:
        view = _recompress(view, rng)
    if rng.random() < 0.15:
        view = _occlude(view, rng)
    return view


def _jitter(image: Image, rng: np.random.Generator) -> Image:
    """Move each side of the box: a detector's boxes are looser or tighter than the data's."""
    height, width = image.shape[:2]
    left, right = (rng.uniform(-0.12, 0.14, 2) * width).round().astype(int)
    top, bottom = (rng.uniform(-0.12, 0.14, 2) * height).round().astype(int)
    image = image[max(top, 0) : height - max(bottom, 0), max(left, 0) : width - max(right, 0)]
    above, below, before, after = (max(-int(side), 0) for side in (top, bottom, left, right))
    if above or below or before or after:
        grown = cv2.copyMakeBorder(image, above, below, before, after, cv2.BORDER_REPLICATE)
        image = np.asarray(grown, np.uint8)
    return image


def _warp(view: Image, rng: np.random.Generator) -> Image:
    """Tilt the sign, and stretch its middle against its rim.

    Countries draw the same sign with other letters: larger or smaller within the ring, wider or
    narrower. The stretch fades out towards the rim.
    """
    height, width = view.shape[:2]
    rows, columns = _grid(height, width)
    middle = np.maximum(1.0 - (rows**2 + columns**2) / 0.9, 0.0)
    stretch_y, stretch_x = rng.normal(0.0, 0.18) + rng.normal(0.0, 0.09, 2)
    rows, columns = rows * (1.0 - stretch_y * middle), columns * (1.0 - stretch_x * middle)
    angle = rng.normal(0.0, 6.0) * np.pi / 180.0
    shear, keystone_y, keystone_x = rng.normal(0.0, [0.05, 0.05, 0.05])
    depth = 1.0 + keystone_y * rows + keystone_x * columns
    across = (np.cos(angle) * columns - np.sin(angle) * rows + shear * rows) / depth
    along = (np.sin(angle) * columns + np.cos(angle) * rows) / depth
    warped = cv2.remap(
        view,
        ((across + 1.0) * ((width - 1) / 2.0)).astype(np.float32),
        ((along + 1.0) * ((height - 1) / 2.0)).astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(warped, np.uint8)


@lru_cache(maxsize=4)
def _grid(height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return row and column of every pixel, from -1 to 1."""
    rows = np.linspace(-1.0, 1.0, height, dtype=np.float32)
    columns = np.linspace(-1.0, 1.0, width, dtype=np.float32)
    return np.repeat(rows[:, None], width, 1), np.repeat(columns[None, :], height, 0)


def _restroke(view: Image, rng: np.random.Generator) -> Image:
    """Make dark strokes bolder or thinner, as another typeface has them."""
    kernel = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    change = cv2.erode if rng.random() < 0.5 else cv2.dilate
    share = rng.uniform(0.3, 1.0)
    return np.asarray(
        cv2.addWeighted(change(view, kernel), share, view, 1.0 - share, 0.0), np.uint8
    )


def _relight(view: Image, rng: np.random.Generator) -> Image:
    """Change exposure, contrast, gamma and colour temperature with one table per channel."""
    levels = np.arange(256, dtype=np.float32) / 255.0
    curve = levels ** np.exp(rng.normal(0.0, 0.35))
    if rng.random() < 0.3:
        # A third of the data is night-dark: show its signs in daylight too.
        curve = curve * np.clip(rng.uniform(0.25, 0.6) / max(view.mean() / 255.0, 1e-3), 0.5, 6.0)
    gains = np.exp(rng.normal(0.0, 0.25) + rng.normal(0.0, 0.1, 3))
    # Contrast turns about the picture's own brightness, so that dark pictures do not end up black.
    pivot = curve[int(view.mean())]
    table = (curve[:, None] - pivot) * gains[None, :] + pivot + rng.normal(0.0, 0.08)
    table8 = np.clip(table * 255.0 + 0.5, 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(view, table8.reshape(256, 1, 3)), np.uint8)


def _blur(view: Image, rng: np.random.Generator) -> Image:
    if rng.random() < 0.5:
        return np.asarray(cv2.GaussianBlur(view, (0, 0), rng.uniform(0.4, 1.8)), np.uint8)
    length = int(rng.integers(2, 7))
    kernel = np.zeros((length, length), np.float32)
    kernel[length // 2] = 1.0 / length
    return np.asarray(cv2.filter2D(view, -1, kernel if rng.random() < 0.5 else kernel.T), np.uint8)


def _sharpen(view: Image, rng: np.random.Generator) -> Image:
    soft = cv2.GaussianBlur(view, (0, 0), rng.uniform(0.6, 1.5))
    amount = rng.uniform(0.3, 1.5)
    return np.asarray(cv2.addWeighted(view, 1.0 + amount, soft, -amount, 0.0), np.uint8)


def _speckle(view: Image, rng: np.random.Generator) -> Image:
    noise = rng.standard_normal(view.shape, np.float32) * np.float32(rng.uniform(1.0, 14.0))
    return np.asarray(np.clip(view + noise, 0, 255), np.uint8)


def _coarsen(view: Image, rng: np.random.Generator) -> Image:
    height, width = view.shape[:2]
    share = rng.uniform(0.3, 0.8)
    size = (max(8, int(width * share)), max(8, int(height * share)))
    small = cv2.resize(view, size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def _recompress(view: Image, rng: np.random.Generator) -> Image:
    quality = int(rng.integers(15, 70))
    _, encoded = cv2.imencode(".jpg", view, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)


def _occlude(view: Image, rng: np.random.Generator) -> Image:
    height, width = view.shape[:2]
    rows, columns = (rng.uniform(0.1, 0.35, 2) * (height, width)).astype(int)
    top, left = int(rng.integers(0, height - rows)), int(rng.integers(0, width - columns))
    view = view.copy()
    view[top : top + rows, left : left + columns] = rng.integers(0, 256, 3)
    return view
