"""How an image network is trained and measured: on the device from the first pixel on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F  # noqa: N812  (the field's name)

from qpde_perception.learning.experiments.calibration import calibrate
from qpde_perception.learning.experiments.fitting import bits_at, load_weights
from qpde_perception.learning.experiments.images import (
    CLASSES,
    crop_and_flip,
    normalised,
    with_border,
)
from qpde_perception.learning.experiments.runs import FLOAT, ImageRun, Precision, float_run
from qpde_perception.learning.zoo import build, set_bits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor, nn

    from qpde_perception.learning.experiments.images import ImageSet, ImageSplits

EVALUATION_BATCH = 500


class ImageTask:
    """Training of one image network.

    Args:
        run: What is trained.
        images: The images, on the device.
        work: Folder of all runs.
        device: The device.
    """

    watched_epochs = checkpoint_epochs = 1

    def __init__(
        self, run: ImageRun, images: ImageSplits, work: Path, device: torch.device
    ) -> None:
        self.run, self.images, self.work, self.device = run, images, work, device
        self.quantized = run.precision != FLOAT
        recipe = run.recipe
        self.epochs = recipe.quantized_epochs if self.quantized else recipe.float_epochs
        self.padded = with_border(images.train.pixels)

    def build(self) -> nn.Module:
        """Return the network: a new one, or the float run's with its clippings set."""
        network = build_image_network(self.run, self.device)
        if self.quantized:
            load_weights(network, float_run(self.run), self.work, self.device)
            pixels = normalised(self.images.train.pixels[:EVALUATION_BATCH])
            calibrate(network, lambda trained: trained(pixels))
            set_bits(network, self.run.precision.weights, self.run.precision.activations)
        return network

    def optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        """Return stochastic gradient descent (PAPER: section 1)."""
        named = list(network.named_parameters())
        clippings = [p for n, p in named if n.endswith("alpha")]
        plain = [p for n, p in named if p.ndim == 1 and not n.endswith("alpha")]
        weights = [p for n, p in named if p.ndim != 1 and not n.endswith("alpha")]
        decay = self.run.recipe.weight_decay
        groups = [
            {"params": weights, "share": 1.0, "weight_decay": decay},
            {"params": plain, "share": 1.0, "weight_decay": 0.0},
            {"params": clippings, "share": 0.1, "weight_decay": 0.0},
        ]
        return torch.optim.SGD(groups, lr=self.run.recipe.learning_rate, momentum=0.9)

    def epoch(self, network: nn.Module, optimizer: torch.optim.Optimizer, epoch: int) -> Tensor:
        """Train one epoch and return the mean of its losses, left on the device."""
        train, batch = self.images.train, min(self.run.recipe.batch, len(self.images.train))
        steps = len(train) // batch
        order = torch.randperm(len(train), device=self.device)
        total = torch.zeros((), device=self.device)
        half = self.device.type == "cuda" and not self.quantized
        bits: Precision | None = None
        for step in range(steps):
            progress = (epoch + step / steps) / self.epochs
            wanted = bits_at(self.run.precision, progress) if self.quantized else FLOAT
            if wanted != bits:
                bits = wanted
                set_bits(network, bits.weights, bits.activations)
            for group in optimizer.param_groups:
                group["lr"] = group["share"] * self._learning_rate(progress)
            chosen = order[step * batch : (step + 1) * batch]
            pixels = normalised(crop_and_flip(self.padded[chosen]))
            with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
                logits = network(pixels)
            loss = F.cross_entropy(logits.float(), train.labels[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.detach()
        return total / steps

    def accuracy(self, network: nn.Module, split: str) -> float:
        """Return the accuracy on `val` or `test` at the bits that the network now has."""
        return accuracy(network, self.images.val if split == "val" else self.images.test)

    def _learning_rate(self, progress: float) -> float:
        recipe = self.run.recipe
        start = recipe.quantized_learning_rate if self.quantized else recipe.learning_rate
        return start * 0.5 * (1.0 + math.cos(math.pi * progress))


def build_image_network(run: ImageRun, device: torch.device) -> nn.Module:
    """Return the network of a run, untrained, at its run's bits, on the device."""
    network = build(run.network, run.flavour, classes=CLASSES, smoothing=run.smoothing)
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    set_bits(network, run.precision.weights, run.precision.activations)
    return network


def batches(images: ImageSet) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the images of a split as a network is given them, with their labels."""
    for start in range(0, len(images), EVALUATION_BATCH):
        part = slice(start, start + EVALUATION_BATCH)
        yield normalised(images.pixels[part]), images.labels[part]


@torch.no_grad()
def accuracy(network: nn.Module, images: ImageSet) -> float:
    """Return the share of images whose class the network finds."""
    network.eval()
    right = torch.zeros((), dtype=torch.int64, device=images.labels.device)
    for pixels, labels in batches(images):
        right += (network(pixels).argmax(dim=1) == labels).sum()
    return int(right) / len(images)
