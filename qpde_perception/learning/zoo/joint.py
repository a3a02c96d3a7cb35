"""Training at two precisions at once, with activations held similar.

Source: Ben-Yair, Ben Shalom, Eliasof, Treister, Research in the Mathematical Sciences 9:58 (2022).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch.nn import functional as F  # noqa: N812  (the field's name)

from qpde_perception.learning.zoo.observing import block_outputs
from qpde_perception.learning.zoo.schedule import set_bits

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class JointPrecision:
    """Two precisions of one network.

    Attributes:
        weights: Bits of the weights, the same for both.
        low: Bits of the activations that the network is trained for.
        high: Bits of the activations that it is held to.
        coefficient: Weight of the distance between the activations.
    """

    weights: int
    low: int
    high: int = 32
    coefficient: float = 1e-5


def soft_shrink(x: Tensor, threshold: Tensor) -> Tensor:
    """Return `sign(x) max(|x| - threshold, 0)`: differences below the threshold are none."""
    return x.sign() * (x.abs() - threshold).clamp_min(0.0)


def activation_distance(high: Tensor, low: Tensor, low_bits: int) -> Tensor:
    """Return the squared distance of two activations beyond what rounding explains, a scalar.

    Args:
        high: Activations at the high precision.
        low: Those at the low precision, of the same shape.
        low_bits: Bits of the low precision; its step is taken as `max |high| / (2^bits - 1)`.
    """
    step = high.detach().abs().amax() / (2**low_bits - 1)
    return soft_shrink(high - low, step).square().sum()


def joint_precision_loss(
    network: nn.Module, arguments: tuple[Any, ...], targets: Tensor, joint: JointPrecision
) -> Tensor:
    """Return `CE(low) + CE(high) + coefficient * sum of distances` over all blocks.

    Both precisions share every parameter and the statistics of the normalisations. The network is
    left at the low precision.

    Args:
        network: Made by `build`.
        arguments: What its forward takes.
        targets: Classes, int64, shape (n,).
        joint: The two precisions.
    """
    seen: list[list[tuple[str, Tensor]]] = []
    for activations in (joint.high, joint.low):
        set_bits(network, joint.weights, activations)
        with block_outputs(network) as outputs:
            network(*arguments)
        seen.append(outputs)
    high, low = seen
    loss = F.cross_entropy(low[-1][1], targets) + F.cross_entropy(high[-1][1], targets)
    blocks = zip(high[:-2], low[:-2], strict=True)
    distances = [activation_distance(a, b, joint.low) for (_, a), (_, b) in blocks]
    return loss + joint.coefficient * sum(distances)
