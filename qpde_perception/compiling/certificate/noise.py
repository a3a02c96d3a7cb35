"""The noise model: rounding errors as independent noise, and what they do to the logits.

Widrow's model (PAPER: section 7c) takes an error of rounding as uniform on half a step to either
side: variance `s^2 / 12`. Two refinements follow from the integers themselves:

- an error exists only where a value lies inside its grid. Where ReLU or saturation clips, the code
  is the limit itself, exactly, and the gradient of what comes before is zero there;
- sums of products are integers times a multiplier. Where that is a small power of two, values lie
  on a lattice of `1/m` codes, and the error takes `m` values. Half to even, its variance is
  `1/12 + 1/(6 m^2)` for even `m`: 9/8 of Widrow's for the quarter steps of 2x2 pooling. With
  `m = 1` nothing is rounded.

The gradients are those of the saturating network, all logits by one walk backwards. Left out is
that errors of like values are alike, as in the flat parts of a blurred picture, and that ReLUs
switch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from qpde_perception.compiling.certificate.adjoint import Adjoint, flux_names
from qpde_perception.compiling.certificate.execution import (
    LOGITS,
    Execution,
    Site,
    saturating,
    smooth,
)
from qpde_perception.compiling.specification import Conv, Smooth

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from qpde_perception.compiling.specification import Specification

FINEST = 2**10
"""Lattices finer than this are taken as continuous."""


@dataclass(frozen=True, slots=True)
class Noise:
    """What independent rounding errors do to the logits of n frames.

    Attributes:
        logits: Of the saturating network, shape (n, classes).
        variance: Of `z_t - z_r` for the first class t and every r, by site, shape (sites, n,
            classes).
        worst: Sum of half steps times absolute gradients of the same differences, by site: their
            largest change to first order, shape (sites, n, classes).
        gain: `|| d logits / d a_j ||_F` in real units, by site, shape (sites, n).
        direction: By site, gradient of the difference between first and second class, zero where
            nothing is rounded.
    """

    logits: Tensor
    variance: Tensor
    worst: Tensor
    gain: Tensor
    direction: dict[str, Tensor]


class NoiseModel:
    """Predicts the noise of one network's logits.

    Attributes:
        execution: The network.
        names: Sites that round, in order of execution.
    """

    def __init__(self, specification: Specification) -> None:
        self.execution = Execution(specification)
        self.names = tuple(name for name, site in self.execution.sites.items() if site.rounds)
        self._moments = {name: torch.tensor(1.0 / 12.0) for name in self.names}
        for layer in specification.layers:
            if isinstance(layer, Conv):
                moments = _moments(self.execution, layer)
                self._moments[layer.output] = moments[:, None, None]
            elif isinstance(layer, Smooth):
                lattice = np.array(round(layer.rate**-layer.iterations))
                self._moments[layer.output] = torch.from_numpy(rounding_variance(lattice)).float()

    @torch.no_grad()
    def predict(self, x: Tensor) -> Noise:
        """Predict for codes of pixels, float32, shape (n, 3, height, width)."""
        exact: dict[str, Tensor] = {}

        def put(site: Site, value: Tensor) -> Tensor:
            exact[site.name] = value
            return saturating(site, value)

        tensors = self.execution.run(x, put)
        sites = self.execution.sites
        slopes = {
            name: ((value > sites[name].low) & (value < sites[name].high)).float()
            for name, value in exact.items()
        }
        for layer in self.execution.specification.layers:
            if isinstance(layer, Smooth):
                slopes.update(_flux_slopes(layer, tensors[layer.input]))
        logits = tensors[LOGITS]
        n, classes = logits.shape
        best = logits.topk(2, dim=1).indices
        gain, variance = torch.zeros(len(self.names), n), torch.zeros(len(self.names), n, classes)
        worst, direction = torch.zeros_like(variance), {}
        rows = torch.arange(n)

        def visit(name: str, gradient: Tensor) -> None:
            if name not in self._moments:
                return
            place, inside = self.names.index(name), slopes[name].unsqueeze(1)
            gain[place] = gradient.flatten(1).norm(dim=1) / sites[name].step
            change = (gradient[rows, best[:, 0]].unsqueeze(1) - gradient) * inside
            variance[place] = (change.square() * self._moments[name]).flatten(2).sum(2)
            worst[place] = 0.5 * change.abs().flatten(2).sum(2)
            direction[name] = change[rows, best[:, 1]]

        shapes = {name: tensor.shape[1:] for name, tensor in tensors.items()}
        identity = torch.eye(classes).expand(n, classes, classes)
        Adjoint(self.execution, shapes, slopes).walk(identity, visit)
        return Noise(logits, variance, worst, gain, direction)


def _flux_slopes(layer: Smooth, x: Tensor) -> dict[str, Tensor]:
    """Return, by flux, one where a difference is within the clipping and zero elsewhere."""
    slopes = {}
    one = layer.model_copy(update={"iterations": 1})
    for iteration in range(layer.iterations):
        for name, dim in zip(flux_names(layer, iteration), (2, 3), strict=True):
            slopes[name] = (x.diff(dim=dim).abs() < layer.delta).to(x.dtype)
        x = smooth(x, one)
    return slopes


def _moments(execution: Execution, layer: Conv) -> Tensor:
    """Return the variance of a rounding error per channel, in squared codes, float32."""
    multiplier = execution.array(f"{layer.name}.scale").double().numpy()
    weight = execution.specification.arrays[f"{layer.name}.weight"].astype(np.int64)
    bias = execution.specification.arrays[f"{layer.name}.bias"].astype(np.int64)
    common = np.gcd(np.gcd.reduce(weight.reshape(len(weight), -1), axis=1), bias)
    mantissa, exponent = np.frexp(multiplier)
    # A multiplier of `odd * 2^-k` spaces the values modulo one by `2^-k`.
    odd = (mantissa * 2**24).astype(np.int64)
    zeros = np.log2((odd & -odd).astype(np.float64)) + np.log2(np.maximum(common & -common, 1))
    lattice = np.exp2(np.clip(24 - exponent - zeros, 0, 30))
    return torch.from_numpy(rounding_variance(lattice)).float()


def rounding_variance(lattice: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the variance of half-to-even rounding on a lattice of `1/m` codes, m even or one."""
    m = np.asarray(lattice, np.float64)
    fine = 1.0 / 12.0 + np.where(m < FINEST, 1.0 / (6.0 * m**2), 0.0)
    return np.where(m == 1, 0.0, fine)
