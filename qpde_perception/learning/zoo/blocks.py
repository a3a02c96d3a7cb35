"""Residual blocks as published: two kernels, or one that serves both ways.

A block quantizes its input, so that the identity path carries what the branch was computed from,
and gives back the sum unquantized: the next block's quantizer, or the head, takes it from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (the field's name)

from qpde_perception.learning.errors import LearningError
from qpde_perception.learning.zoo.layers import Kernel, Style

if TYPE_CHECKING:
    from qpde_perception.learning.zoo.layers import Operator


@dataclass(frozen=True, slots=True)
class Place:
    """Where a block stands in its network.

    Attributes:
        stage: Index of its stage.
        inputs: Channels that it gets.
        outputs: Channels that it gives.
        halves: Whether it halves the resolution.
        size: Height and width of its input, pixels.
    """

    stage: int
    inputs: int
    outputs: int
    halves: bool
    size: int


class Block(nn.Module):
    """What `block_outputs` shows, one entry each."""


def append_and_pool(after: Tensor, before: Tensor, place: Place) -> Tensor:
    """Append copies of the first channels that the block got, then halve the resolution.

    `concat(x_{j+1}, x_j[:k])`, and 2x2 average pooling where the stage ends.
    """
    extra = place.outputs - place.inputs
    if extra > 0:
        after = torch.cat([after, before[:, :extra].to(after.dtype)], dim=1)
    return F.avg_pool2d(after, 2) if place.halves else after


def check_growth(place: Place) -> None:
    """Refuse a block that has too few channels to append, or would lose some.

    Raises:
        LearningError: If it is so.
    """
    if not place.inputs <= place.outputs <= 2 * place.inputs:
        msg = (
            f"a stage keeps or at most doubles the channels, not {place.inputs} -> {place.outputs}"
        )
        raise LearningError(msg)


class TwoKernelBlock(Block):
    """`relu(x + sign K2 sigma(K1 x))`, a batch normalisation behind each kernel.

    With `strided`, `K1` does the stride and a 1x1 convolution with normalisation is the shortcut
    wherever the shape changes; otherwise both kernels keep the shape, and the block appends and
    pools.
    """

    def __init__(self, place: Place, style: Style, *, sign: float, strided: bool) -> None:
        super().__init__()
        self.place, self.sign, self.strided = place, sign, strided
        self.stride = 2 if strided and place.halves else 1
        hidden = place.outputs if strided else place.inputs
        self.incoming = style.activations()
        self.first = Kernel(hidden, place.inputs, 3, style)
        self.first_norm = nn.BatchNorm2d(hidden)
        self.inner_smoothing = style.smoother("inner", place.stage)
        self.inner = style.activations()
        self.second = Kernel(hidden, hidden, 3, style)
        self.second_norm = nn.BatchNorm2d(hidden)
        self.outer_smoothing = style.smoother("outer", place.stage)
        self.shortcut: Kernel | None = None
        if not strided:
            check_growth(place)
        elif place.inputs != place.outputs or place.halves:
            self.shortcut = Kernel(place.outputs, place.inputs, 1, style)
            self.shortcut_norm = nn.BatchNorm2d(place.outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Take one step from `x`, shape (n, inputs, height, width)."""
        x = self.incoming(x)
        y = F.conv2d(x, self.first(), stride=self.stride, padding=1)
        y = self.inner(self.inner_smoothing(F.relu(self.first_norm(y))))
        y = self.second_norm(F.conv2d(y, self.second(), padding=1))
        identity = x
        if self.shortcut is not None:
            identity = self.shortcut_norm(F.conv2d(x, self.shortcut(), stride=self.stride))
        after = self.outer_smoothing(F.relu(torch.add(identity, y, alpha=self.sign)))
        return after if self.strided else append_and_pool(after, x, self.place)


class SymmetricBlock(Block):
    """`x - h N2 K^T sigma(N1 K x)` as published, `N` batch normalisations; then ReLU, if any."""

    def __init__(
        self, place: Place, operator: Operator, style: Style, *, step: float, rectified: bool
    ) -> None:
        super().__init__()
        check_growth(place)
        self.place, self.step, self.rectified = place, step, rectified
        self.operator = operator
        self.incoming = style.activations()
        self.first_norm = nn.BatchNorm2d(operator.hidden)
        self.inner_smoothing = style.smoother("inner", place.stage)
        self.inner = style.activations()
        self.second_norm = nn.BatchNorm2d(place.inputs)
        self.outer_smoothing = style.smoother("outer", place.stage)

    def forward(self, x: Tensor) -> Tensor:
        """Take one step from `x`, shape (n, inputs, height, width)."""
        x = self.incoming(x)
        kernels = self.operator.kernels()
        y = F.relu(self.first_norm(self.operator.apply_to(x, kernels)))
        y = self.inner(self.inner_smoothing(y))
        y = self.second_norm(self.operator.transpose(y, kernels))
        after = torch.add(x, y, alpha=-self.step)
        after = self.outer_smoothing(F.relu(after) if self.rectified else after)
        return append_and_pool(after, x, self.place)
