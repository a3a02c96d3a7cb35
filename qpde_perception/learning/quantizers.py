"""Uniform quantizers with learned clipping, trained with the network (PAPER: section 3).

Source: Ben-Yair, Ben Shalom, Eliasof, Treister, "Quantized convolutional neural networks through
the lens of partial differential equations", Research in the Mathematical Sciences 9:58 (2022).

The grid is the one that is deployed: symmetric signed integers, or unsigned ones after a ReLU, with
round half to even. Every step is a power of two: then sums of products, biases and requantization
are exact in float32 in whatever order an engine computes them, and all engines give the same bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable

WEIGHT_CLIP_START = 3.0
"""Initial clipping of normalised weights, in standard deviations."""

ACTIVATION_CLIP_START = 6.0
"""Initial clipping of activations, until `ActivationQuantizer.calibrate` has seen data."""


def round_straight_through(x: Tensor) -> Tensor:
    """Round half to even; the gradient passes as if nothing had happened."""
    return x + (torch.round(x) - x).detach()


def power_of_two(x: Tensor) -> Tensor:
    """Return the power of two nearest in ratio to `x > 0`; the gradient passes straight through."""
    return x + (torch.exp2(torch.round(torch.log2(x.detach()))) - x).detach()


def short_mantissa(x: Tensor, finest: Tensor) -> Tensor:
    """Round `x > 0` to seven bits, none finer than `finest`; the gradient passes straight through.

    A sum of products of up to 17 bits times such a factor is exact in float32.
    """
    exponent = torch.exp2(torch.floor(torch.log2(x.detach())))
    step = torch.maximum(exponent / 64.0, finest)
    return x + ((x.detach() / step).round().clamp_min(1.0) * step - x).detach()


class WeightQuantizer(nn.Module):
    """Normalise a weight tensor and quantize it to signed integers times one scale.

    `w_n = (w - mean(w)) / std(w)` over the whole tensor, with the gradient through mean and
    deviation; then `alpha * q(clip(w_n / alpha, -1, 1))` with `2^(bits-1) - 1` levels on either
    side.

    Attributes:
        bits: Bits of the integers, sign included.
        alpha: Learned clipping, in standard deviations of the weights, before the step is rounded.
        active: Whether the weights are rounded; otherwise only normalised.
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.alpha = nn.Parameter(torch.tensor(WEIGHT_CLIP_START))
        self.active = False

    @property
    def q_max(self) -> int:
        """Largest integer of the grid; the smallest is its negative."""
        return int(2 ** (self.bits - 1) - 1)

    def codes(self, weight: Tensor, scale: Tensor | None = None) -> Tensor:
        """Return the integers as floats, rounded straight through; `scale` is the quantizer's."""
        normalised = (weight - weight.mean()) / weight.std()
        steps = normalised / (self.scale if scale is None else scale)
        return round_straight_through(steps.clamp(-self.q_max, self.q_max))

    @property
    def scale(self) -> Tensor:
        """Value of one integer step: a power of two."""
        return power_of_two(self.alpha / self.q_max)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weights that the convolution uses, of the shape of `weight`."""
        if not self.active:
            return (weight - weight.mean()) / weight.std()
        scale = self.scale
        return self.codes(weight, scale) * scale


class ActivationQuantizer(nn.Module):
    """Quantize activations with one learned scale for the tensor.

    Attributes:
        bits: Bits of the integers.
        signed: Signed grid `[-2^(b-1), 2^(b-1) - 1]`; otherwise `[0, 2^b - 1]`.
        alpha: Learned clipping: the value of the largest integer, before the step is rounded.
        active: Whether values are rounded and clipped; otherwise they pass.
        rounding: `on_grid`, or a compiled form of it.
    """

    def __init__(self, bits: int, *, signed: bool) -> None:
        super().__init__()
        self.bits = bits
        self.signed = signed
        self.alpha = nn.Parameter(torch.tensor(ACTIVATION_CLIP_START))
        self.active = False
        self.rounding: Callable[[Tensor, Tensor, int, int], Tensor] = on_grid
        self._observed: list[Tensor] | None = None

    @property
    def q_max(self) -> int:
        """Largest integer of the grid."""
        return int(2 ** (self.bits - 1) - 1) if self.signed else int(2**self.bits - 1)

    @property
    def q_min(self) -> int:
        """Smallest integer of the grid."""
        return -int(2 ** (self.bits - 1)) if self.signed else 0

    @property
    def scale(self) -> Tensor:
        """Value of one integer step: a power of two."""
        return power_of_two(self.alpha / self.q_max)

    def observe(self) -> None:
        """Begin to note the range of what passes, for `calibrate`."""
        self._observed = []

    def calibrate(self) -> None:
        """Set the clipping to the largest of the ranges noted since `observe`."""
        if self._observed:
            self.alpha.data.fill_(float(torch.stack(self._observed).max()))
        self._observed = None

    def forward(self, x: Tensor) -> Tensor:
        """Return values on the grid, of the shape of `x`."""
        if self._observed is not None:
            self._observed.append(_range_of(x.detach()))
        if not self.active:
            return x
        return self.rounding(x, self.scale, self.q_min, self.q_max)


def on_grid(x: Tensor, scale: Tensor, q_min: int, q_max: int) -> Tensor:
    """Return `x` rounded to the grid of step `scale`, its codes within `q_min` and `q_max`."""
    return round_straight_through((x / scale).clamp(q_min, q_max)) * scale


def _range_of(x: Tensor) -> Tensor:
    """Return the magnitude that all but one value in ten thousand stay below."""
    magnitudes = x.abs().flatten()
    k = max(1, magnitudes.numel() // 10_000)
    return magnitudes.topk(k).values[-1]


def set_active(module: nn.Module, *, active: bool) -> None:
    """Turn the rounding of every quantizer inside `module` on or off."""
    for part in module.modules():
        if isinstance(part, WeightQuantizer | ActivationQuantizer):
            part.active = active
