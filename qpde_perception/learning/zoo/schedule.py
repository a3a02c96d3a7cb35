"""Precision over the epochs, and of the network as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qpde_perception.learning.zoo.certified import GradientStep
from qpde_perception.learning.zoo.quantizers import set_quantizer_bits

if TYPE_CHECKING:
    from torch import nn


def set_bits(network: nn.Module, weights: int | None, activations: int | None) -> None:
    """Set the precision of a network of the zoo; at any time, the parameters stay as they are.

    First convolution and last dense layer stay in floating point, and depthwise kernels have at
    most 8 bits. More than 16 bits only clip. The norms of certified blocks outside of training are
    taken anew for the weights as they are now rounded.

    Args:
        network: Made by `build`.
        weights: Bits of the weights, 1 to 32; None for floating point.
        activations: Bits of the activations, 1 to 32; None for floating point: nothing is clipped.

    Raises:
        LearningError: If the network cannot have so few bits, or nothing can.
    """
    set_quantizer_bits(network, weights, activations)
    for part in network.modules():
        if isinstance(part, GradientStep) and not part.training:
            part.settle()


@dataclass(frozen=True, slots=True)
class BitSchedule:
    """One bit less every few epochs, until the target.

    Attributes:
        weights: Bits of the weights in the end; None to keep them in floating point.
        activations: Bits of the activations in the end; None to keep them in floating point.
        start: Bits of the first epochs.
        epochs_per_bit: Epochs between two steps.
    """

    weights: int | None
    activations: int | None
    start: int = 16
    epochs_per_bit: int = 10

    def at(self, epoch: int) -> tuple[int | None, int | None]:
        """Return the bits of weights and activations in an epoch, counted from zero."""
        bits = self.start - epoch // self.epochs_per_bit
        weights, activations = (
            None if target is None else max(bits, target)
            for target in (self.weights, self.activations)
        )
        return weights, activations
