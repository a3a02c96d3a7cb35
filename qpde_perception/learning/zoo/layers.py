"""What the blocks are made of: kernels with their quantizers, operators with their transposes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (the field's name)

from qpde_perception.learning.errors import LearningError
from qpde_perception.learning.zoo.quantizers import (
    Grid,
    LearnedActivationQuantizer,
    LearnedWeightQuantizer,
)
from qpde_perception.learning.zoo.smoothing import Site, Smoothing, SmoothingConfig

Flavour = Literal["ordinary", "twin", "paper", "certified"]

DEPTHWISE_BITS = 8
"""Bits that depthwise kernels have at most."""


@dataclass(frozen=True, slots=True)
class Style:
    """What all blocks of a network have in common.

    Attributes:
        flavour: Kind of the residual blocks.
        grid: Grid of all quantizers.
        smoothing: Total-variation smoothing; None for none.
    """

    flavour: Flavour
    grid: Grid
    smoothing: SmoothingConfig | None

    def __post_init__(self) -> None:
        smoothing = self.smoothing
        if smoothing is None or self.flavour != "certified":
            return
        if "inner" in smoothing.sites:
            msg = "smoothing inside of a certified block would break its symmetry; use site 'outer'"
            raise LearningError(msg)
        if smoothing.rate > 0.25:
            msg = f"a certified network needs gamma^2 <= sqrt(eps) / 4, not {smoothing}"
            raise LearningError(msg)

    def activations(self, *, signed: bool = False) -> LearnedActivationQuantizer:
        """Make the quantizer of an activation tensor."""
        return LearnedActivationQuantizer(self.grid, signed=signed)

    def smoother(self, site: Site, stage: int) -> nn.Module:
        """Make what smooths at a site of a stage's blocks; it passes its input where nothing is."""
        if self.smoothing is not None and self.smoothing.smooths(site, stage):
            return Smoothing(self.smoothing)
        return nn.Identity()

    def head_norm(self, channels: int) -> nn.Module:
        """Make what scales the pooled features of a trunk that only shrinks; else they pass."""
        return nn.BatchNorm1d(channels) if self.flavour == "certified" else nn.Identity()


class Kernel(nn.Module):
    """A convolution kernel and its quantizer.

    Attributes:
        weight: Shape (outputs, inputs, size, size); depthwise (outputs, 1, size, size).
    """

    def __init__(
        self, outputs: int, inputs: int, size: int, style: Style, *, depthwise: bool = False
    ) -> None:
        super().__init__()
        shape = (outputs, 1 if depthwise else inputs, size, size)
        self.weight = nn.Parameter(torch.empty(shape))
        nn.init.kaiming_normal_(self.weight, mode="fan_out")
        self.quantizer = LearnedWeightQuantizer(
            style.grid, most_bits=DEPTHWISE_BITS if depthwise else 32
        )

    def forward(self) -> Tensor:
        """Return the weights as the convolution uses them."""
        return self.quantizer(self.weight)  # type: ignore[no-any-return]


class Operator(Protocol):
    """A linear operator `K` on feature maps, made of kernels."""

    hidden: int

    def kernels(self) -> tuple[Tensor, ...]:
        """Return the quantized kernels."""
        ...

    def apply_to(self, x: Tensor, kernels: tuple[Tensor, ...]) -> Tensor:
        """Return `K x`."""
        ...

    def transpose(self, y: Tensor, kernels: tuple[Tensor, ...]) -> Tensor:
        """Return `K^T y`."""
        ...


class Convolution(nn.Module):
    """`K` a 3x3 convolution with zero padding; `K^T` the transposed one with the same weights."""

    def __init__(self, channels: int, style: Style) -> None:
        super().__init__()
        self.hidden = channels
        self.kernel = Kernel(channels, channels, 3, style)

    def kernels(self) -> tuple[Tensor, ...]:
        """Return the quantized kernel."""
        return (self.kernel(),)

    def apply_to(self, x: Tensor, kernels: tuple[Tensor, ...]) -> Tensor:
        """Return `K x`, of the shape of `x`, (n, channels, height, width)."""
        return F.conv2d(x, kernels[0], padding=1)

    def transpose(self, y: Tensor, kernels: tuple[Tensor, ...]) -> Tensor:
        """Return `K^T y`, of the shape of `y`."""
        return F.conv_transpose2d(y, kernels[0], padding=1)


class ExpandedConvolution(nn.Module):
    """`K = K2 K1`: a 1x1 expansion, then a depthwise 3x3 convolution with zero padding."""

    def __init__(self, channels: int, hidden: int, style: Style) -> None:
        super().__init__()
        self.hidden = hidden
        self.expand = Kernel(hidden, channels, 1, style)
        self.depthwise = Kernel(hidden, hidden, 3, style, depthwise=True)

    def kernels(self) -> tuple[Tensor, ...]:
        """Return both quantized kernels."""
        return self.expand(), self.depthwise()

    def apply_to(self, x: Tensor, kernels: tuple[Tensor, ...]) -> Tensor:
        """Return `K x`, shape (n, hidden, height, width)."""
        expand, depthwise = kernels
        return F.conv2d(F.conv2d(x, expand), depthwise, padding=1, groups=self.hidden)

    def transpose(self, y: Tensor, kernels: tuple[Tensor, ...]) -> Tensor:
        """Return `K^T y`, shape (n, channels, height, width)."""
        expand, depthwise = kernels
        # Turned by 180 degrees it is an ordinary depthwise convolution, which has fast kernels.
        y = F.conv2d(y, depthwise.flip(2, 3), padding=1, groups=self.hidden)
        return F.conv2d(y, expand.transpose(0, 1))


class GlobalAverage(nn.Module):
    """Mean over all positions: (n, channels, height, width) to (n, channels)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the means."""
        return x.mean(dim=(2, 3))


class Stem(nn.Module):
    """First convolution, 3x3 of stride 1 and never quantized, with normalisation and ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(self.convolution.weight, mode="fan_out")
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Return feature maps of the size of the images."""
        return F.relu(self.norm(self.convolution(images)))
