"""The global bound: what rounding and clipping can change at most, for every input.

Walking backwards from the logits, every tensor gets a pair `(L, w)`: a change `d` of the tensor
changes the logits by at most `L ||d||_w`, `||d||_w^2 = sum_c ||d_c||^2 / w_c` over its channels c.
The bound is `B = sum_j L_j ||r_j||_w` with `r_j` the largest error of quantizer j: half a step, and
what its grid cuts off (PAPER: sections 6 and 7a).

A block whose integers say `x - D K^T T relu(A K x + b)`, with positive diagonals and the two sides
really transposed, has the Jacobian `I - D K^T O K` with `O >= 0`. It is symmetric in the norm
weighted by `D^-1`, with eigenvalues between `1 - n` and 1, `n = || (T A S)^(1/2) K D^(1/2) ||^2`:
its constant is `max(1, n - 1)` in that norm. Diagonals between a 1x1 and a depthwise convolution
act per channel, commute with the depthwise one and join `T A`. Every other branch counts with the
product of its norms. A change of weights between blocks costs `max_c sqrt(w'_c / w_c)`.

The network that is compared with is the float reference, which does not clip; so the argument
needs no word on slopes of clipping, and clipping is an error like rounding. How much a grid can cut
off is bounded by the ranges of the grids before it, whatever the input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qpde_perception.compiling.certificate.norms import SLACK, convolution_norm, measured_norm
from qpde_perception.compiling.certificate.ranges import largest_errors
from qpde_perception.compiling.certificate.symmetry import residual_branches, symmetric_form
from qpde_perception.compiling.sizes import head_matrix, real_weight, tensor_sizes
from qpde_perception.compiling.specification import Add, Append, Conv, Head

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qpde_perception.compiling.specification import Smooth, Specification

    Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """A change `d` of a tensor changes the logits by at most `constant * ||d||_weights`.

    Attributes:
        constant: In logits per real unit.
        weights: One per channel.
    """

    constant: float
    weights: Array

    def reweighted(self, weights: Array) -> Sensitivity:
        """Return the same in another norm."""
        return Sensitivity(self.constant * float(np.sqrt((weights / self.weights).max())), weights)

    def plus(self, other: Sensitivity) -> Sensitivity:
        """Return the sensitivity of a tensor that is read twice."""
        added = other.reweighted(self.weights)
        return Sensitivity(self.constant + added.constant, self.weights)

    def of_error(self, largest: Array, positions: int) -> float:
        """Return what errors of at most `largest`, per channel and real units, can change."""
        return self.constant * float(np.sqrt(positions * (largest**2 / self.weights).sum()))


@dataclass(frozen=True, slots=True)
class Stage:
    """A step of the trunk and its Lipschitz constant.

    Attributes:
        name: Of the layer, or of the sum that ends a residual block.
        lipschitz: Proven upper bound, real units; of a symmetric block in its own norm.
        measured: The norms in it by power iteration, from below, put together alike.
        symmetric: Whether it is a residual block whose two sides are transposes.
    """

    name: str
    lipschitz: float
    measured: float
    symmetric: bool


@dataclass(frozen=True, slots=True)
class GlobalBound:
    """Bounds on the Euclidean distance of all logits from the float reference's.

    Attributes:
        stages: In order of execution.
        rounding: For every input that no grid cuts off.
        total: For every input.
        sensitivities: By quantized tensor; that of the head by its layer's name.
    """

    stages: tuple[Stage, ...]
    rounding: float
    total: float
    sensitivities: dict[str, Sensitivity]


def global_bound(specification: Specification) -> GlobalBound:
    """Bound the distance between the deployed network and its float reference."""
    walk = _Walk(specification)
    for layer in reversed(specification.layers):
        walk.step(layer)
    rounding = total = 0.0
    for name, error in largest_errors(specification).items():
        _, height, width = walk.sizes[name]
        positions = 1 if name in walk.heads else height * width
        rounding += walk.sites[name].of_error(error.rounding, positions)
        total += walk.sites[name].of_error(error.total, positions)
    return GlobalBound(tuple(reversed(walk.stages)), rounding, total, walk.sites)


class _Walk:
    """Collects sensitivities from the logits to the pixels."""

    def __init__(self, specification: Specification) -> None:
        self.specification = specification
        self.sizes = tensor_sizes(specification)
        self.branches = {branch.name: branch for branch in residual_branches(specification)}
        self.forms = {
            name: symmetric_form(specification, branch) for name, branch in self.branches.items()
        }
        self.ends = {b.convolutions[0].name: b for b in self.branches.values()}
        self.inside = {layer.name for b in self.branches.values() for layer in b.convolutions}
        self.in_symmetric = {
            layer.name
            for name, b in self.branches.items()
            if self.forms[name] is not None
            for layer in b.convolutions
        }
        self.norms: dict[str, tuple[float, float]] = {}
        self.found: dict[str, Sensitivity] = {}
        self.sites: dict[str, Sensitivity] = {}
        self.heads: set[str] = set()
        self.stages: list[Stage] = []

    def step(self, layer: Conv | Add | Smooth | Append | Head) -> None:
        """Carry the sensitivity of a layer's output to its inputs."""
        if isinstance(layer, Head):
            self.head(layer)
            return
        after = self.sites[layer.output] = self.found.pop(layer.output)
        if isinstance(layer, Conv):
            self.conv(layer, after)
        elif isinstance(layer, Add):
            self.add(layer, after)
        elif isinstance(layer, Append):
            self.append(layer, after)
        else:
            # `rate` is at most 1/4: non-expansive in every norm that weighs whole channels.
            self.give(layer.input, after)
            self.stages.append(Stage(layer.name, 1.0, 1.0, symmetric=False))

    def give(self, tensor: str, sensitivity: Sensitivity) -> None:
        known = self.found.get(tensor)
        self.found[tensor] = sensitivity if known is None else known.plus(sensitivity)

    def head(self, layer: Head) -> None:
        channels, height, width = self.sizes[layer.input]
        norm = float(np.linalg.norm(head_matrix(self.specification, layer), 2)) * SLACK
        constant = norm / float(np.sqrt(height * width))
        self.heads.add(layer.name)
        self.sites[layer.name] = Sensitivity(norm, np.ones(channels))
        self.give(layer.input, Sensitivity(constant, np.ones(channels)))
        self.stages.append(Stage(layer.name, constant, constant, symmetric=False))

    def conv(self, layer: Conv, after: Sensitivity) -> None:
        weight = real_weight(self.specification, layer)
        channels, *size = self.sizes[layer.input]
        norm = convolution_norm(weight, layer, *size)
        if layer.groups == channels == len(weight):
            before = Sensitivity(after.constant * norm, after.weights)
        else:
            scaled = weight / np.sqrt(after.weights)[:, None, None, None]
            constant = after.constant * convolution_norm(scaled, layer, *size)
            before = Sensitivity(constant, np.ones(channels))
        if layer.name not in self.in_symmetric:
            self.norms[layer.name] = norm, measured_norm(weight, layer, *size)
        if layer.name not in self.inside:
            self.stages.append(Stage(layer.name, *self.norms[layer.name], symmetric=False))
        branch = self.ends.get(layer.name)
        if branch is None:
            self.give(layer.input, before)
        elif self.forms[branch.name] is None:
            self.give(layer.input, before)
            upper, lower = np.prod([self.norms[part.name] for part in branch.convolutions], axis=0)
            stage = Stage(branch.name, 1.0 + float(upper), 1.0 + float(lower), symmetric=False)
            self.stages.append(stage)

    def add(self, layer: Add, after: Sensitivity) -> None:
        self.give(layer.branch, after)
        form = self.forms.get(layer.name)
        if form is None:
            self.give(layer.trunk, after)
            return
        lipschitz = max(1.0, form.curvature() - 1.0)
        measured = max(1.0, form.measured_curvature() - 1.0)
        own = after.reweighted(form.outer)
        self.give(layer.trunk, Sensitivity(own.constant * lipschitz, form.outer))
        self.stages.append(Stage(layer.name, lipschitz, measured, symmetric=True))

    def append(self, layer: Append, after: Sensitivity) -> None:
        kept = self.sizes[layer.input][0]
        inverse = 1.0 / after.weights[:kept]
        inverse[: layer.channels] += 1.0 / after.weights[kept:]
        self.give(layer.input, Sensitivity(after.constant, 1.0 / inverse))
