"""The network backwards: from coefficients of logits to coefficients of every quantizer's error.

Around one frame the network is a chain of linear layers and of monotone functions with slopes
between zero and one: the clipping at the sites and the fluxes of the smoothing. With a slope given
for each of those, this walk carries coefficients from the logits to every place where an error can
enter. With the true slopes it gives gradients; with those of a relaxation, rigorous bounds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F  # noqa: N812  (the field's name)

from qpde_perception.compiling.certificate.execution import divergence
from qpde_perception.compiling.specification import Add, Append, Conv, Head, Smooth

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from qpde_perception.compiling.certificate.execution import Execution

    Visit = Callable[[str, Tensor], None]


def flux_names(layer: Smooth, iteration: int) -> tuple[str, str]:
    """Return the names under which the fluxes of one smoothing step are known."""
    return f"{layer.name}.{iteration}.down", f"{layer.name}.{iteration}.right"


class Adjoint:
    """Walks one execution backwards.

    Args:
        execution: The network.
        shapes: Shape (channels, height, width) of every tensor.
        slopes: By site and by flux, shape (n, channels, height, width); the head's (n, channels).
        first: Index of the first layer that takes part.
    """

    def __init__(
        self,
        execution: Execution,
        shapes: Mapping[str, torch.Size],
        slopes: Mapping[str, Tensor],
        first: int = 0,
    ) -> None:
        self._execution = execution
        self._shapes = shapes
        self._slopes = slopes
        self._layers = execution.specification.layers[first:]

    def walk(self, coefficients: Tensor, visit: Visit) -> None:
        """Carry coefficients to all sites.

        Args:
            coefficients: Of the logits, shape (n, rows, classes).
            visit: Gets each site's and flux's name and the coefficients of an error that is added
                there, in codes: shape (n, rows, channels, height, width), or (n, rows, channels).
        """
        found: dict[str, Tensor] = {}

        def give(tensor: str, values: Tensor) -> None:
            found[tensor] = found[tensor] + values if tensor in found else values

        for layer in reversed(self._layers):
            if isinstance(layer, Head):
                give(layer.input, self._head(layer, coefficients, visit))
                continue
            values = found.pop(layer.output)
            if isinstance(layer, Append):
                kept = values.shape[2] - layer.channels
                total = values[:, :, :kept].clone()
                total[:, :, : layer.channels] += values[:, :, kept:]
                give(layer.input, total)
                continue
            visit(layer.output, values)
            values = values * self._slopes[layer.output].unsqueeze(1)
            if isinstance(layer, Add):
                give(layer.trunk, values)
                give(layer.branch, values)
            elif isinstance(layer, Smooth):
                give(layer.input, self._smooth(layer, values, visit))
            else:
                give(layer.input, self._conv(layer, values))

    def _head(self, layer: Head, coefficients: Tensor, visit: Visit) -> Tensor:
        weight, scale = (self._execution.array(f"{layer.name}.{p}") for p in ("weight", "scale"))
        pooled = (coefficients * scale) @ weight
        visit(layer.name, pooled)
        spread = pooled * self._slopes[layer.name].unsqueeze(1) * layer.multiplier
        height, width = self._shapes[layer.input][-2:]
        return spread[..., None, None].expand(*spread.shape, height, width)

    def _conv(self, layer: Conv, values: Tensor) -> Tensor:
        weight, scale = (self._execution.array(f"{layer.name}.{p}") for p in ("weight", "scale"))
        flat = (values * scale[:, None, None]).flatten(0, 1)
        kernel = weight.shape[-1]
        if kernel == 1 and layer.groups == 1 and layer.stride == 1 and not layer.padding:
            total = torch.matmul(weight[:, :, 0, 0].T, flat.flatten(2))
        else:
            total = F.conv_transpose2d(
                flat,
                weight,
                stride=layer.stride,
                padding=layer.padding,
                output_padding=self._left_over(layer, kernel),
                groups=layer.groups,
            )
        return total.reshape(*values.shape[:2], *self._shapes[layer.input])

    def _left_over(self, layer: Conv, kernel: int) -> tuple[int, int]:
        """Return the rows and columns at the end that no window of a strided convolution covers."""
        height, width = self._shapes[layer.input][-2:]
        return (
            (height + 2 * layer.padding - kernel) % layer.stride,
            (width + 2 * layer.padding - kernel) % layer.stride,
        )

    def _smooth(self, layer: Smooth, values: Tensor, visit: Visit) -> Tensor:
        for iteration in reversed(range(layer.iterations)):
            fluxes = []
            for name, dim in zip(flux_names(layer, iteration), (3, 4), strict=True):
                flux = values.diff(dim=dim) * -layer.rate
                visit(name, flux)
                fluxes.append((flux * self._slopes[name].unsqueeze(1)).flatten(0, 1))
            change = divergence(fluxes[0], fluxes[1])
            values = values + change.reshape(values.shape)
        return values
