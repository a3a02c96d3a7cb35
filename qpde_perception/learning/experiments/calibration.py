"""Where the clippings of activations start: at what the float network shows.

The published start of 6.0 has 200 epochs to be learned away. With a few epochs it decides the
result: in a graph network, whose activations are far below one, four bits of it are all zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from qpde_perception.learning.zoo import set_bits
from qpde_perception.learning.zoo.quantizers import LearnedActivationQuantizer

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

CLIPPED_SHARE = 0.001


@torch.no_grad()
def calibrate(network: nn.Module, forward: Callable[[nn.Module], object]) -> None:
    """Set every activation's clipping so that one value in a thousand is beyond it.

    Args:
        network: A network of the zoo; left outside of training, in floating point.
        forward: Runs the network on the images or the graph that it is calibrated with.
    """
    set_bits(network, None, None)
    network.eval()

    def note(quantizer: nn.Module, inputs: tuple[Any, ...]) -> None:
        assert isinstance(quantizer, LearnedActivationQuantizer)
        limit = magnitude_below(inputs[0], CLIPPED_SHARE)
        # A map that is zero everywhere says nothing of its range.
        quantizer.alpha.copy_(torch.where(limit > 0, limit, quantizer.alpha))

    handles = [
        part.register_forward_pre_hook(note)
        for part in network.modules()
        if isinstance(part, LearnedActivationQuantizer)
    ]
    try:
        forward(network)
    finally:
        for handle in handles:
            handle.remove()


def magnitude_below(x: Tensor, share: float) -> Tensor:
    """Return the magnitude that all but a share of the values stay at or below, a scalar.

    Args:
        x: Values, any shape.
        share: Between 0 and 1; at least the largest value is at the limit.
    """
    magnitudes = x.abs().flatten()
    beyond = max(1, int(share * magnitudes.numel()))
    return magnitudes.topk(beyond).values[-1]
