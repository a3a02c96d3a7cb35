"""Golden frames: inputs with the integer reference's answers, and how far an engine may stray."""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qpde_perception.bundles.errors import BundleError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qpde_perception.bundles.bundle import Bundle

GOLDEN = "golden.npz"
MAX_RMS_OVER_NOISE = 0.25
MAX_OVER_NOISE = 2.0


@dataclass(frozen=True, slots=True)
class Golden:
    """Frames whose logits are known.

    Attributes:
        pixels: Input, uint8, shape (n, height, width, 3).
        logits: The integer reference's answer, float32, shape (n, classes).
        noise: Root mean square of what quantization alone changes in a logit: the unit of budgets.
        taps: Names of the tapped tensors, in order of execution; none in an older bundle.
        saturation: The integer reference's share of saturated codes, float32, shape (n, taps).
    """

    pixels: NDArray[np.uint8]
    logits: NDArray[np.float32]
    noise: float
    taps: tuple[str, ...]
    saturation: NDArray[np.float32]

    def distance(self, logits: NDArray[np.float32]) -> tuple[float, float]:
        """Return root mean square and largest distance from the reference, over the noise."""
        difference = np.abs(logits.astype(np.float64) - self.logits) / self.noise
        return float(np.sqrt(np.mean(difference**2))), float(difference.max())

    def to_bytes(self) -> bytes:
        """Return the content of `golden.npz`."""
        buffer = io.BytesIO()
        arrays = {
            "pixels": self.pixels,
            "logits": self.logits,
            "noise": np.float64(self.noise),
            "taps": np.array(self.taps, np.str_),
            "saturation": self.saturation,
        }
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        return buffer.getvalue()


def golden_of(bundle: Bundle) -> Golden:
    """Read a bundle's golden frames.

    Raises:
        BundleError: If the file is missing or damaged.
    """
    try:
        with np.load(io.BytesIO(bundle.read(GOLDEN)), allow_pickle=False) as file:
            pixels, logits, noise = file["pixels"], file["logits"], float(file["noise"])
            if "taps" not in file:
                return Golden(pixels, logits, noise, (), np.empty((len(pixels), 0), np.float32))
            taps = tuple(str(tap) for tap in file["taps"])
            return Golden(pixels, logits, noise, taps, file["saturation"])
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        msg = f"{bundle.path / GOLDEN}: is damaged: {error}"
        raise BundleError(msg) from None
