"""The local bound: does one frame keep its class whatever its roundings are?

Admissible at a quantizer is every value of the grid's range within half a step of the exact one,
and where that lies beyond a limit of the grid, the limit. The deployed rounding is among them. Let
the quantizers from some place to the end round at will and those before it as the integers do; a
frame is certified from that place if no admissible network gives it another first class than the
float reference's. From the first quantizer on this is the theorem for the whole network; the places
are tried from the end, because what fails at one fails at all before it.

Margins are bounded by carrying the coefficients of `z_t - z_r`, for every r, backwards through the
relaxed differences (as in CROWN: Zhang, Weng, Chen, Hsieh, Daniel, NeurIPS 2018). The centre is the
network that rounds before the place and only clips after it. All in float64; `SLACK` of the largest
term covers its rounding.

The theorem is often false, and then a counterexample says so: roundings by half a step along the
gradient of a margin (PAPER: section 7b, to first order) that change the class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from qpde_perception.compiling.certificate.adjoint import Adjoint
from qpde_perception.compiling.certificate.execution import (
    LOGITS,
    Execution,
    Site,
    deployed,
    disturbed,
    saturating,
)
from qpde_perception.compiling.certificate.relaxation import Difference
from qpde_perception.compiling.specification import Append, Head

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from qpde_perception.compiling.specification import Specification

SLACK = 1e-9


class LocalBound:
    """Certifies frames of one network.

    Attributes:
        execution: The network, in float64.
        names: Quantizers that round, in order of execution.
    """

    def __init__(self, specification: Specification) -> None:
        self.execution = Execution(specification, torch.float64)
        # Requantization as deployed is that of float32.
        self._integers = Execution(specification, torch.float32)
        self.names = tuple(name for name, site in self.execution.sites.items() if site.rounds)
        self._head = specification.layers[-1].name
        self._first = {
            layer.name if isinstance(layer, Head) else layer.output: index
            for index, layer in enumerate(specification.layers)
            if not isinstance(layer, Append)
        }

    @torch.no_grad()
    def depth(self, x: Tensor, classes: Tensor) -> Tensor:
        """Count the last quantizers that may round at will without changing the class.

        Args:
            x: Codes of pixels, float64, shape (n, 3, height, width).
            classes: First class of the float reference, shape (n,).

        Returns:
            Counts, shape (n,); that of all quantizers certifies the frame.
        """
        tensors = self._deployed(x)
        counts = torch.zeros(len(x), dtype=torch.int64)
        left = torch.arange(len(x))
        for count, name in enumerate(reversed(self.names), start=1):
            part = {key: tensor[left] for key, tensor in tensors.items()}
            left = left[(self._bounds(part, name, self._rows(classes[left])) > 0).all(dim=1)]
            if not len(left):
                break
            counts[left] = count
        return counts

    @torch.no_grad()
    def margins(self, x: Tensor, first: str, classes: Tensor) -> Tensor:
        """Bound the margins from below where the quantizers from `first` on round at will.

        Args:
            x: Codes of pixels, float64, shape (n, 3, height, width).
            first: Name of a quantizer.
            classes: The class t of each frame, shape (n,).

        Returns:
            Lower bounds of `z_t - z_r`, shape (n, classes - 1), r in ascending order.
        """
        return self._bounds(self._deployed(x), first, self._rows(classes))

    @torch.no_grad()
    def largest_change(self, x: Tensor, first: str) -> Tensor:
        """Bound what roundings can take from the margin between first and second class.

        Args:
            x: Codes of pixels, float64, shape (n, 3, height, width).
            first: Name of a quantizer: those from it on round at will, those before as deployed.

        Returns:
            Upper bounds of what the margin of the network that only clips from there on can lose,
            shape (n,).
        """
        tensors = self._deployed(x)
        logits = self.execution.resume(dict(tensors), self._first[first], saturating)[LOGITS]
        best, identity = logits.topk(2, dim=1), torch.eye(logits.shape[1], dtype=logits.dtype)
        rows = identity[best.indices[:, :1]] - identity[best.indices[:, 1:]]
        return best.values[:, 0] - best.values[:, 1] - self._bounds(tensors, first, rows)[:, 0]

    def _deployed(self, x: Tensor) -> dict[str, Tensor]:
        tensors = self._integers.run(x.float(), deployed)
        return {name: tensor.double() for name, tensor in tensors.items()}

    def _rows(self, classes: Tensor) -> Tensor:
        count = len(self._integers.array(f"{self._head}.weight"))
        return margin_rows(classes, count).to(self.execution.dtype)

    def _bounds(self, tensors: Mapping[str, Tensor], name: str, rows: Tensor) -> Tensor:
        """Bound from below what rows of coefficients of the logits, (n, k, classes), sum up to."""
        first = self._first[name]
        exact: dict[str, Tensor] = {}

        def put(site: Site, value: Tensor) -> Tensor:
            exact[site.name] = value
            return saturating(site, value)

        centre = self.execution.resume(dict(tensors), first, put)
        relaxations = Difference(self.execution, centre, exact, first).relaxations
        bounds = (rows @ centre[LOGITS].unsqueeze(2)).squeeze(2)
        slack = bounds.abs()

        def visit(place: str, coefficients: Tensor) -> None:
            worst = relaxations[place].smallest(coefficients)
            bounds.add_(worst)
            slack.add_(worst.abs())

        shapes = {key: tensor.shape[1:] for key, tensor in centre.items()}
        slopes = {key: relaxation.slope for key, relaxation in relaxations.items()}
        Adjoint(self.execution, shapes, slopes, first).walk(rows, visit)
        return bounds - SLACK * slack


def margin_rows(classes: Tensor, count: int) -> Tensor:
    """Return the rows of `z_t - z_r` for every r but t, shape (n, count - 1, count)."""
    identity = torch.eye(count)
    rows = identity[classes].unsqueeze(1) - identity
    others = torch.arange(count).expand(len(classes), count) != classes.unsqueeze(1)
    return rows[others].reshape(len(classes), count - 1, count)


@torch.no_grad()
def adversarial_logits(
    execution: Execution, x: Tensor, direction: Mapping[str, Tensor], share: float = 1.0
) -> Tensor:
    """Round against a margin: by half a step, to the side that lowers it to first order.

    Args:
        execution: The network.
        x: Codes of pixels, shape (n, 3, height, width).
        direction: Gradient of the margin by quantizer, zero where nothing is rounded.
        share: Share of the half step that is used.

    Returns:
        Logits, shape (n, classes), of an admissible network.
    """

    def put(site: Site, value: Tensor) -> Tensor:
        if site.name not in direction:
            return saturating(site, value)
        return disturbed(site, value, -0.5 * share * direction[site.name].sign().to(value.dtype))

    return execution.run(x, put)[LOGITS]
