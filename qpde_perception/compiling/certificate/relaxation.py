"""Linear relaxation of the difference between two networks around one frame's own activations.

Let `v` be the exact value at a site of the centre, `v + d` that of another network whose roundings
differ, `l <= d <= u`. Clipping `h` changes the difference to `h(v + d) - h(v)`, a monotone function
of `d` with slopes 0, 1 and 0. It is written as `slope * d + e` with the slope of its chord on
`[l, u]`; `e` is extreme at the ends or at the two kinks. Where no kink lies in `[l, u]` the slope
is 0 or 1 and `e` is zero: what cannot switch is exact. Rounding adds half a step to either side,
unless the value is surely clipped. The fluxes of the smoothing are clippings too.

Intervals `[l, u]` are carried forward: every layer is monotone once weights are split by sign, and
a smoothing step of rate up to 1/4 is monotone as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F  # noqa: N812  (the field's name)

from qpde_perception.compiling.certificate.adjoint import flux_names
from qpde_perception.compiling.certificate.execution import HALF_STEP, smooth
from qpde_perception.compiling.specification import Add, Append, Conv, Head, Smooth

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from qpde_perception.compiling.certificate.execution import Execution, Site


@dataclass(frozen=True, slots=True)
class Interval:
    """Bounds of a difference, in codes; both of the tensor's shape."""

    low: Tensor
    high: Tensor


@dataclass(frozen=True, slots=True)
class Relaxation:
    """`slope * d + e` with `e` between `low` and `high`, all of the tensor's shape."""

    slope: Tensor
    low: Tensor
    high: Tensor

    def smallest(self, coefficients: Tensor) -> Tensor:
        """Return the smallest sum of `coefficients * e`, shape (n, rows), in float64."""
        low, high = self.low.unsqueeze(1), self.high.unsqueeze(1)
        extreme = torch.where(coefficients > 0, low, high)
        return (coefficients * extreme).flatten(2).sum(2)


class Difference:
    """Relaxes the layers from the one at index `first` on, one after another.

    Args:
        execution: The network, in float64.
        tensors: The centre: codes of every tensor.
        exact: What lies at every site before it is quantized.
        first: Index of the first layer whose quantizer may round at will.
    """

    def __init__(
        self,
        execution: Execution,
        tensors: Mapping[str, Tensor],
        exact: Mapping[str, Tensor],
        first: int,
    ) -> None:
        self.relaxations: dict[str, Relaxation] = {}
        self._execution = execution
        self._tensors, self._exact = tensors, exact
        self._intervals: dict[str, Interval] = {}
        for layer in execution.specification.layers[first:]:
            if isinstance(layer, Append):
                x = self._interval(layer.input)
                ends = [torch.cat([e, e[:, : layer.channels]], dim=1) for e in (x.low, x.high)]
                self._intervals[layer.output] = Interval(*ends)
            else:
                name = layer.name if isinstance(layer, Head) else layer.output
                self._intervals[name] = self._quantized(name, self._before(layer))

    def _interval(self, tensor: str) -> Interval:
        if tensor not in self._intervals:
            zero = torch.zeros_like(self._tensors[tensor])
            self._intervals[tensor] = Interval(zero, zero)
        return self._intervals[tensor]

    def _before(self, layer: Conv | Add | Smooth | Head) -> Interval:
        """Bound the difference of what a layer puts on its grid."""
        if isinstance(layer, Add):
            trunk, branch = self._interval(layer.trunk), self._interval(layer.branch)
            return Interval(trunk.low + branch.low, trunk.high + branch.high)
        x = self._interval(layer.input)
        if isinstance(layer, Head):
            low, high = (end.sum(dim=(2, 3)) * layer.multiplier for end in (x.low, x.high))
            return Interval(low, high)
        if isinstance(layer, Smooth):
            return self._smoothed(layer, x)
        scale = self._execution.array(f"{layer.name}.scale")[:, None, None]
        weight = self._execution.array(f"{layer.name}.weight")
        middle, radius = (x.low + x.high) / 2, (x.high - x.low) / 2
        middle = self._execution.convolve(layer, middle) * scale
        radius = (
            F.conv2d(
                radius,
                weight.abs(),
                stride=layer.stride,
                padding=layer.padding,
                groups=layer.groups,
            )
            * scale
        )
        return Interval(middle - radius, middle + radius)

    def _smoothed(self, layer: Smooth, d: Interval) -> Interval:
        one = layer.model_copy(update={"iterations": 1})
        x = self._tensors[layer.input]
        for iteration in range(layer.iterations):
            for name, dim in zip(flux_names(layer, iteration), (2, 3), strict=True):
                size = x.shape[dim] - 1
                low = d.low.narrow(dim, 1, size) - d.high.narrow(dim, 0, size)
                high = d.high.narrow(dim, 1, size) - d.low.narrow(dim, 0, size)
                limits = (-float(layer.delta), float(layer.delta))
                flux = x.diff(dim=dim)
                self.relaxations[name] = relax(flux, Interval(low, high), limits)
            centre = smooth(x, one)
            d = Interval(smooth(x + d.low, one) - centre, smooth(x + d.high, one) - centre)
            x = centre
        return d

    def _quantized(self, name: str, d: Interval) -> Interval:
        site, v = self._execution.sites[name], self._exact[name]
        limits = (site.low, site.high)
        relaxation = relax(v, d, limits)
        low, high = ((v + e).clamp(*limits) - v.clamp(*limits) for e in (d.low, d.high))
        if site.rounds:
            rounding = _rounding(site, v, d)
            relaxation = Relaxation(
                relaxation.slope, relaxation.low - rounding, relaxation.high + rounding
            )
            low, high = low - rounding, high + rounding
        self.relaxations[name] = relaxation
        return Interval(low, high)


def relax(v: Tensor, d: Interval, limits: tuple[float, float]) -> Relaxation:
    """Relax `clip(v + d) - clip(v)` for `d` in an interval."""

    def change(e: Tensor) -> Tensor:
        return (v + e).clamp(*limits) - v.clamp(*limits)

    width = d.high - d.low
    point = width <= 0
    inside = ((v + d.low > limits[0]) & (v + d.low < limits[1])).to(v.dtype)
    chord = (change(d.high) - change(d.low)) / torch.where(point, torch.ones_like(width), width)
    free = (v + d.low >= limits[0]) & (v + d.high <= limits[1])
    slope = torch.where(point, inside, chord.clamp(0.0, 1.0))
    slope = torch.where(free, torch.ones_like(slope), slope)
    ends = [d.low, d.high]
    ends += [torch.minimum(torch.maximum(k - v, d.low), d.high) for k in limits if abs(k) < 1e9]
    errors = torch.stack([change(e) - slope * e for e in ends])
    return Relaxation(slope, errors.amin(0), errors.amax(0))


def _rounding(site: Site, v: Tensor, d: Interval) -> Tensor:
    """Return how far rounding can move a value: not at all where it is surely clipped."""
    clipped = (v + d.high <= site.low) | (v + d.low >= site.high)
    return torch.where(clipped, 0.0, HALF_STEP).to(v.dtype)
