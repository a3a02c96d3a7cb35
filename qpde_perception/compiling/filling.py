"""Channels of zeros that let an engine take its fast kernels; what is computed stays the same.

ONNX Runtime has a fast depthwise convolution for a multiple of 16 channels and a slow one for any
other number: at 120 channels three times slower than at 128.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from qpde_perception.compiling.specification import Add, Conv, Specification

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


def with_filled_channels(specification: Specification, multiple: int) -> Specification:
    """Fill the hidden channels of blocks with channels of zeros.

    Hidden are the tensors from a dense convolution over one or more depthwise ones to the next
    dense one, each read by nobody else.

    Args:
        specification: The network in integers.
        multiple: What the number of hidden channels becomes a multiple of.

    Returns:
        A specification with the same logits.
    """
    arrays, layers = dict(specification.arrays), list(specification.layers)
    for first, layer in enumerate(specification.layers):
        if not isinstance(layer, Conv) or layer.groups > 1:
            continue
        chain = _hidden_chain(specification, first)
        extra = -len(arrays[f"{layer.name}.weight"]) % multiple
        if len(chain) < 2 or not extra:
            continue
        for index in [first, *chain[:-1]]:
            _more_outputs(arrays, specification.layers[index].name, extra)
        for index in chain[:-1]:
            depthwise = layers[index]
            layers[index] = depthwise.model_copy(update={"groups": depthwise.groups + extra})  # type: ignore[union-attr]
        last = f"{specification.layers[chain[-1]].name}.weight"
        arrays[last] = np.pad(arrays[last], ((0, 0), (0, extra), (0, 0), (0, 0)))
    document = specification.document.model_copy(update={"layers": tuple(layers)})
    return replace(specification, document=document, arrays=arrays)


def _hidden_chain(specification: Specification, first: int) -> list[int]:
    """Return the depthwise layers after a dense one and the next dense one; none if others read."""
    chain: list[int] = []
    tensor = specification.layers[first].output  # type: ignore[union-attr]
    while True:
        readers = [
            index
            for index, layer in enumerate(specification.layers)
            if tensor in ((layer.trunk, layer.branch) if isinstance(layer, Add) else (layer.input,))
        ]
        reader = specification.layers[readers[0]] if len(readers) == 1 else None
        if not isinstance(reader, Conv):
            return []
        chain.append(readers[0])
        if reader.groups == 1:
            return chain
        tensor = reader.output


def _more_outputs(arrays: dict[str, Array], name: str, extra: int) -> None:
    for part, value in (("weight", 0), ("scale", 1), ("bias", 0)):
        array = arrays[f"{name}.{part}"]
        around = [(0, extra), *[(0, 0)] * (array.ndim - 1)]
        arrays[f"{name}.{part}"] = np.pad(array, around, constant_values=value)
