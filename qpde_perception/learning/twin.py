"""The twin of the symmetric block: the same convolutions, each with a kernel of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from qpde_perception.learning.quantizers import ActivationQuantizer, WeightQuantizer
from qpde_perception.learning.symmetric import Kernels, ResidualStep

if TYPE_CHECKING:
    from collections.abc import Callable


class TwinBlock(ResidualStep):
    """`x - D2 K4 K3 sigma(D1 K2 K1 x + b1) + b2` with four independent kernels.

    It executes the four convolutions of a symmetric block: compute is equal, and the parameters of
    the kernels are twice as many. What it is compared for is the one difference: its Jacobian is
    symmetric in no inner product that the block knows of, so nothing keeps it from amplifying.
    """

    way_back = ("depthwise_back", "project")

    def __init__(
        self,
        channels: int,
        expansion: int,
        trunk: ActivationQuantizer,
        *,
        weight_bits: int,
        activation_bits: int,
    ) -> None:
        super().__init__(
            channels,
            expansion,
            trunk,
            weight_bits=weight_bits,
            activation_bits=activation_bits,
        )
        self.depthwise_back = nn.Parameter(torch.empty_like(self.depthwise))
        self.project = nn.Parameter(torch.empty(channels, channels * expansion, 1, 1))
        nn.init.normal_(self.depthwise_back)
        nn.init.normal_(self.project)
        self.depthwise_back_quantizer = WeightQuantizer(max(weight_bits, 8))
        self.project_quantizer = WeightQuantizer(weight_bits)

    @property
    def back_quantizers(self) -> tuple[WeightQuantizer, WeightQuantizer]:
        """Its own."""
        return self.depthwise_back_quantizer, self.project_quantizer

    def kernels(self, of: Callable[[WeightQuantizer, Tensor], Tensor]) -> Kernels:
        """Return of all four kernels what `of` makes of them."""
        back, project = self.back_quantizers
        return Kernels(
            of(self.expand_quantizer, self.expand),
            of(self.depthwise_quantizer, self.depthwise),
            of(back, self.depthwise_back),
            of(project, self.project),
        )
