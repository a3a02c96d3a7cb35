"""Total-variation smoothing as a setting of every network of the zoo."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torch import nn

from qpde_perception.learning.errors import LearningError
from qpde_perception.learning.total_variation import Flux, flux_divergence

if TYPE_CHECKING:
    from torch import Tensor

Site = Literal["inner", "outer"]


@dataclass(frozen=True, slots=True)
class SmoothingConfig:
    """Where and how strongly feature maps are smoothed: `x - gamma^2 (D_x + D_y) x`.

    Attributes:
        sites: `inner`, after the non-linearity inside of every block, and `outer`, on the output of
            every block; each before it is quantized.
        stages: Indexes of the stages that smooth; None for all.
        flux: `sqrt`, `d / sqrt(d^2 + eps)`, or that of Huber, `clip(d / sqrt(eps), -1, 1)`.
        gamma: Root of the step.
        eps: Square of the difference at which an edge begins, in squared units of the activations.
        iterations: Number of steps.
    """

    sites: tuple[Site, ...] = ("outer",)
    stages: tuple[int, ...] | None = None
    flux: Flux = "sqrt"
    gamma: float = 0.25
    eps: float = 0.25
    iterations: int = 1

    def __post_init__(self) -> None:
        if self.eps <= 0 or self.iterations < 1:
            msg = f"smoothing needs eps > 0 and iterations > 0, not {self.eps}, {self.iterations}"
            raise LearningError(msg)

    @property
    def delta(self) -> float:
        """Difference at which an edge begins, in units of the activations."""
        return math.sqrt(self.eps)

    @property
    def rate(self) -> float:
        """`gamma^2 / sqrt(eps)`: non-expansive up to 1/4 on a grid of pixels."""
        return self.gamma**2 / self.delta

    def smooths(self, site: Site, stage: int) -> bool:
        """Return whether the blocks of a stage smooth at a site."""
        return site in self.sites and (self.stages is None or stage in self.stages)


class Smoothing(nn.Module):
    """Explicit steps that lower the total variation of every feature map."""

    def __init__(self, config: SmoothingConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, x: Tensor) -> Tensor:
        """Smooth feature maps, shape (n, channels, height, width)."""
        config = self.config
        for _ in range(config.iterations):
            x = x - config.rate * flux_divergence(x, config.delta, config.flux)
        return x
