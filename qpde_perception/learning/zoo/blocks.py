"""Residual blocks: two kernels, one kernel as published, one kernel with a certificate.

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

SETTLING_ITERATIONS = 100
"""Power iterations when a block leaves training."""

NORM_MARGIN = 1.02
"""Factor on `||K||^2`, which power iteration meets from below: within 1 % after settling."""


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


class CertifiedBlock(Block):
    """`x - h K^T sigma(K x + b)`, one gradient step that moves no two inputs apart.

    `K = D K0` with `D` the slope of the batch normalisation behind `K0`, folded in before the
    transpose is taken, and `h = min(step, 2 / ||K||^2)`. The norm is followed by one power
    iteration at the size of the real feature maps in each training step, with the slope of the
    batch, and settled with the deployed slope when the block leaves training.

    Attributes:
        scale: Scale of the normalisation, shape (hidden,).
        shift: Shape (hidden,).
        direction: The input that `K` amplifies most, of norm one, shape (1, inputs, size, size).
        norm_squared: `||K||^2`, estimated from below.
    """

    MOMENTUM = 0.1
    EPSILON = 1e-5

    def __init__(
        self, place: Place, operator: Operator, style: Style, *, step: float, rectified: bool
    ) -> None:
        super().__init__()
        check_growth(place)
        self.place, self.step, self.rectified = place, step, rectified
        self.operator = operator
        self.incoming = style.activations(signed=not rectified)
        self.inner = style.activations()
        self.outer_smoothing = style.smoother("outer", place.stage)
        self.scale = nn.Parameter(torch.ones(operator.hidden))
        self.shift = nn.Parameter(torch.zeros(operator.hidden))
        self.register_buffer("mean", torch.zeros(operator.hidden))
        self.register_buffer("variance", torch.ones(operator.hidden))
        direction = torch.randn(1, place.inputs, place.size, place.size)
        self.register_buffer("direction", direction / direction.norm())
        self.register_buffer("norm_squared", torch.ones(()))
        self.mean: Tensor
        self.variance: Tensor
        self.direction: Tensor
        self.norm_squared: Tensor

    @property
    def h(self) -> Tensor:
        """The step: `min(step, 2 / ||K||^2)`."""
        return (2.0 / NORM_MARGIN / self.norm_squared).clamp_max(self.step)

    def train(self, mode: bool = True) -> CertifiedBlock:
        """Enter training, or leave it and settle the norm."""
        leaves = self.training and not mode
        super().train(mode)
        if leaves:
            self.settle()
        return self

    @torch.no_grad()
    def settle(self) -> None:
        """Bring the norm up to the weights and statistics as they are."""
        slope = self.scale * torch.rsqrt(self.variance + self.EPSILON)
        kernels = self.operator.kernels()
        for _ in range(SETTLING_ITERATIONS):
            self._follow_norm(kernels, slope)

    def forward(self, x: Tensor) -> Tensor:
        """Take one step from `x`, shape (n, inputs, size, size)."""
        if x.shape[-2:] != self.direction.shape[-2:]:
            msg = f"the block is certified for maps of {self.place.size} pixels, not {x.shape[-2:]}"
            raise LearningError(msg)
        x = self.incoming(x)
        kernels = self.operator.kernels()
        z = self.operator.apply_to(x, kernels).to(self.scale.dtype)
        mean, variance = self._statistics(z)
        slope = self.scale * torch.rsqrt(variance + self.EPSILON)
        if self.training:
            self._follow_norm(kernels, slope)
        offset = self.shift - mean * slope
        y = F.relu(torch.addcmul(offset[:, None, None], z, slope[:, None, None]))
        y = self.inner(y) * (slope * self.h)[:, None, None]
        after = x - self.operator.transpose(y, kernels)
        after = self.outer_smoothing(F.relu(after) if self.rectified else after)
        return append_and_pool(after, x, self.place)

    def _statistics(self, z: Tensor) -> tuple[Tensor, Tensor]:
        if not self.training:
            return self.mean, self.variance
        variance, mean = torch.var_mean(z, dim=(0, 2, 3), correction=0)
        self.mean.lerp_(mean.detach(), self.MOMENTUM)
        self.variance.lerp_(variance.detach(), self.MOMENTUM)
        return mean, variance

    @torch.no_grad()
    def _follow_norm(self, kernels: tuple[Tensor, ...], slope: Tensor) -> None:
        with torch.autocast(slope.device.type, enabled=False):
            squared = (slope * slope)[:, None, None]
            image = self.operator.apply_to(self.direction, kernels) * squared
            image = self.operator.transpose(image, kernels)
        # The norm of K^T K v is nearer to ||K||^2 than the square of that of K v.
        norm = torch.linalg.vector_norm(image).clamp_min(1e-12)
        self.norm_squared.copy_(norm)
        self.direction.copy_(image / norm)
