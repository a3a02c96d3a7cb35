"""What weather, optics and transmission do to a picture, in five severities.

After the protocol of Hendrycks, Dietterich, "Benchmarking neural network robustness to common
corruptions and perturbations", ICLR 2019, with parameters of its own for pictures of signs: they
are as small as 25 pixels, so a blur is as wide as a share of the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Image = NDArray[np.uint8]

SEVERITIES = (1, 2, 3, 4, 5)
AIRLIGHT = 200.0
"""Grey level of fog without end."""
DIRT = 60.0
"""Grey level of dirt on a lens."""
_DIRT_OPACITY = 0.75
_DIRT_CELLS = 5


@dataclass(frozen=True, slots=True)
class Corruption:
    """One way in which a picture gets worse.

    Attributes:
        parameter: What the levels are, with their unit.
        levels: The parameter at severities 1 to 5.
        change: From the picture, the level and a source of randomness to the worse picture.
    """

    parameter: str
    levels: tuple[float, float, float, float, float]
    change: Callable[[Image, float, np.random.Generator], Image]

    def at(self, image: Image, severity: int, seed: tuple[int, ...]) -> Image:
        """Return the worse picture at a severity of 1 to 5, the same one for the same seed."""
        return self.change(image, self.levels[severity - 1], np.random.default_rng(seed))


def corrupt(image: Image, name: str, severity: int, seed: tuple[int, ...]) -> Image:
    """Return a corrupted picture, the same one for the same seed.

    Args:
        image: uint8 BGR, shape (height, width, 3); stays as it is.
        name: A key of `CORRUPTIONS`.
        severity: 1 to 5.
        seed: Of the noise; all severities of one seed share one pattern.

    Returns:
        uint8 BGR, the same shape.
    """
    return CORRUPTIONS[name].at(image, severity, seed)


def _blurred(image: Image, share: float, _rng: np.random.Generator) -> Image:
    sigma = share * float(np.sqrt(image.shape[0] * image.shape[1]))
    blurred = cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(blurred, np.uint8)


def _noisy(image: Image, sigma: float, rng: np.random.Generator) -> Image:
    pattern = rng.standard_normal(image.shape, np.float32)
    return _rounded(image + np.float32(sigma) * pattern)


def _fogged(image: Image, transmission: float, _rng: np.random.Generator) -> Image:
    """Mix with the airlight after Koschmieder's law, at one distance for the whole sign."""
    return _rounded(image * np.float32(transmission) + np.float32((1 - transmission) * AIRLIGHT))


def _darkened(image: Image, gain: float, _rng: np.random.Generator) -> Image:
    return _rounded(image * np.float32(gain))


def _dirtied(image: Image, share: float, rng: np.random.Generator) -> Image:
    """Cover blotches; what still comes through them is blurred, for a lens is out of focus."""
    height, width = image.shape[:2]
    cells = rng.standard_normal((_DIRT_CELLS, _DIRT_CELLS), np.float32)
    field = np.asarray(cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC))
    edge = np.quantile(field, 1 - share)
    opacity = _DIRT_OPACITY * np.clip(0.5 + 2 * (field - edge), 0, 1)[..., None]
    behind = cv2.GaussianBlur(image, (0, 0), 0.08 * float(np.sqrt(height * width)))
    covered = 0.4 * behind.astype(np.float32) + 0.6 * np.float32(DIRT)
    return _rounded((1 - opacity) * image + opacity * covered)


def _compressed(image: Image, quality: float, _rng: np.random.Generator) -> Image:
    _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(quality)])
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)


def _rounded(values: NDArray[np.float32]) -> Image:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)


CORRUPTIONS = {
    "Gaussian blur": Corruption(
        "standard deviation over the side of the picture", (0.01, 0.02, 0.03, 0.045, 0.06), _blurred
    ),
    "Gaussian noise": Corruption(
        "standard deviation, grey levels of 255", (8.0, 16.0, 26.0, 38.0, 52.0), _noisy
    ),
    "fog": Corruption(
        f"share of the light that comes through; the rest is grey {AIRLIGHT:.0f}",
        (0.75, 0.55, 0.4, 0.25, 0.15),
        _fogged,
    ),
    "darkness": Corruption(
        "factor on every grey level, then rounded to 8 bits",
        (0.6, 0.4, 0.25, 0.15, 0.08),
        _darkened,
    ),
    "JPEG": Corruption(
        "quality, colours at half resolution", (40.0, 25.0, 15.0, 9.0, 5.0), _compressed
    ),
}
DIRTY_LENS = Corruption(
    f"share of the picture that dirt of grey {DIRT:.0f} covers",
    (0.15, 0.25, 0.4, 0.55, 0.7),
    _dirtied,
)
"""Not one of the protocol's, and so not of `CORRUPTIONS`."""
