"""Signs that the data do not have, painted into real pictures of the data.

A network that saw eight speed limits in one typeface takes every other typeface for something else,
and every other number for one of the eight. So speed limits are repainted: the same plate in the
same light, with the figures of another hand, and now and then with a number that no class stands
for. Boards of no known kind and scrambled pictures complete what a network must learn not to know
(outlier exposure: Hendrycks, Mazeika, Dietterich, ICLR 2019).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Image = NDArray[np.uint8]
    Mask = NDArray[np.float32]

UNKNOWN = -1
"""Label of a picture that no class stands for."""

REPAINTED = 0.3
"""Share of the speed limits whose figures are repainted."""

INVENTED = 0.05
"""Share of all pictures that become something unknown."""

NUMBERS = (5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 60, 65, 70, 75, 80, 90, 100, 110, 120, 130, 140)
"""Speed limits of the world, km/h or mph."""

CANVAS = 96
"""Side of the square that masks are drawn on before they get a picture's size, pixels."""

_PLATE = 0.27
"""Radius of what is repainted, in widths of a picture: the white within the red ring."""

_CORE = 0.32
"""Share of a picture on each side of its middle, where there is nothing but plate and figures."""

_FONTS = (
    FontProperties(family="DejaVu Sans"),
    FontProperties(family="DejaVu Sans", weight="bold"),
    FontProperties(family="cmss10"),
)
_STROKES = (6, 9, 12)
"""Widths of the strokes of figures drawn with a round pen, on `_GLYPH` pixels of height."""

_GLYPH = 64
_LEAST_CONTRAST = 16.0
"""Grey levels between plate and figures below which a picture is left alone."""


class Repainter:
    """Repaints some of the pictures that it is given.

    Attributes:
        limits: Class index of every speed limit among the classes, by its number.
    """

    def __init__(self, names: Sequence[str]) -> None:
        """Find the speed limits.

        Args:
            names: Class names; the position is the class index.
        """
        found = (
            (re.fullmatch(r"Speed limit \((\d+)km/h\)", name), i) for i, name in enumerate(names)
        )
        self.limits = {int(match[1]): index for match, index in found if match}
        self._unknown = [number for number in NUMBERS if number not in self.limits]
        self._plates = frozenset(self.limits.values())

    def __call__(self, image: Image, label: int, rng: np.random.Generator) -> tuple[Image, int]:
        """Return the picture, or what became of it, and its label.

        Args:
            image: uint8 BGR, shape (height, width, 3), the sign with its margin.
            label: Its class index.
            rng: Source of randomness.

        Returns:
            A picture of the same shape, and its class index or `UNKNOWN`.
        """
        if rng.random() < INVENTED:
            invent = _board if rng.random() < 0.6 else _scramble
            return invent(image, rng), UNKNOWN
        if label in self._plates and rng.random() < REPAINTED:
            known = rng.random() < 0.5 or not self._unknown
            number = int(rng.choice(list(self.limits) if known else self._unknown))
            painted = repaint(image, str(number), rng)
            if painted is not None:
                return painted, self.limits.get(number, UNKNOWN)
        return image, label


def repaint(image: Image, figures: str, rng: np.random.Generator) -> Image | None:
    """Return a speed limit with other figures, or None where plate and figures look alike.

    Args:
        image: uint8 BGR, shape (height, width, 3), a sign with its margin.
        figures: Digits to paint.
        rng: Source of randomness: typeface, size, place.
    """
    height, width = image.shape[:2]
    plate = np.zeros((CANVAS, CANVAS), np.float32)
    centre = (rng.normal(0.5, 0.008, 2) * CANVAS).round().astype(int)
    radius = round(_PLATE * CANVAS * rng.uniform(0.94, 1.06))
    cv2.circle(plate, (int(centre[0]), int(centre[1])), radius, 1.0, -1)
    plate, ink = _fit(plate, width, height), _fit(_figures(figures, rng), width, height)
    rows, columns = round(height * _CORE), round(width * _CORE)
    core = image[rows : height - rows, columns : width - columns]
    inside = core.reshape(-1, 3).astype(np.float32)
    inside = inside[inside.sum(1).argsort()]
    dark = inside[: max(len(inside) // 12, 1)].mean(0)
    light = inside[len(inside) * 6 // 10 : len(inside) * 9 // 10].mean(0)
    if light.mean() - dark.mean() < _LEAST_CONTRAST:
        return None
    slope = rng.normal(0.0, 0.06, 2)
    across = np.linspace(-0.5, 0.5, width, dtype=np.float32)[None, :, None]
    down = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None, None]
    lit = light * (1.0 + slope[0] * across + slope[1] * down)
    return _blend(_blend(image, lit, plate), dark, ink)


def _figures(figures: str, rng: np.random.Generator) -> Mask:
    """Return the ink of a number on the canvas, shape (CANVAS, CANVAS), 0 to 1."""
    typeface = int(rng.integers(0, len(_FONTS) + len(_STROKES)))
    gap = np.zeros((_GLYPH, int(rng.integers(3, 12))), np.float32)
    parts = [part for figure in figures for part in (gap, _glyph(figure, typeface))][1:]
    word = np.hstack(parts)
    tall = CANVAS * rng.uniform(0.23, 0.33)
    wide = tall * word.shape[1] / _GLYPH * rng.uniform(0.8, 1.25)
    room = CANVAS * rng.uniform(0.40, 0.49)
    if wide > room:
        # Narrower first, then smaller: as the makers of signs do.
        share = room / wide
        wide, tall = room, tall * share ** rng.uniform(0.2, 0.8)
    rows, columns = max(round(tall), 4), max(round(wide), 3)
    word = cv2.resize(word, (columns, rows), interpolation=cv2.INTER_AREA)
    canvas = np.zeros((CANVAS, CANVAS), np.float32)
    top = int((CANVAS - rows) / 2 + rng.normal(0.0, 1.0))
    left = int((CANVAS - columns) / 2 + rng.normal(0.0, 1.0))
    canvas[top : top + rows, left : left + columns] = word
    return canvas


@lru_cache(maxsize=128)
def _glyph(figure: str, typeface: int) -> Mask:
    """Return one digit, `_GLYPH` pixels high and as wide as it is, 0 to 1."""
    if typeface < len(_FONTS):
        path = TextPath((0, 0), figure, size=_GLYPH * 4, prop=_FONTS[typeface])
        outlines = [np.asarray(p, np.float32) for p in path.to_polygons()]
        least = np.min([p.min(0) for p in outlines], axis=0)
        most = np.max([p.max(0) for p in outlines], axis=0)
        rows, columns = np.ceil((most - least)[::-1]).astype(int) + 1
        drawn = np.zeros((rows, columns), np.uint8)
        corners = [np.stack([p[:, 0] - least[0], most[1] - p[:, 1]], 1) for p in outlines]
        cv2.fillPoly(drawn, [np.round(p).astype(np.int32) for p in corners], 255)
    else:
        stroke = _STROKES[typeface - len(_FONTS)]
        drawn = np.zeros((_GLYPH * 2, _GLYPH * 2), np.uint8)
        cv2.putText(
            drawn,
            figure,
            (_GLYPH // 3, _GLYPH * 3 // 2),
            cv2.FONT_HERSHEY_SIMPLEX,
            _GLYPH / 22.0,
            255,
            stroke,
            cv2.LINE_AA,
        )
        rows_used, columns_used = np.nonzero(drawn.max(1))[0], np.nonzero(drawn.max(0))[0]
        drawn = drawn[rows_used[0] : rows_used[-1] + 1, columns_used[0] : columns_used[-1] + 1]
    columns = max(round(drawn.shape[1] * _GLYPH / drawn.shape[0]), 4)
    glyph = cv2.resize(drawn, (columns, _GLYPH), interpolation=cv2.INTER_AREA)
    return np.asarray(glyph / 255.0, np.float32)


def _board(image: Image, rng: np.random.Generator) -> Image:
    """Put a board with some figure where the sign was: no class is a rectangle."""
    height, width = image.shape[:2]
    brim = max(width // 10, 2)
    around = cv2.resize(image[:, :brim], (width, height), interpolation=cv2.INTER_LINEAR)
    brightness = max(float(np.percentile(image, 90)), 40.0)
    rows, columns = (CANVAS * rng.uniform(0.5, 0.8, 2)).astype(int)
    top, left = (CANVAS - rows) // 2, (CANVAS - columns) // 2
    canvas = np.zeros((CANVAS, CANVAS), np.float32)
    canvas[top : top + rows, left : left + columns] = 1.0
    painted = _blend(around, _colour(brightness, rng), _fit(canvas, width, height))
    for _ in range(int(rng.integers(1, 5))):
        canvas[:] = 0.0
        middle = (CANVAS * rng.normal(0.5, 0.1, 2)).astype(int)
        size = CANVAS * rng.uniform(0.06, 0.25)
        if rng.random() < 0.4:
            cv2.circle(canvas, (int(middle[0]), int(middle[1])), round(size), 1.0, -1)
        else:
            corners = middle + rng.normal(0.0, size, (int(rng.integers(3, 7)), 2))
            cv2.fillPoly(canvas, [corners.round().astype(np.int32)], 1.0)
        canvas[:top], canvas[top + rows :] = 0.0, 0.0
        canvas[:, :left], canvas[:, left + columns :] = 0.0, 0.0
        mask = _fit(canvas, width, height)
        painted = _blend(painted, _colour(brightness, rng), mask)
    return painted


def _colour(brightness: float, rng: np.random.Generator) -> NDArray[np.float32]:
    return np.asarray(brightness * rng.random(3) ** 0.7, np.float32)


def _scramble(image: Image, rng: np.random.Generator) -> Image:
    """Exchange the tiles of a picture: all of its parts, and no sign."""
    count = int(rng.integers(2, 4))
    height, width = (side // count for side in image.shape[:2])
    order = rng.permutation(count * count)
    scrambled = np.array(image)
    for source, target in zip(order, np.roll(order, 1), strict=True):
        (i, j), (k, m) = divmod(int(source), count), divmod(int(target), count)
        tile = image[i * height : (i + 1) * height, j * width : (j + 1) * width]
        scrambled[k * height : (k + 1) * height, m * width : (m + 1) * width] = tile
    return scrambled


def _fit(canvas: Mask, width: int, height: int) -> Mask:
    """Return a mask in the size of a picture."""
    shrinks = width < CANVAS and height < CANVAS
    kind = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(canvas, (width, height), interpolation=kind), np.float32)


def _blend(image: NDArray[Any], over: NDArray[np.float32], mask: Mask) -> Image:
    mixed: NDArray[np.float32] = image + (over - image) * mask[:, :, None]
    return np.asarray(np.clip(mixed + 0.5, 0, 255).astype(np.uint8))
