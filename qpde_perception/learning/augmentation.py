"""Augmentation of sign images, in uint8, through the very resize that the vehicle uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from qpde_perception.frames.prepare import resize

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qpde_perception.frames.input_spec import InputSpec

    Image = NDArray[np.uint8]


def augment(
    image: Image, spec: InputSpec, rng: np.random.Generator, strength: float = 1.0
) -> Image:
    """Return one random view of a sign.

    Args:
        image: uint8 BGR, shape (height, width, 3), the sign with its margin.
        spec: The network's input.
        rng: Source of randomness.
        strength: Factor on how often a picture is spoilt: tilted, blurred, coarsened, made noisy,
            recompressed, occluded; and on how much its light is changed.

    Returns:
        uint8 BGR, shape (spec.height, spec.width, 3).
    """
    view = resize(_jitter(image, rng), spec)
    if rng.random() < 0.7 * strength:
        view = _tilt(view, rng)
    view = _relight(view, rng, strength)
    if rng.random() < 0.3 * strength:
        view = _blur(view, rng)
    if rng.random() < 0.2 * strength:
        view = _coarsen(view, rng)
    if rng.random() < 0.3 * strength:
        noise = rng.normal(0.0, rng.uniform(1.0, 14.0), view.shape)
        view = np.clip(view + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.2 * strength:
        view = _recompress(view, rng)
    if rng.random() < 0.15 * strength:
        view = _occlude(view, rng)
    return view


def _jitter(image: Image, rng: np.random.Generator) -> Image:
    """Move each side of the box: a detector's boxes are looser or tighter than the data's."""
    height, width = image.shape[:2]
    left, right = (rng.uniform(-0.08, 0.13, 2) * width).round().astype(int)
    top, bottom = (rng.uniform(-0.08, 0.13, 2) * height).round().astype(int)
    image = image[max(top, 0) : height - max(bottom, 0), max(left, 0) : width - max(right, 0)]
    above, below, before, after = (max(-int(side), 0) for side in (top, bottom, left, right))
    if above or below or before or after:
        grown = cv2.copyMakeBorder(image, above, below, before, after, cv2.BORDER_REPLICATE)
        image = np.asarray(grown, np.uint8)
    return image


def _tilt(view: Image, rng: np.random.Generator) -> Image:
    height, width = view.shape[:2]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    centre = np.array([width / 2, height / 2], np.float32)
    angle = rng.normal(0.0, 6.0) * np.pi / 180.0
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], np.float32)
    moved = (corners - centre) @ turn.T + centre + rng.normal(0.0, 0.03 * width, (4, 2))
    matrix = cv2.getPerspectiveTransform(corners, moved.astype(np.float32))
    warped = cv2.warpPerspective(view, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(warped, np.uint8)


def _relight(view: Image, rng: np.random.Generator, strength: float) -> Image:
    """Change exposure, contrast, gamma and colour temperature with one table per channel."""
    levels = np.arange(256, dtype=np.float32) / 255.0
    curve = levels ** np.exp(rng.normal(0.0, 0.35 * strength))
    gains = np.exp(rng.normal(0.0, 0.25 * strength) + rng.normal(0.0, 0.06 * strength, 3))
    # Contrast turns about the picture's own brightness, so that dark pictures do not end up black.
    pivot = curve[int(view.mean())]
    table = (curve[:, None] - pivot) * gains[None, :] + pivot + rng.normal(0.0, 0.08 * strength)
    table8 = np.clip(table * 255.0 + 0.5, 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(view, table8.reshape(256, 1, 3)), np.uint8)


def _blur(view: Image, rng: np.random.Generator) -> Image:
    if rng.random() < 0.5:
        return np.asarray(cv2.GaussianBlur(view, (0, 0), rng.uniform(0.4, 1.8)), np.uint8)
    length = int(rng.integers(2, 7))
    kernel = np.zeros((length, length), np.float32)
    kernel[length // 2] = 1.0 / length
    return np.asarray(cv2.filter2D(view, -1, kernel if rng.random() < 0.5 else kernel.T), np.uint8)


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
