"""Blocks that are one gradient step of a convex function: they move no two inputs apart.

`g(x) = x - h K^T sigma(K x + b)` with `h <= 2 / ||K||^2` is non-expansive for every monotone sigma
of slope at most one (convex potential layers: Meunier, Delattre, Araujo, Allauzen, ICML 2022).
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (the field's name)

from qpde_perception.learning.errors import LearningError
from qpde_perception.learning.zoo.blocks import Block, Place, append_and_pool, check_growth

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from qpde_perception.learning.zoo.layers import Operator, Style

    Gram = Callable[[Tensor], Tensor]

SETTLING_ITERATIONS = 100
"""Power iterations when a block leaves training."""

NORM_MARGIN = 1.02
"""Factor on `||K||^2`, which power iteration meets from below: within 1 % after settling."""


class SpectralNorm(nn.Module):
    """`||K||^2` of an operator that changes slowly, followed by power iteration.

    Attributes:
        direction: The input that `K` amplifies most, of norm one.
        squared: `||K||^2`, estimated from below.
    """

    def __init__(self, *shape: int) -> None:
        super().__init__()
        direction = torch.randn(shape)
        self.register_buffer("direction", direction / direction.norm())
        self.register_buffer("squared", torch.ones(()))
        self.direction: Tensor
        self.squared: Tensor

    @torch.no_grad()
    def follow(self, gram: Gram, iterations: int = 1) -> None:
        """Take some iterations with `gram`, which returns `K^T K v`, in full precision."""
        with _full_precision(self.squared.device):
            for _ in range(iterations):
                image = gram(self.direction)
                # ||K^T K v|| is nearer to ||K||^2 than ||K v||^2, and not above it either.
                torch.linalg.vector_norm(image, out=self.squared)
                torch.div(image, self.squared.clamp_min(1e-12), out=self.direction)


def _full_precision(device: torch.device) -> AbstractContextManager[object]:
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


class GradientStep(Block):
    """A block with the norm of its operator.

    Attributes:
        norm: Followed by one iteration in each training step, with the kernels and statistics of
            that step, and settled with the deployed ones when the block leaves training.
        step: Largest `h`.
    """

    def __init__(self, norm: SpectralNorm, step: float) -> None:
        super().__init__()
        self.norm = norm
        self.step = step

    def gram(self) -> Gram:
        """Return `K^T K` as deployed."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> GradientStep:
        """Enter training, or leave it and settle the norm."""
        leaves = self.training and not mode
        super().train(mode)
        if leaves:
            self.settle()
        return self

    @torch.no_grad()
    def settle(self) -> None:
        """Bring the norm up to the weights and statistics as they are."""
        self.norm.follow(self.gram(), SETTLING_ITERATIONS)

    def limited_step(self, factor: float = 1.0) -> Tensor:
        """Return `h = min(step, 2 / (factor ||K||^2))`, a scalar."""
        norm_squared = self.norm.squared * (NORM_MARGIN * factor + 1e-12)
        return (2.0 / norm_squared).clamp_max(self.step)


class CertifiedBlock(GradientStep):
    """`x - h K^T sigma(K x + b)` on images; then ReLU, if any.

    `K = D K0` with `D` the slope of the batch normalisation behind `K0`, folded in before the
    transpose is taken. Its norm is that at the size of the real feature maps.

    Attributes:
        scale: Scale of the normalisation, shape (hidden,).
        shift: Shape (hidden,).
    """

    MOMENTUM = 0.1
    EPSILON = 1e-5

    def __init__(
        self, place: Place, operator: Operator, style: Style, *, step: float, rectified: bool
    ) -> None:
        super().__init__(SpectralNorm(1, place.inputs, place.size, place.size), step)
        check_growth(place)
        self.place, self.rectified = place, rectified
        self.operator = operator
        self.incoming = style.activations(signed=not rectified)
        self.inner = style.activations()
        self.outer_smoothing = style.smoother("outer", place.stage)
        self.scale = nn.Parameter(torch.ones(operator.hidden))
        self.shift = nn.Parameter(torch.zeros(operator.hidden))
        self.register_buffer("mean", torch.zeros(operator.hidden))
        self.register_buffer("variance", torch.ones(operator.hidden))
        self.mean: Tensor
        self.variance: Tensor

    def gram(self) -> Gram:
        """Return `K^T K` with the statistics that are deployed."""
        return self._gram(self.operator.kernels(), self._slope(self.variance))

    def forward(self, x: Tensor) -> Tensor:
        """Take one step from `x`, shape (n, inputs, size, size)."""
        if x.shape[-2] != self.place.size or x.shape[-1] != self.place.size:
            size = tuple(x.shape[-2:])
            msg = f"the block is certified for maps of {self.place.size} pixels, not {size}"
            raise LearningError(msg)
        x = self.incoming(x)
        kernels = self.operator.kernels()
        z = self.operator.apply_to(x, kernels).to(self.scale.dtype)
        mean, variance = self._statistics(z)
        slope = self._slope(variance)
        if self.training:
            self.norm.follow(self._gram(kernels, slope))
        offset = self.shift - mean * slope
        y = F.relu(torch.addcmul(offset[:, None, None], z, slope[:, None, None]))
        y = self.inner(y) * (slope * self.limited_step())[:, None, None]
        after = x - self.operator.transpose(y, kernels)
        after = self.outer_smoothing(F.relu(after) if self.rectified else after)
        return append_and_pool(after, x, self.place)

    def _slope(self, variance: Tensor) -> Tensor:
        return self.scale * torch.rsqrt(variance + self.EPSILON)

    def _gram(self, kernels: tuple[Tensor, ...], slope: Tensor) -> Gram:
        squares = (slope * slope)[:, None, None]

        def gram(v: Tensor) -> Tensor:
            return self.operator.transpose(self.operator.apply_to(v, kernels) * squares, kernels)

        return gram

    def _statistics(self, z: Tensor) -> tuple[Tensor, Tensor]:
        if not self.training:
            return self.mean, self.variance
        variance, mean = torch.var_mean(z, dim=(0, 2, 3), correction=0)
        self.mean.lerp_(mean.detach(), self.MOMENTUM)
        self.variance.lerp_(variance.detach(), self.MOMENTUM)
        return mean, variance
