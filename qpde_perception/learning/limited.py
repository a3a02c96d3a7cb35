"""A symmetric block that steps just as far as a bound on its gain allows."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from qpde_perception.learning.layers import PositiveBatchNorm, Requantization
from qpde_perception.learning.quantizers import ActivationQuantizer, WeightQuantizer
from qpde_perception.learning.symmetric import Kernels, SymmetricBlock

TINY = 1e-30
"""What a norm is at least that something is divided by."""


class StepLimit(NamedTuple):
    """How far a symmetric block steps.

    Attributes:
        size: Height and width of its input.
        gain: Largest factor, at least one, by which it may move two inputs apart in its own norm.
        by_channel: Whether hidden channels are scaled down first that add more to the curvature
            than others.
    """

    size: int
    gain: float = 1.0
    by_channel: bool = False


class LimitedBatchNorm(PositiveBatchNorm):
    """A normalisation by which no channel is blown up because it varies little.

    The mean of every channel is taken off. What is left is divided by one deviation for all of
    them, or by none: then the scale alone says how large it becomes.

    Attributes:
        limit: Factors on the scale that the block sets: one for all channels, or one for each; None
            where it sets none.
        applied: Slope that the last batch was multiplied with, shape (channels,).
    """

    def __init__(self, channels: int, *, limit: Tensor | None, divides: bool) -> None:
        super().__init__(channels)
        self.register_buffer("limit", limit)
        self.limit: Tensor | None
        self.divides = divides
        self.applied = self.variance

    @property
    def scale(self) -> Tensor:
        """The scale within its limit, shape (channels,)."""
        scale = self.log_scale.exp()
        return scale if self.limit is None else scale * self.limit

    def limit_to(self, factors: Tensor) -> None:
        """Set the factors on the scale, where there are any."""
        if self.limit is not None:
            self.limit.copy_(factors)

    @property
    def unlimited_slope(self) -> Tensor:
        """The slope without the limit."""
        return self.log_scale.exp() / (self.variance + self.epsilon).sqrt()

    def forward(self, x: Tensor, requantization: Requantization | None = None) -> Tensor:
        """Normalise `x`, shape (n, channels, height, width); see `PositiveBatchNorm.forward`."""
        learns = self.training and not self.frozen
        if requantization is not None and not learns:
            slope, offset = self.deployed(requantization)
        else:
            mean, variance = self._statistics(x) if learns else (self.mean, self.variance)
            slope = self.scale * torch.rsqrt(variance + self.epsilon)
            offset = self.shift - mean * slope
        self.applied = slope
        return x * slope[:, None, None] + offset[:, None, None]

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return those of the batch, each of shape (channels,), and learn of them."""
        variance, mean = torch.var_mean(x.to(self.mean.dtype), dim=(0, 2, 3), correction=0)
        self.mean.lerp_(mean.detach(), self.momentum)
        if not self.divides:
            return mean, self.variance
        variance = variance.mean().expand_as(variance)
        self.variance.lerp_(variance.detach(), self.momentum)
        return mean, variance


class LimitedBlock(SymmetricBlock):
    """A symmetric block whose curvature is made `1 + g`, `g` being the gain that it may have.

    A factor on all of `D2` does so, and the gradient knows how it depends on kernels and scales: if
    it did not, scales would run away that change nothing but the factor. The curvature is that on a
    torus larger by one, which bounds the one with zeros around the map. There `K2` is diagonal at
    every frequency, and one step of power iteration per training step follows the largest singular
    vector at each of them: following the largest of all would miss when another frequency has it.

    So that no few hidden channels use up the curvature of all, they are divided by one deviation,
    where a normalisation of each would make `D1` large for those that vary little. Besides, `D1`
    may be chosen by channel: with `r_i` the sum of row `i` of `|K2 K1 D2 K1^T K2^T| D1`, the
    largest of all frequencies, at each of which the depthwise `K2` is diagonal, channel `i` is
    scaled down by `min(1, mean(r) / r_i)`. Then the curvature is at most `mean(r)`:
    `mean(r) D1^-1 - K D2 K^T` is diagonally dominant, with the unscaled `D1` as its free weights
    (Araujo, Havens, Delattre, Allauzen, Hu, ICLR 2023, arXiv 2303.03169). It is the mean, and no
    number, because the factor on `D2` undoes one on all of `D1`.

    Attributes:
        limit: How far it steps.
        direction: Sum over all frequencies of what `D1^(1/2) K2 K1 D2^(1/2)` amplifies most at
            each, of any norm, shape (1, channels, size + 1, size + 1).
    """

    MARGIN = 0.98
    """Share of the curvature that is used: power iteration comes from below, slopes are rounded."""

    SETTLING_ITERATIONS = 100
    """Power iterations for the weights and statistics as they are."""

    inner_norm: LimitedBatchNorm
    outer_norm: LimitedBatchNorm

    def __init__(
        self,
        channels: int,
        expansion: int,
        trunk: ActivationQuantizer,
        *,
        limit: StepLimit,
        weight_bits: int,
        activation_bits: int,
    ) -> None:
        super().__init__(
            channels, expansion, trunk, weight_bits=weight_bits, activation_bits=activation_bits
        )
        self.limit = limit
        hidden, factor = channels * expansion, torch.ones(())
        levels = torch.ones(hidden) if limit.by_channel else None
        self.inner_norm = LimitedBatchNorm(hidden, limit=levels, divides=True)
        self.outer_norm = LimitedBatchNorm(channels, limit=factor, divides=False)
        torus = limit.size + 1
        self.register_buffer("direction", torch.randn(1, channels, torus, torus))
        self.direction: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Take one step of limited length from `x`, shape (n, channels, height, width)."""
        kernels = self.kernels(WeightQuantizer.__call__)
        if self.training and self.limit.by_channel:
            self._level_channels(kernels)
        return self.step(x, kernels)

    def limited(self, branch: Tensor, kernels: Kernels) -> Tensor:
        """Limit the outer scale in training, and let the gradient of `branch` know how."""
        if not self.training:
            return branch
        limit = self._limit_step(kernels, self.inner_norm.applied)
        return branch * (limit / limit.detach())

    @torch.no_grad()
    def settle(self) -> None:
        """Bring the limits up to the weights and statistics as they are deployed."""
        kernels = self.kernels(WeightQuantizer.__call__)
        if self.limit.by_channel:
            self._level_channels(kernels)
        for _ in range(self.SETTLING_ITERATIONS):
            self._limit_step(kernels, self.inner_norm.slope)

    def _limit_step(self, kernels: Kernels, slope: Tensor) -> Tensor:
        """Take a step of power iteration; set and return the factor on all of `D2`.

        Where `direction` has converged, so has the factor's gradient: that of a singular value has
        no part by its vectors.
        """
        with torch.autocast(slope.device.type, enabled=False):
            before = torch.fft.rfft2(self.direction[0])
            root = self.outer_norm.unlimited_slope.sqrt()
            operator = (kernels.expand[:, :, 0, 0] * root).to(before.dtype)
            weights = self._spectrum(kernels).square() * slope[:, None, None]
            inner = torch.tensordot(operator, before, dims=1) * weights
            after = torch.tensordot(operator.T, inner, dims=1)
            amplified = torch.linalg.vector_norm(after, dim=0)
            gains = amplified / torch.linalg.vector_norm(before, dim=0).clamp_min(TINY)
            limit: Tensor = self.MARGIN * (1.0 + self.limit.gain) / gains.max()
        directions = after.detach() / amplified.detach().clamp_min(TINY)
        self.direction.copy_(torch.fft.irfft2(directions, s=self.direction.shape[-2:]))
        self.outer_norm.limit_to(limit.detach())
        return limit

    def _spectrum(self, kernels: Kernels) -> Tensor:
        """Return the magnitude of `K2` on the torus, shape (hidden, frequencies, frequencies)."""
        torus = self.direction.shape[-2:]
        spectrum: Tensor = torch.fft.rfft2(kernels.depthwise[:, 0], s=torus).abs()
        return spectrum

    @torch.no_grad()
    def _level_channels(self, kernels: Kernels) -> None:
        """Limit the inner scale of every channel whose row sum is above the mean."""
        inner, flat = self.inner_norm, kernels.expand[:, :, 0, 0]
        coupling = ((flat * self.outer_norm.unlimited_slope) @ flat.T).abs()
        spectrum = self._spectrum(kernels).flatten(1)
        rows = spectrum * (coupling @ (spectrum * inner.unlimited_slope[:, None]))
        largest = rows.amax(1)
        inner.limit_to((largest.mean() / largest).clamp(max=1.0))
