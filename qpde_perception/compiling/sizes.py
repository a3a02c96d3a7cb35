"""Sizes of tensors and real values of weights, from a specification alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qpde_perception.compiling.specification import PIXELS, Add, Append, Conv, Head

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qpde_perception.compiling.specification import Specification

    Array = NDArray[Any]


def tensor_sizes(specification: Specification) -> dict[str, tuple[int, int, int]]:
    """Return channels, height and width of every tensor; of the head, those that it averages."""
    document = specification.document
    sizes = {PIXELS: (3, document.input_height, document.input_width)}
    for layer in specification.layers:
        if isinstance(layer, Head):
            sizes[layer.name] = sizes[layer.input]
            continue
        channels, height, width = sizes[layer.branch if isinstance(layer, Add) else layer.input]
        if isinstance(layer, Append):
            channels += layer.channels
        elif isinstance(layer, Conv):
            weight = specification.arrays[f"{layer.name}.weight"]
            channels, reach = len(weight), 2 * layer.padding - weight.shape[-1]
            height, width = ((size + reach) // layer.stride + 1 for size in (height, width))
        sizes[layer.output] = (channels, height, width)
    return sizes


def multiply_adds(specification: Specification) -> int:
    """Count the multiply-adds of convolutions and dense layer for one image.

    Average pooling counts as the convolution that it is written as; smoothing and sums do not.
    """
    sizes, arrays = tensor_sizes(specification), specification.arrays
    total = 0
    for layer in specification.layers:
        if isinstance(layer, Conv):
            _, height, width = sizes[layer.output]
            total += arrays[f"{layer.name}.weight"].size * height * width
        elif isinstance(layer, Head):
            total += arrays[f"{layer.name}.weight"].size
    return total


def real_weight(specification: Specification, layer: Conv) -> Array:
    """Return the real weights of a convolution, float64, from real input to real output."""
    weight, scale = (specification.arrays[f"{layer.name}.{part}"] for part in ("weight", "scale"))
    return np.asarray(weight * scale.astype(np.float64)[:, None, None, None])


def pooled_step(specification: Specification, layer: Head) -> float:
    """Return the value of one code of the head's mean over positions, in units of its input."""
    _, height, width = tensor_sizes(specification)[layer.input]
    return specification.grid(layer.input).scale / (layer.multiplier * height * width)


def head_matrix(specification: Specification, layer: Head) -> Array:
    """Return the dense layer from the real mean over positions to logits, (classes, channels)."""
    weight, scale = (specification.arrays[f"{layer.name}.{part}"] for part in ("weight", "scale"))
    step = pooled_step(specification, layer)
    return np.asarray(weight * (scale.astype(np.float64) / step)[:, None])
