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

STEP = 0.3
"""Deviation, at first, of what a block adds to the trunk, which has one of about one."""


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
        weight_bits: int,
        activation_bits: int,
    ) -> None:
        super().__init__()
        hidden = channels * expansion
        self.expand = nn.Parameter(torch.empty(hidden, channels, 1, 1))
        self.depthwise = nn.Parameter(torch.empty(hidden, 1, 3, 3))
        nn.init.normal_(self.expand)
        nn.init.normal_(self.depthwise)
        self.expand_quantizer = WeightQuantizer(weight_bits)
        self.depthwise_quantizer = WeightQuantizer(max(weight_bits, 8))
        self.inner_norm = PositiveBatchNorm(hidden)
        self.outer_norm = PositiveBatchNorm(channels, scale=STEP)
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
        branch = self.limited(F.conv2d(self.returned(returned), kernels.project), kernels)
        steps = Requantization.between(self.returned.scale, project, self.trunk)
        return add_on_grid(x, -self.outer_norm(branch, steps), self.trunk)

    def limited(self, branch: Tensor, kernels: Kernels) -> Tensor:  # noqa: ARG002
        """Return `branch`; a block that limits its step does so here."""
        return branch


class SymmetricBlock(ResidualStep):
    """`x - D2 K1^T K2^T sigma(D1 K2 K1 x + b1) + b2`: one pair of kernels serves both ways.

    The transposed depthwise convolution is written as an ordinary one with the kernel turned by 180
    degrees.

    With `||.||` the largest singular value for the real size of the feature map, the block does not
    expand any difference in the norm weighted by `D2^-1` as long as its curvature
    `|| D1^(1/2) K2 K1 D2^(1/2) ||^2` is at most 2, and expands it at most `g` times for a curvature
    of `1 + g` (PAPER: section 6).
    """

    way_back = ("depthwise_t", "expand_t")

    @property
    def back_quantizers(self) -> tuple[WeightQuantizer, WeightQuantizer]:
        """Those of the first two kernels, in reverse."""
        return self.depthwise_quantizer, self.expand_quantizer

    def kernels(self, of: Callable[[WeightQuantizer, Tensor], Tensor]) -> Kernels:
        """Return of both kernels what `of` makes of them, and its transposes."""
        expand = of(self.expand_quantizer, self.expand)
        depthwise = of(self.depthwise_quantizer, self.depthwise)
        return Kernels(expand, depthwise, depthwise.flip(2, 3), expand.transpose(0, 1))
