"""Total-variation smoothing of feature maps: one explicit step that never amplifies a difference.

`S(x) = x - gamma^2 (D_x + D_y) x` with `D_x x = d_x^T phi(d_x x)`, `d_x` the forward difference
with zero flux across the border. The flux `phi` is that of Huber's total variation,
`clip(d / delta, -1, 1)`, or of its square root form, `d / sqrt(d^2 + delta^2)`: differences below
`delta` are smoothed, edges pass at a bounded rate. The slope of both is at most `1/delta` and
`||d||^2 <= 8` for both directions, so `S` is non-expansive for `gamma^2 <= delta / 4`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch.nn.functional import pad

if TYPE_CHECKING:
    from torch import Tensor

Flux = Literal["huber", "sqrt"]


@dataclass(frozen=True, slots=True)
class SmoothingConfig:
    """Where and how strongly feature maps are smoothed.

    Attributes:
        stages: Indexes of the stages whose input is smoothed.
        delta: Difference up to which neighbours are smoothed, in units of the activations.
        rate: `gamma^2 / delta`; non-expansive up to 1/4, and the highest frequency vanishes at 1/8.
        iterations: Number of steps.
    """

    stages: tuple[int, ...] = (0, 1)
    delta: float = 0.5
    rate: float = 0.125
    iterations: int = 1


def bounded(difference: Tensor, delta: Tensor | float, flux: Flux = "huber") -> Tensor:
    """Return `delta * phi(d)`: the difference where it is small, about `delta` where it is large.

    Args:
        difference: Any shape.
        delta: Where an edge begins, in units of `difference`.
        flux: `huber` or `sqrt`.
    """
    if flux == "sqrt":
        return difference * torch.rsqrt(1.0 + (difference / delta) ** 2)
    limits: Any = {"min": -delta, "max": delta}
    return difference.clamp(**limits)


def flux_divergence(x: Tensor, delta: Tensor | float, flux: Flux = "huber") -> Tensor:
    """Return `delta * (D_x + D_y) x`, the sum of bounded differences to the four neighbours.

    Args:
        x: Feature maps, shape (n, channels, height, width).
        delta: Bound of a difference, in units of `x`.
        flux: `huber` or `sqrt`.

    Returns:
        The sum, of the shape of `x`; its mean over each map is zero.
    """
    down = bounded(x[..., 1:, :] - x[..., :-1, :], delta, flux)
    right = bounded(x[..., :, 1:] - x[..., :, :-1], delta, flux)
    down, right = pad(down, (0, 0, 1, 1)), pad(right, (1, 1, 0, 0))
    return (down[..., :-1, :] - down[..., 1:, :]) + (right[..., :, :-1] - right[..., :, 1:])


class TotalVariationStep(nn.Module):
    """Smooth feature maps by explicit steps; on the grid of a quantizer where one is given."""

    def __init__(self, config: SmoothingConfig) -> None:
        super().__init__()
        self.config = config

    def delta_codes(self, scale: Tensor) -> Tensor:
        """Return the clipping of a difference in integer steps of `scale`, at least one."""
        return torch.round(self.config.delta / scale.detach()).clamp_min(1.0)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """Smooth `x`.

        Args:
            x: Feature maps, shape (n, channels, height, width).
            scale: Step of the grid that `x` lies on; then `delta` is a whole number of steps, as in
                the deployed network. None before quantization.
        """
        delta = self.config.delta if scale is None else self.delta_codes(scale) * scale
        for _ in range(self.config.iterations):
            x = x - self.config.rate * flux_divergence(x, delta)
        return x
