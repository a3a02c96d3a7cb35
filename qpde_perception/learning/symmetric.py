"""Blocks of the deployable networks that are steps; a symmetric one is `x - K^T sigma(K x)`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (the field's name)

from qpde_perception.learning.layers import PositiveBatchNorm, Requantization, add_on_grid
from qpde_perception.learning.quantizers import (
    ActivationQuantizer,
    WeightQuantizer,
)

if TYPE_CHECKING:
    from collections.abc import Callable


class StepLimit(NamedTuple):
    """How a symmetric block is kept from stepping too far.

    Attributes:
        size: Height and width of its input.
        gain: Largest factor, at least one, by which it may move two inputs apart in its own norm.
        by_channel: Whether hidden channels are scaled down first that add more to the curvature
            than others.
    """

    size: int
    gain: float = 1.0
    by_channel: bool = False


class Kernels(NamedTuple):
    """The kernels of a block's four convolutions, in order of execution.

    Attributes:
        expand: 1x1, shape (hidden, channels, 1, 1).
        depthwise: Shape (hidden, 1, 3, 3).
        depthwise_back: Shape (hidden, 1, 3, 3).
        project: 1x1, shape (channels, hidden, 1, 1).
    """

    expand: Tensor
    depthwise: Tensor
    depthwise_back: Tensor
    project: Tensor


class ResidualStep(nn.Module):
    """`x - D2 K4 K3 sigma(D1 K2 K1 x + b1) + b2`: what kind of step it is, `K3` and `K4` decide.

    `K1` is a 1x1 expansion, `K2` and `K3` are depthwise 3x3, `K4` is a 1x1 projection; `D1`, `D2`
    are the positive scales of two batch normalisations. Every quantized tensor of the deployed
    block has a quantizer here.

    Attributes:
        way_back: Names of the third and the fourth convolution in the deployed network.
    """

    way_back: tuple[str, str]

    def __init__(
        self,
        channels: int,
        expansion: int,
        trunk: ActivationQuantizer,
        *,
        limit: StepLimit | None = None,
        weight_bits: int,
        activation_bits: int,
        step: float = 0.3,
    ) -> None:
        super().__init__()
        hidden = channels * expansion
        self.expand = nn.Parameter(torch.empty(hidden, channels, 1, 1))
        self.depthwise = nn.Parameter(torch.empty(hidden, 1, 3, 3))
        nn.init.normal_(self.expand)
        nn.init.normal_(self.depthwise)
        self.expand_quantizer = WeightQuantizer(weight_bits)
        self.depthwise_quantizer = WeightQuantizer(max(weight_bits, 8))
        inner = torch.ones(hidden) if limit is not None and limit.by_channel else None
        outer = torch.ones(()) if limit is not None else None
        self.inner_norm = PositiveBatchNorm(hidden, limit=inner)
        self.outer_norm = PositiveBatchNorm(channels, scale=step, limit=outer)
        self.expanded = ActivationQuantizer(activation_bits, signed=True)
        self.rectified = ActivationQuantizer(activation_bits, signed=False)
        self.returned = ActivationQuantizer(activation_bits, signed=True)
        self._trunk = [trunk]  # shared along the stage, and owned by it

    @property
    def trunk(self) -> ActivationQuantizer:
        """The quantizer of the stage's trunk."""
        return self._trunk[0]

    @property
    def back_quantizers(self) -> tuple[WeightQuantizer, WeightQuantizer]:
        """The quantizers of the third and the fourth kernel."""
        raise NotImplementedError

    def kernels(self, of: Callable[[WeightQuantizer, Tensor], Tensor]) -> Kernels:
        """Return of every kernel what `of` makes of its quantizer and its parameter."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Take one step from `x`, shape (n, channels, height, width)."""
        return self.step(x, self.kernels(WeightQuantizer.__call__))

    def step(self, x: Tensor, kernels: Kernels) -> Tensor:
        """Take one step with the given real kernels."""
        hidden = kernels.depthwise.shape[0]
        _, project = self.back_quantizers
        expanded = self.expanded(F.conv2d(x, kernels.expand))
        inner = F.conv2d(expanded, kernels.depthwise, padding=1, groups=hidden)
        steps = Requantization.between(
            self.expanded.scale, self.depthwise_quantizer, self.rectified
        )
        rectified = self.rectified(F.relu(self.inner_norm(inner, steps)))
        returned = F.conv2d(rectified, kernels.depthwise_back, padding=1, groups=hidden)
        branch = F.conv2d(self.returned(returned), kernels.project)
        steps = Requantization.between(self.returned.scale, project, self.trunk)
        return add_on_grid(x, -self.outer_norm(branch, steps), self.trunk)


class SymmetricBlock(ResidualStep):
    """`x - D2 K1^T K2^T sigma(D1 K2 K1 x + b1) + b2`: one pair of kernels serves both ways.

    The transposed depthwise convolution is written as an ordinary one with the kernel turned by 180
    degrees.

    With `||.||` the largest singular value for the real size of the feature map, the block does not
    expand any difference in the norm weighted by `D2^-1` as long as its curvature
    `|| D1^(1/2) K2 K1 D2^(1/2) ||^2` is at most 2, and expands it at most `g` times for a curvature
    of `1 + g` (PAPER: section 6). With a limit the block is scaled down in training where it would
    leave that range: one step of power iteration per training step follows the largest singular
    vector, and says how far all of `D2` is scaled down. It is that on a torus larger by one, which
    bounds the one with zeros around the map and can be computed exactly afterwards.

    A normalisation makes `D1` large for hidden channels that vary little, and a few of them can use
    up the curvature of all. So `D1` may be chosen by channel before: with `r_i` the sum of row `i`
    of `|K2 K1 D2 K1^T K2^T| D1`, the largest of all frequencies, at each of which the depthwise
    `K2` is diagonal, channel `i` is scaled down by `min(1, mean(r) / r_i)`. Then the curvature is
    at most `mean(r)`: `mean(r) D1^-1 - K D2 K^T` is diagonally dominant, with the unscaled `D1` as
    its free weights (Araujo, Havens, Delattre, Allauzen, Hu, ICLR 2023, arXiv 2303.03169). It is
    the mean, and no number, because the normalisation behind undoes a factor on all of `D1`.
    """

    MARGIN = 0.99
    """Share of the curvature that is used: power iteration comes from below."""

    way_back = ("depthwise_t", "expand_t")

    def __init__(
        self,
        channels: int,
        expansion: int,
        trunk: ActivationQuantizer,
        *,
        limit: StepLimit | None = None,
        weight_bits: int,
        activation_bits: int,
    ) -> None:
        torus = 1 if limit is None else limit.size + 1
        direction = None if limit is None else torch.randn(1, channels, torus, torus)
        super().__init__(
            channels,
            expansion,
            trunk,
            limit=limit,
            weight_bits=weight_bits,
            activation_bits=activation_bits,
        )
        self.limit = limit
        self.register_buffer("direction", direction)
        self.direction: Tensor | None

    @property
    def back_quantizers(self) -> tuple[WeightQuantizer, WeightQuantizer]:
        """Those of the first two kernels, in reverse."""
        return self.depthwise_quantizer, self.expand_quantizer

    def kernels(self, of: Callable[[WeightQuantizer, Tensor], Tensor]) -> Kernels:
        """Return of both kernels what `of` makes of them, and its transposes."""
        expand = of(self.expand_quantizer, self.expand)
        depthwise = of(self.depthwise_quantizer, self.depthwise)
        return Kernels(expand, depthwise, depthwise.flip(2, 3), expand.transpose(0, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Take one stable step from `x`, shape (n, channels, height, width)."""
        kernels = self.kernels(WeightQuantizer.__call__)
        if self.training and self.limit is not None and self.direction is not None:
            expand, depthwise = kernels.expand.detach(), kernels.depthwise.detach()
            if self.limit.by_channel:
                self._level_channels(self.limit.size + 1, expand, depthwise)
            self._limit_step(self.direction, self.limit.gain, expand, depthwise)
        return self.step(x, kernels)

    @torch.no_grad()
    def _limit_step(
        self, direction: Tensor, gain: float, expand: Tensor, depthwise: Tensor
    ) -> None:
        """Take a step of power iteration, and limit the outer scale by what it shows."""
        inner, outer = self.inner_norm, self.outer_norm
        root = outer.unlimited_slope.sqrt()[:, None, None]
        x = F.conv2d(direction / direction.norm() * root, expand)
        x = _on_torus(x, depthwise) * inner.slope[:, None, None]
        x = _on_torus(x, depthwise.flip(2, 3))
        x = F.conv2d(x, expand.transpose(0, 1)) * root
        direction.copy_(x)
        if outer.limit is not None:
            outer.limit.copy_((self.MARGIN * (1.0 + gain) / x.norm()).clamp(max=1.0))

    @torch.no_grad()
    def _level_channels(self, torus: int, expand: Tensor, depthwise: Tensor) -> None:
        """Limit the inner scale of every channel whose row sum is above the mean."""
        inner, flat = self.inner_norm, expand[:, :, 0, 0]
        coupling = ((flat * self.outer_norm.unlimited_slope) @ flat.T).abs()
        spectrum = torch.fft.rfft2(depthwise[:, 0], s=(torus, torus)).abs().flatten(1)
        rows = spectrum * (coupling @ (spectrum * inner.unlimited_slope[:, None]))
        largest = rows.amax(1)
        if inner.limit is not None:
            inner.limit.copy_((largest.mean() / largest).clamp(max=1.0))


def _on_torus(x: Tensor, depthwise: Tensor) -> Tensor:
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="circular"), depthwise, groups=len(depthwise))
