"""Layers of the deployable networks: convolution and normalisation on a grid, and the head."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (the field's name)

from qpde_perception.learning.quantizers import (
    ActivationQuantizer,
    WeightQuantizer,
    round_straight_through,
    short_mantissa,
)


class Requantization(NamedTuple):
    """The powers of two between a sum of products and the codes that it becomes.

    Attributes:
        accumulator: Value of one step of the sum: input scale times weight scale.
        target: Value of one step of the output's grid.
    """

    accumulator: Tensor
    target: Tensor

    @property
    def finest(self) -> Tensor:
        """Smallest part of a slope: with it a code has 16 bits behind the point.

        Eight bits before the point make 24, all that float32 holds: so that also an engine that
        adds a zero point before it rounds decides every near tie alike.
        """
        return self.target / self.accumulator * 2.0**-16

    @classmethod
    def between(
        cls, scale: Tensor, weights: WeightQuantizer, target: ActivationQuantizer
    ) -> Requantization | None:
        """Return the steps of one layer; None before quantization."""
        if not weights.active:
            return None
        return cls((scale * weights.scale).detach(), target.scale.detach())


class PositiveBatchNorm(nn.Module):
    """Batch normalisation whose scale is positive.

    A positive scale commutes with ReLU, so the two normalisations of a symmetric block are positive
    diagonals beside `K` and `K^T`, and the block stays a gradient step in a weighted norm.

    Attributes:
        log_scale: Logarithm of the scale, shape (channels,).
        shift: Shape (channels,).
    """

    def __init__(self, channels: int, *, scale: float = 1.0) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.full((channels,), float(scale)).log())
        self.shift = nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))
        self.mean: Tensor
        self.variance: Tensor
        self.momentum = 0.1
        self.epsilon = 1e-5
        self.frozen = False

    @property
    def scale(self) -> Tensor:
        """What the normalised values are multiplied with, shape (channels,)."""
        return self.log_scale.exp()

    @property
    def slope(self) -> Tensor:
        """What a sum is multiplied with outside of training, shape (channels,)."""
        return self.scale / (self.variance + self.epsilon).sqrt()

    def deployed(self, requantization: Requantization) -> tuple[Tensor, Tensor]:
        """Return slope and offset as the integers have them, each of shape (channels,)."""
        slope = short_mantissa(self.slope, requantization.finest)
        offset = self.shift - self.mean * slope
        step = requantization.accumulator * slope
        return slope, round_straight_through(offset / step) * step

    def forward(self, x: Tensor, requantization: Requantization | None = None) -> Tensor:
        """Normalise `x`, shape (n, channels, height, width).

        Args:
            x: Sums of products.
            requantization: The grids before and after; then, outside of training or once frozen,
                the deployed slope and offset are applied.
        """
        if requantization is not None and (self.frozen or not self.training):
            slope, offset = self.deployed(requantization)
            return x * slope[:, None, None] + offset[:, None, None]
        return F.batch_norm(
            x,
            self.mean,
            self.variance,
            self.scale,
            self.shift,
            training=self.training and not self.frozen,
            momentum=self.momentum,
            eps=self.epsilon,
        )


class QuantizedConv(nn.Module):
    """Ordinary convolution with quantized weights, followed by batch normalisation."""

    def __init__(
        self, inputs: int, outputs: int, *, kernel: int, stride: int, bits: int, groups: int = 1
    ) -> None:
        super().__init__()
        self.stride, self.padding, self.groups = stride, kernel // 2, groups
        self.weight = nn.Parameter(torch.empty(outputs, inputs // groups, kernel, kernel))
        nn.init.kaiming_normal_(self.weight)
        self.weight_quantizer = WeightQuantizer(bits)
        self.norm = PositiveBatchNorm(outputs)

    def forward(self, x: Tensor, scale: Tensor, target: ActivationQuantizer) -> Tensor:
        """Convolve and normalise.

        Args:
            x: Shape (n, inputs, height, width).
            scale: Step of the grid that `x` lies on.
            target: Quantizer of the result.
        """
        total = F.conv2d(
            x,
            self.weight_quantizer(self.weight),
            stride=self.stride,
            padding=self.padding,
            groups=self.groups,
        )
        steps = Requantization.between(scale, self.weight_quantizer, target)
        return self.norm(total, steps)  # type: ignore[no-any-return]


def add_on_grid(x: Tensor, branch: Tensor, trunk: ActivationQuantizer) -> Tensor:
    """Add a branch to the trunk on the trunk's own grid.

    `x` lies on the grid already, so only the branch is rounded and the sum of integers is exact:
    the identity path of a quantized block loses nothing but what saturates.
    """
    rounded = trunk(branch) if trunk.active else branch
    return trunk(x + rounded)  # type: ignore[no-any-return]


class PooledHead(nn.Module):
    """Mean over all positions, then a dense layer with integer weights and float logits."""

    EXTRA_BITS = 2
    """Bits that the mean keeps beyond those of the tensor it is taken of."""

    def __init__(self, channels: int, classes: int, features: ActivationQuantizer) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, channels))
        self.bias = nn.Parameter(torch.zeros(classes))
        nn.init.normal_(self.weight, std=0.01)
        self._features = [features]

    def cool(self, temperature: float) -> None:
        """Divide the logits by a temperature, for good."""
        self.weight.data.div_(temperature)
        self.bias.data.div_(temperature)

    def weight_scale(self) -> Tensor:
        """Return the value of one integer step per class, powers of two, shape (classes, 1).

        Small enough for eight bits, and large enough for the sum of all products to be an integer
        that float32 holds, whatever the features are.
        """
        magnitudes = self.weight.detach().abs()
        largest = magnitudes.amax(dim=1, keepdim=True).clamp_min(1e-8)
        # Rounding takes half a step from, or adds it to, each weight.
        feature = self._features[0].q_max * 2**self.EXTRA_BITS
        room = 2.0**24 / feature - 0.5 * magnitudes.shape[1]
        total = magnitudes.sum(dim=1, keepdim=True)
        return torch.exp2(torch.ceil(torch.log2(torch.maximum(largest / 127.0, total / room))))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, shape (n, classes), of features (n, channels, height, width)."""
        pooled = x.mean(dim=(2, 3))
        features = self._features[0]
        if not features.active:
            return F.linear(pooled, self.weight, self.bias)
        step = features.scale.detach() / 2**self.EXTRA_BITS
        scale = self.weight_scale()
        weight = round_straight_through(self.weight / scale) * scale
        return F.linear(round_straight_through(pooled / step) * step, weight, self.bias)
