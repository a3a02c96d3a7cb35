"""Residual blocks whose two sides are transposes of each other, recognised from the integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812  (the field's name)

from qpde_perception.compiling.certificate.norms import power_iteration, symmetric_norm
from qpde_perception.compiling.sizes import tensor_sizes
from qpde_perception.compiling.specification import Add, Conv

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qpde_perception.compiling.specification import Specification

    Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Branch:
    """The convolutions between a trunk and the sum that ends a residual block.

    Attributes:
        name: Of the sum.
        convolutions: In order of execution.
    """

    name: str
    convolutions: tuple[Conv, ...]


@dataclass(frozen=True, slots=True)
class SymmetricForm:
    """The form `x - D K^T E relu(K x)` of a block, in real units, up to offsets.

    Attributes:
        kernel: First convolution of `K`, (hidden, channels, kernel, kernel).
        depthwise: Second convolution of `K`, (hidden, 1, kernel, kernel), or None.
        inner: `E > 0`, shape (hidden,), all diagonals between the two sides.
        outer: `D > 0`, shape (channels,): the block's norm is weighted by its inverse.
        size: Height and width of the maps.
    """

    kernel: Array
    depthwise: Array | None
    inner: Array
    outer: Array
    size: tuple[int, int]

    def curvature(self) -> float:
        """Return a proven upper bound of `|| E^(1/2) K D^(1/2) ||^2`."""
        return symmetric_norm(self.kernel, self.depthwise, (self.inner, self.outer), self.size)

    def measured_curvature(self) -> float:
        """Return the same from below, by power iteration at the real size of the maps."""
        outer = np.sqrt(self.outer)[:, None, None]
        inner = np.sqrt(self.inner)[:, None, None, None]
        first = torch.from_numpy(self.kernel * outer)
        second = torch.from_numpy((1.0 if self.depthwise is None else self.depthwise) * inner)
        if self.depthwise is None:
            first, second = first * second, torch.ones(len(first), 1, 1, 1, dtype=torch.float64)
        pads, groups = (first.shape[-1] // 2, second.shape[-1] // 2), len(first)

        def operator(x: torch.Tensor) -> torch.Tensor:
            return F.conv2d(
                F.conv2d(x, first, padding=pads[0]), second, padding=pads[1], groups=groups
            )

        def adjoint(y: torch.Tensor) -> torch.Tensor:
            y = F.conv_transpose2d(y, second, padding=pads[1], groups=groups)
            return F.conv_transpose2d(y, first, padding=pads[0])

        return power_iteration(operator, adjoint, (1, first.shape[1], *self.size)) ** 2


def residual_branches(specification: Specification) -> tuple[Branch, ...]:
    """Return every sum whose branch is a chain of convolutions that begins at its trunk."""
    writers = {layer.output: layer for layer in specification.layers if isinstance(layer, Conv)}
    branches = []
    for layer in specification.layers:
        if not isinstance(layer, Add):
            continue
        chain: list[Conv] = []
        tensor = layer.branch
        while tensor != layer.trunk and tensor in writers:
            chain.insert(0, writers[tensor])
            tensor = chain[0].input
        if tensor == layer.trunk and chain:
            branches.append(Branch(layer.name, tuple(chain)))
    return tuple(branches)


def symmetric_form(specification: Specification, branch: Branch) -> SymmetricForm | None:
    """Return a block's symmetric form, or None where its two sides are not transposes.

    Recognised are `K` a convolution of stride 1, and `K` a 1x1 convolution followed by a depthwise
    one: diagonals between the two act per channel and commute with the depthwise one. The block
    needs its one ReLU in the middle, and a minus sign.
    """
    chain, arrays = branch.convolutions, specification.arrays
    half = len(chain) // 2
    relus = [specification.grid(layer.output).rectifies for layer in chain]
    if len(chain) not in (2, 4) or relus != [i == half - 1 for i in range(len(chain))]:
        return None
    weights = [arrays[f"{layer.name}.weight"].astype(np.float64) for layer in chain]
    scales = [arrays[f"{layer.name}.scale"].astype(np.float64) for layer in chain]
    signs = [
        _sign_of_transpose((chain[i], weights[i]), (chain[-1 - i], weights[-1 - i]))
        for i in range(half)
    ]
    if np.prod(signs) >= 0 or min(scale.min() for scale in scales) <= 0 or chain[0].groups > 1:
        return None
    _, height, width = tensor_sizes(specification)[chain[0].input]
    if half == 1:
        return SymmetricForm(weights[0], None, scales[0], scales[1], (height, width))
    if weights[0].shape[-1] != 1 or chain[1].groups != len(weights[1]):
        return None
    inner = scales[0] * scales[1] * scales[2]
    return SymmetricForm(weights[0], weights[1], inner, scales[3], (height, width))


def _sign_of_transpose(there: tuple[Conv, Array], back: tuple[Conv, Array]) -> int:
    """Return 1 or -1 where `back` is plus or minus the transpose of `there`, else 0."""
    for layer, weight in (there, back):
        if layer.stride != 1 or 2 * layer.padding + 1 != weight.shape[-1]:
            return 0
    (layer, weight), (other, returned) = there, back
    depthwise = layer.groups > 1
    turned = weight[:, :, ::-1, ::-1]
    turned = turned if depthwise else turned.transpose(1, 0, 2, 3)
    if layer.groups != other.groups or (depthwise and weight.shape[1] != 1):
        return 0
    if np.array_equal(turned, returned):
        return 1
    return -1 if np.array_equal(turned, -returned) else 0
