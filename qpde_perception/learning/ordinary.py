"""The ordinary block of MobileNetV2, on the grids of the deployable networks.

Source: Sandler, Howard, Zhu, Zhmoginov, Chen, "MobileNetV2: inverted residuals and linear
bottlenecks", CVPR 2018.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from torch.nn import functional as F  # noqa: N812  (the field's name)

from qpde_perception.learning.layers import QuantizedConv, add_on_grid
from qpde_perception.learning.quantizers import ActivationQuantizer

if TYPE_CHECKING:
    from torch import Tensor


class InvertedResidual(nn.Module):
    """`x + N3 K3 sigma(N2 K2 sigma(N1 K1 x))`, without the `x +` where the shape changes.

    `K1` is a 1x1 expansion, `K2` a depthwise 3x3, `K3` a 1x1 projection, `N1` to `N3` are batch
    normalisations and sigma is ReLU, whose upper limit the quantizer learns. That the scales of the
    normalisations are positive costs nothing: the kernels before them have either sign.

    Attributes:
        adds: Whether the input is added.
    """

    def __init__(
        self,
        inputs: int,
        channels: int,
        expansion: int,
        trunks: tuple[ActivationQuantizer, ActivationQuantizer],
        *,
        stride: int,
        weight_bits: int,
        activation_bits: int,
    ) -> None:
        """Make a block.

        Args:
            inputs: Channels before.
            channels: Channels after.
            expansion: Ratio of hidden channels to `inputs`.
            trunks: Quantizers of the trunk before and after; stages own them.
            stride: Of the depthwise convolution.
            weight_bits: Bits of the weights.
            activation_bits: Bits of the activations.
        """
        super().__init__()
        hidden = inputs * expansion
        self.adds = stride == 1 and inputs == channels
        self.expand = QuantizedConv(inputs, hidden, kernel=1, stride=1, bits=weight_bits)
        self.depthwise = QuantizedConv(
            hidden, hidden, kernel=3, stride=stride, bits=max(weight_bits, 8), groups=hidden
        )
        self.project = QuantizedConv(hidden, channels, kernel=1, stride=1, bits=weight_bits)
        self.expanded = ActivationQuantizer(activation_bits, signed=False)
        self.rectified = ActivationQuantizer(activation_bits, signed=False)
        self._trunks = list(trunks)

    @property
    def trunk(self) -> ActivationQuantizer:
        """The quantizer of the trunk after the block."""
        return self._trunks[1]

    def forward(self, x: Tensor) -> Tensor:
        """Return the trunk after the block, shape (n, channels, height / stride, width / stride).

        Args:
            x: The trunk before, shape (n, inputs, height, width).
        """
        expanded = self.expand(x, self._trunks[0].scale, self.expanded)
        expanded = self.expanded(F.relu(expanded))
        rectified = self.depthwise(expanded, self.expanded.scale, self.rectified)
        rectified = self.rectified(F.relu(rectified))
        branch = self.project(rectified, self.rectified.scale, self.trunk)
        if self.adds:
            return add_on_grid(x, branch, self.trunk)
        return self.trunk(branch)  # type: ignore[no-any-return]
