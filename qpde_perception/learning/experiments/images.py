"""CIFAR-10 as one uint8 tensor on the device, with batched augmentation there.

Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009).
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

from qpde_perception.learning.errors import LearningError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qpde_perception.learning.experiments.settings import ImageRecipe

ARCHIVE = Path("cifar10") / "cifar10.zip"
SIZE, CLASSES, BORDER = 32, 10, 4
MEAN = (0.49139968, 0.48215841, 0.44653091)
SPREAD = (0.24703223, 0.24348513, 0.26158784)
VALIDATION_SHARE = 0.1
SPLIT_SEED = 20220923
_STRIP = 500


@dataclass(frozen=True, slots=True)
class ImageSet:
    """Images of one split, on the device.

    Attributes:
        pixels: uint8, shape (n, 32, 32, 3).
        labels: int64, shape (n,).
    """

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class ImageSplits:
    """The three splits: learned from, chosen on, and looked at for the reported number."""

    train: ImageSet
    val: ImageSet
    test: ImageSet


def fingerprint(data: Path) -> str:
    """Return a short hash of what the archive holds.

    Raises:
        LearningError: If the archive is missing or is no zip.
    """
    with _opened(data) as archive:
        listing = sorted((entry.filename, entry.CRC) for entry in archive.infolist())
    return hashlib.sha256(repr(listing).encode()).hexdigest()[:12]


def decode_images(data: Path, work: Path) -> Path:
    """Decode the archive once for all runs.

    Args:
        data: Folder that holds `cifar10/cifar10.zip`.
        work: Folder that gets the decoded images.

    Returns:
        The file of the decoded images.

    Raises:
        LearningError: If the archive is missing or damaged.
    """
    path = work / f"cifar10-{fingerprint(data)}.npz"
    if path.is_file():
        return path
    with _opened(data) as archive:
        try:
            arrays = {
                f"{split}_{kind}": values
                for split in ("train", "test")
                for kind, values in zip(("pixels", "labels"), _read(archive, split), strict=True)
            }
        except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
            msg = f"{data / ARCHIVE}: is damaged: {error}"
            raise LearningError(msg) from None
    work.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".new.npz")
    np.savez(unfinished, **arrays)  # type: ignore[arg-type]
    unfinished.replace(path)
    return path


def load_images(decoded: Path, recipe: ImageRecipe, device: torch.device) -> ImageSplits:
    """Put the images of a recipe on the device.

    Args:
        decoded: The file that `decode_images` made.
        recipe: How many images are used; a fixed random part of them, the same for every run.
        device: Where they go.
    """
    with np.load(decoded, allow_pickle=False) as arrays:
        pixels, labels = arrays["train_pixels"], arrays["train_labels"]
        order = np.random.default_rng(SPLIT_SEED).permutation(len(labels))[: recipe.images]
        watched = max(1, round(VALIDATION_SHARE * len(order)))
        test = slice(recipe.test_images)
        parts = (
            (pixels[order[watched:]], labels[order[watched:]]),
            (pixels[order[:watched]], labels[order[:watched]]),
            (arrays["test_pixels"][test], arrays["test_labels"][test]),
        )
        train, val, seen = (
            ImageSet(
                torch.from_numpy(part).to(device), torch.from_numpy(truth).to(device, torch.int64)
            )
            for part, truth in parts
        )
    return ImageSplits(train, val, seen)


def normalised(pixels: Tensor) -> Tensor:
    """Return what a network is given.

    Args:
        pixels: uint8, shape (n, height, width, 3).

    Returns:
        float32, shape (n, 3, height, width), in the memory order `channels_last`.
    """
    mean, spread = _statistics(pixels.device)
    return ((pixels.float() - mean) / spread).permute(0, 3, 1, 2)


def crop_and_flip(padded: Tensor) -> Tensor:
    """Return random crops, half of them mirrored, drawn on the device of the images.

    Args:
        padded: uint8, shape (n, height + 8, width + 8, channels), a border of four on every side.

    Returns:
        uint8, shape (n, height, width, channels).
    """
    count, height, width = padded.shape[0], padded.shape[1] - 8, padded.shape[2] - 8
    device = padded.device
    offsets = torch.randint(0, 2 * BORDER + 1, (2, count, 1), device=device)
    rows = offsets[0] + torch.arange(height, device=device)
    columns = torch.arange(width, device=device).expand(count, width)
    mirrored = torch.rand(count, 1, device=device) < 0.5
    columns = offsets[1] + torch.where(mirrored, width - 1 - columns, columns)
    item = torch.arange(count, device=device)[:, None, None]
    return padded[item, rows[:, :, None], columns[:, None, :]]


def with_border(pixels: Tensor) -> Tensor:
    """Return images, shape (n, height, width, channels), with four black pixels all around."""
    return pad(pixels, (0, 0, BORDER, BORDER, BORDER, BORDER))


@lru_cache(maxsize=2)
def _statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of the channels in units of pixels, kept on the device."""
    return torch.tensor(MEAN, device=device) * 255.0, torch.tensor(SPREAD, device=device) * 255.0


def _opened(data: Path) -> zipfile.ZipFile:
    path = data / ARCHIVE
    if not path.is_file():
        msg = f"{path}: no such file; --data names the folder that holds {ARCHIVE}"
        raise LearningError(msg)
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile:
        msg = f"{path}: is no zip archive"
        raise LearningError(msg) from None


def _read(archive: zipfile.ZipFile, split: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    labels = np.load(io.BytesIO(archive.read(f"{split}_labels.npy")), allow_pickle=False)
    strips = []
    for index in range(-(-len(labels) // _STRIP)):
        picture = Image.open(io.BytesIO(archive.read(f"{split}_{index:03d}.webp")))
        strips.append(np.asarray(picture.convert("RGB")).reshape(-1, SIZE, SIZE, 3))
    pixels = np.concatenate(strips)
    if len(pixels) != len(labels) or labels.max() >= CLASSES:
        msg = f"{split}: {len(pixels)} images with {len(labels)} labels"
        raise ValueError(msg)
    return pixels, labels
