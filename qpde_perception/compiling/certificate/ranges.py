"""The largest error of every quantizer, for every input: half a step, and what a grid cuts off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qpde_perception.compiling.certificate.execution import HALF_STEP
from qpde_perception.compiling.sizes import pooled_step, tensor_sizes
from qpde_perception.compiling.specification import PIXELS, Add, Append, Conv, Head, Smooth

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qpde_perception.compiling.specification import Grid, Specification

    Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class LargestError:
    """Largest difference between a quantized value and the exact one, per channel, real units.

    Attributes:
        rounding: Where the exact value lies within the grid, or a ReLU sets it to zero.
        total: Wherever it lies.
    """

    rounding: Array
    total: Array


def largest_errors(specification: Specification) -> dict[str, LargestError]:
    """Return the largest error by quantizer; a quantizer's input is the deployed one.

    The range of exact values follows from the codes that the grids before can hold.
    """
    channels = {name: size[0] for name, size in tensor_sizes(specification).items()}
    pixels = specification.grid(PIXELS)
    ranges = {PIXELS: np.tile([[pixels.q_min], [pixels.q_max]], (1, channels[PIXELS])) * 1.0}
    errors: dict[str, LargestError] = {}
    for layer in specification.layers:
        if isinstance(layer, Append):
            known = ranges[layer.input]
            ranges[layer.output] = np.concatenate([known, known[:, : layer.channels]], axis=1)
            continue
        if isinstance(layer, Head):
            half = np.full(channels[layer.name], HALF_STEP * pooled_step(specification, layer))
            errors[layer.name] = LargestError(half, half)
            continue
        grid = specification.grid(layer.output)
        if isinstance(layer, Smooth):
            exact = ranges[layer.input]  # smoothing stays within the range of its input
        elif isinstance(layer, Add):
            exact = ranges[layer.trunk] + ranges[layer.branch]
        else:
            exact = _conv_range(specification, layer, ranges[layer.input])
        half = np.full(
            channels[layer.output], 0.0 if isinstance(layer, Add) else HALF_STEP * grid.scale
        )
        rectifies = isinstance(layer, Conv) and grid.rectifies
        cut = _beyond(exact, grid, rectifies=rectifies) * grid.scale
        errors[layer.output] = LargestError(half, np.maximum(half, cut))
        ranges[layer.output] = np.clip(np.rint(exact), grid.q_min, grid.q_max)
    return errors


def _beyond(exact: Array, grid: Grid, *, rectifies: bool) -> Array:
    """Return how far the exact values reach beyond the grid, in codes; ReLU is no cutting off."""
    above = exact[1] - grid.q_max
    below = np.zeros_like(above) if rectifies else grid.q_min - exact[0]
    return np.asarray(np.maximum(np.maximum(above, below), 0.0))


def _conv_range(specification: Specification, layer: Conv, known: Array) -> Array:
    """Return the smallest and largest exact code per output channel, shape (2, outputs)."""
    arrays, name = specification.arrays, layer.name
    weight = arrays[f"{name}.weight"].astype(np.float64)
    grouped = weight.reshape(layer.groups, -1, *weight.shape[1:])
    # Zero stands for the border that padding adds.
    low = np.minimum(known[0], 0.0).reshape(layer.groups, 1, -1, 1, 1)
    high = np.maximum(known[1], 0.0).reshape(layer.groups, 1, -1, 1, 1)
    products = np.stack([grouped * low, grouped * high])
    sums = np.stack([products.min(0).sum((2, 3, 4)), products.max(0).sum((2, 3, 4))])
    steps = specification.grid(layer.input).scale / specification.grid(layer.output).scale
    multiplier = arrays[f"{name}.scale"].astype(np.float64) * steps
    return np.asarray((sums.reshape(2, -1) + arrays[f"{name}.bias"]) * multiplier)
