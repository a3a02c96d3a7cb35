"""Differentiable execution of a specification, in codes, with every quantizer in the open.

A *site* is where the deployed network quantizes. What happens there is the caller's choice, and
makes the same walk three networks: rounding and clipping give the integer reference, clipping alone
the *saturating* network, neither the float reference.

The certificate is about rounding: it compares the deployed network with the saturating one, the
same function without `round`. The float reference does not clip; where no value of a frame leaves
its grid the two are one, and elsewhere both are executed and their distance is reported, exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (the field's name)

from qpde_perception.compiling.sizes import pooled_step
from qpde_perception.compiling.specification import (
    PIXEL_ZERO,
    PIXELS,
    Add,
    Append,
    Conv,
    Head,
    Smooth,
    Specification,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

LOGITS = "logits"
HALF_STEP = 0.5 + 2.0**-14
"""Largest error of rounding, in codes: half, and what float32 adds to values below 2^10."""


@dataclass(frozen=True, slots=True)
class Site:
    """A place where the deployed network quantizes.

    Attributes:
        name: The tensor, or the head's layer for the mean over positions.
        low: Smallest code, or minus infinity where nothing is clipped.
        high: Largest code, or infinity.
        rounds: Whether values are rounded; a sum of codes is only clipped.
        rectifies: Whether the float reference applies ReLU here.
        step: Value of one code.
    """

    name: str
    low: float
    high: float
    rounds: bool
    rectifies: bool
    step: float


def deployed(site: Site, x: Tensor) -> Tensor:
    """Quantize as the integers do."""
    return saturating(site, torch.round(x) if site.rounds else x)


def saturating(site: Site, x: Tensor) -> Tensor:
    """Clip without rounding."""
    return x.clamp(site.low, site.high)


def disturbed(site: Site, x: Tensor, error: Tensor) -> Tensor:
    """Clip, and round by an error of at most half a step; beyond a limit the code is the limit."""
    inside = (x > site.low) & (x < site.high)
    return saturating(site, saturating(site, x) + torch.where(inside, error, 0.0))


def unquantized(site: Site, x: Tensor) -> Tensor:
    """Do what the float reference does: neither round nor clip, but ReLU where there is one."""
    return torch.relu(x) if site.rectifies else x


class Execution:
    """Executes one specification in torch, on codes of shape (n, channels, height, width).

    Attributes:
        specification: The network in integers.
        sites: Every quantizer, in order of execution.
    """

    def __init__(self, specification: Specification, dtype: torch.dtype = torch.float32) -> None:
        self.specification = specification
        self.dtype = dtype
        self.sites: dict[str, Site] = {}
        self._arrays: dict[str, Tensor] = {}
        for layer in specification.layers:
            if isinstance(layer, Append):
                continue
            site = _site(layer, specification)
            self.sites[site.name] = site
            if isinstance(layer, Conv | Head):
                self._prepare(layer)

    def _prepare(self, layer: Conv | Head) -> None:
        arrays, name = self.specification.arrays, layer.name
        weight, scale, bias = (arrays[f"{name}.{part}"] for part in ("weight", "scale", "bias"))
        if isinstance(layer, Conv):
            source = np.float32(self.specification.grid(layer.input).scale)
            target = np.float32(self.specification.grid(layer.output).scale)
            scale = source * scale / target
        for part, values in (("weight", weight), ("scale", scale), ("bias", bias)):
            self._arrays[f"{name}.{part}"] = torch.from_numpy(values).to(self.dtype)

    def array(self, name: str) -> Tensor:
        """Return weights, multipliers (from sums of products to codes) or biases of a layer."""
        return self._arrays[name]

    def codes(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Return the codes of pixels, uint8 (n, height, width, 3)."""
        values = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
        return values.to(self.dtype) - PIXEL_ZERO

    def run(self, x: Tensor, put: Callable[[Site, Tensor], Tensor]) -> dict[str, Tensor]:
        """Execute the network.

        Args:
            x: Codes of the input, shape (n, 3, height, width).
            put: What happens at a site to the exact value there, in codes.

        Returns:
            Every tensor in codes, and `logits`, shape (n, classes).
        """
        return self.resume({PIXELS: x}, 0, put)

    def resume(
        self, tensors: dict[str, Tensor], first: int, put: Callable[[Site, Tensor], Tensor]
    ) -> dict[str, Tensor]:
        """Execute the layers from the one at index `first` on, given the tensors before it."""
        tensors = dict(tensors)
        for layer in self.specification.layers[first:]:
            if isinstance(layer, Append):
                x = tensors[layer.input]
                tensors[layer.output] = torch.cat([x, x[:, : layer.channels]], dim=1)
            elif isinstance(layer, Head):
                total = tensors[layer.input].sum(dim=(2, 3)) * layer.multiplier
                pooled = put(self.sites[layer.name], total)
                product = F.linear(pooled, self.array(f"{layer.name}.weight"))
                scale, bias = (self.array(f"{layer.name}.{part}") for part in ("scale", "bias"))
                tensors[LOGITS] = product * scale + bias
            else:
                tensors[layer.output] = put(self.sites[layer.output], self.exact(layer, tensors))
        return tensors

    def exact(self, layer: Conv | Add | Smooth, tensors: dict[str, Tensor]) -> Tensor:
        """Return what a layer puts on its grid, before it is quantized."""
        if isinstance(layer, Add):
            return tensors[layer.trunk] + tensors[layer.branch]
        x = tensors[layer.input]
        if isinstance(layer, Smooth):
            return smooth(x, layer)
        bias, scale = (self.array(f"{layer.name}.{part}") for part in ("bias", "scale"))
        total = self.convolve(layer, x) + bias[:, None, None]
        return total * scale[:, None, None]

    def convolve(self, layer: Conv, x: Tensor) -> Tensor:
        """Return the sums of products of a convolution."""
        weight = self.array(f"{layer.name}.weight")
        return F.conv2d(x, weight, stride=layer.stride, padding=layer.padding, groups=layer.groups)


def smooth(x: Tensor, layer: Smooth) -> Tensor:
    """Take total-variation steps on codes, not rounded."""
    for _ in range(layer.iterations):
        down = x.diff(dim=2).clamp(-layer.delta, layer.delta)
        right = x.diff(dim=3).clamp(-layer.delta, layer.delta)
        x = x - layer.rate * divergence(down, right)
    return x


def divergence(down: Tensor, right: Tensor) -> Tensor:
    """Return what flows in minus what flows out: the adjoint of the forward differences."""
    down, right = F.pad(down, (0, 0, 1, 1)), F.pad(right, (1, 1, 0, 0))
    return -down.diff(dim=2) - right.diff(dim=3)


def _site(layer: Any, specification: Specification) -> Site:
    if isinstance(layer, Head):
        step = pooled_step(specification, layer)
        return Site(layer.name, -np.inf, np.inf, rounds=True, rectifies=False, step=step)
    grid = specification.grid(layer.output)
    return Site(
        layer.output,
        grid.q_min,
        grid.q_max,
        rounds=not isinstance(layer, Add),
        rectifies=isinstance(layer, Conv) and grid.rectifies,
        step=grid.scale,
    )
