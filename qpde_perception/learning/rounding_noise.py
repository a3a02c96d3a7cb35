"""What rounding does to the logits, as a quantity that training can make small.

Rounding errors taken as independent and uniform on a step give the difference of two logits the
variance `sum_j s_j^2 / 12 || grad_{a_j} (z_t - z_r) ||^2` (PAPER: section 7c). One draw of the
errors estimates it without a second derivative: with `d` what they change in the logits, the
expected `(d_t - d_r)^2` is that variance, to first order in the steps. So some frames of a batch
are computed twice, with roundings and without:

- before quantization the second time adds random errors, of the step of a grid that just holds the
  activation: the variance does not change with the activation's unit;
- in quantization the first time rounds, and the second time only clips.

Left out are the head's mean and that append-and-pool copies an error.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from qpde_perception.learning.quantizers import ActivationQuantizer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

RANGE = 8.0
"""Largest over root mean square of an activation, for the step of a grid that is not set yet."""


@contextmanager
def otherwise_rounded(network: nn.Module, count: int) -> Iterator[None]:
    """Have the last frames of every batch rounded where the others are not, or the reverse.

    Args:
        network: While the context lasts, its quantizers treat the frames differently.
        count: Number of the last frames.
    """

    def change(quantizer: nn.Module, given: tuple[Tensor], output: Tensor) -> Tensor:
        assert isinstance(quantizer, ActivationQuantizer)
        change = _clipped if quantizer.active else _disturbed
        return torch.cat([output[:-count], change(quantizer, given[0][-count:])])

    quantizers = [part for part in network.modules() if isinstance(part, ActivationQuantizer)]
    hooks = [quantizer.register_forward_hook(change) for quantizer in quantizers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def variance_of_differences(logits: Tensor, other: Tensor) -> Tensor:
    """Return the mean of `(d_t - d_r)^2` over the classes r, t the first class, `d` the change.

    Args:
        logits: Shape (n, classes).
        other: Logits of the same frames, otherwise rounded, shape (n, classes).

    Returns:
        One value per frame, squared logits, shape (n,).
    """
    change = logits - other
    first = change.gather(1, logits.detach().argmax(1, keepdim=True))
    return (first - change).square().sum(1) / (logits.shape[1] - 1)


def _clipped(quantizer: ActivationQuantizer, x: Tensor) -> Tensor:
    scale = quantizer.scale
    return (x / scale).clamp(quantizer.q_min, quantizer.q_max) * scale


def _disturbed(quantizer: ActivationQuantizer, x: Tensor) -> Tensor:
    step = RANGE * x.float().square().mean().sqrt() / quantizer.q_max
    error = step.to(x.dtype) * (torch.rand_like(x) - 0.5)
    # Where ReLU cuts off, zero is exact.
    return x + (error if quantizer.signed else error * (x > 0))
