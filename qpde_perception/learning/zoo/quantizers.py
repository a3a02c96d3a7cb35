"""Quantizers of the published networks: learned clipping, uniform or additive powers of two.

Sources: Ben-Yair, Ben Shalom, Eliasof, Treister, "Quantized convolutional neural networks through
the lens of partial differential equations", Research in the Mathematical Sciences 9:58 (2022); Li,
Dong, Wang, "Additive powers-of-two quantization", ICLR 2020 (normalised weights, the additive
grid, the gradient of one and two bits).

With `u = clip(t / alpha, low, 1)` the value is `alpha q(u)`. Rounding passes its gradient straight
through: `t` gets the gradient where it is not clipped, and `alpha` gets `q(u) - u` there and the
clip's sign elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from qpde_perception.learning.errors import LearningError
from qpde_perception.learning.quantizers import ACTIVATION_CLIP_START, WEIGHT_CLIP_START

if TYPE_CHECKING:
    from collections.abc import Callable

Grid = Literal["uniform", "apot"]

FINEST_BITS = 16
"""Most bits of a grid; above, values are only clipped, as in the reference with 32 bits."""

COARSE_BITS = 2
"""Most bits of the weights whose gradient passes the clipping too."""


@dataclass(frozen=True, slots=True)
class _Rounding:
    """How clipped values are rounded.

    Attributes:
        low: Lower clip, in units of `alpha`: -1 or 0.
        levels: Codes of `alpha`.
        rounded: Rounds codes between `low * levels` and `levels`.
        passes_clip: Whether clipped values get the gradient too.
    """

    low: float
    levels: int
    rounded: Callable[[Tensor], Tensor]
    passes_clip: bool = False


class _ClipAndRound(torch.autograd.Function):
    """`alpha / levels * rounded(clip(t levels / alpha, low levels, levels))`, straight through."""

    @staticmethod
    def forward(ctx: Any, t: Tensor, alpha: Tensor, rounding: _Rounding) -> Tensor:
        levels = rounding.levels
        scale = alpha / levels
        codes = rounding.rounded((t / scale).clamp_(rounding.low * levels, levels))
        value = codes.mul_(scale)
        ctx.save_for_backward(t, alpha, value)
        ctx.rounding = rounding
        return value

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        t, alpha, value = ctx.saved_tensors
        signed = ctx.rounding.low < 0
        inside = t.abs() <= alpha if signed else (t >= 0) & (t <= alpha)
        kept = torch.where(inside, t, 0.0)
        to_alpha = (gradient * (value - kept)).sum() / alpha
        to_t = gradient if ctx.rounding.passes_clip else gradient * inside
        return to_t, to_alpha, None


def _clip_and_round(t: Tensor, alpha: Tensor, rounding: _Rounding) -> Tensor:
    return _ClipAndRound.apply(t, alpha, rounding)  # type: ignore[no-any-return, no-untyped-call]


def _to_sign(codes: Tensor) -> Tensor:
    return torch.where(codes < 0, -1.0, 1.0).to(codes.dtype)


def additive_levels(bits: int) -> list[float]:
    """Return the `2^bits` sums of powers of two between 0 and 1, ascending.

    Each of `bits // 2` terms is zero or one of three powers of two, and for an odd number of bits
    one more term is zero or a single one; no power is in two terms. The sums are divided by the
    largest (equations 5 and 6 of Li, Dong, Wang).
    """
    terms = bits // 2
    exponents = [[i + 1, i + 1 + terms, i + 1 + 2 * terms + bits % 2] for i in range(terms)]
    if bits % 2:
        exponents.append([2 * terms + 1])
    choices = [[0.0, *(2.0**-e for e in powers)] for powers in exponents]
    sums = sorted(sum(choice) for choice in product(*choices))
    return [value / sums[-1] for value in sums]


@lru_cache(maxsize=256)
def _additive_tables(bits: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    levels = torch.tensor(additive_levels(bits), dtype=torch.float64)
    middles = (levels[1:] + levels[:-1]) / 2
    return levels.to(device, dtype), middles.to(device, dtype)


def _to_additive(codes: Tensor, bits: int) -> Tensor:
    levels, middles = _additive_tables(bits, codes.dtype, codes.device)
    return levels[torch.bucketize(codes.abs(), middles)] * codes.sign()


def _quantize(t: Tensor, alpha: Tensor, bits: int, grid: Grid, *, signed: bool) -> Tensor:
    low = -1.0 if signed else 0.0
    if bits > FINEST_BITS:
        return torch.clamp(t, low * alpha, alpha)
    magnitude_bits = bits - 1 if signed else bits
    if grid == "apot":
        rounding = _Rounding(low, 1, partial(_to_additive, bits=magnitude_bits))
    else:
        rounding = _Rounding(low, 2**magnitude_bits - 1, torch.round_)
    return _clip_and_round(t, alpha, rounding)


class LearnedWeightQuantizer(nn.Module):
    """Normalise a weight tensor over its whole and quantize it with learned clipping.

    Two bits are `alpha {-1, 0, 1}` and one bit is `alpha {-1, 1}`, uniform whatever the grid, and
    pass the gradient also to weights that are clipped, as Li, Dong and Wang calibrate them.

    Attributes:
        grid: `uniform` or `apot`.
        normalised: Whether mean and deviation are taken out, for a normalisation that follows;
            otherwise the grid is laid out in deviations, and the scale stays that of the weights.
        most_bits: Bits that the weights have at most, however many are asked for.
        alpha: Learned clipping, in standard deviations of the weights.
        bits: Bits with the sign; None in floating point, where weights are normalised alike.
    """

    def __init__(self, grid: Grid, *, normalised: bool = True, most_bits: int = 32) -> None:
        super().__init__()
        self.grid: Grid = grid
        self.normalised = normalised
        self.most_bits = most_bits
        self.alpha = nn.Parameter(torch.tensor(WEIGHT_CLIP_START))
        self.bits: int | None = None

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weights that the layer uses, of the shape of `weight`."""
        if not self.normalised:
            if self.bits is None:
                return weight
            deviation = weight.std()
            return self._on_grid(weight / deviation) * deviation
        deviation, mean = torch.std_mean(weight)
        return self._on_grid((weight - mean) / deviation)

    def _on_grid(self, weight: Tensor) -> Tensor:
        if self.bits is None:
            return weight
        if self.bits <= COARSE_BITS:
            rounded = _to_sign if self.bits == 1 else torch.round_
            return _clip_and_round(weight, self.alpha, _Rounding(-1.0, 1, rounded, True))
        return _quantize(weight, self.alpha, self.bits, self.grid, signed=True)


class LearnedActivationQuantizer(nn.Module):
    """Quantize activations with learned clipping, one for the tensor.

    Attributes:
        grid: `uniform` or `apot`.
        signed: Whether the grid is `[-alpha, alpha]`; otherwise `[0, alpha]`, which is one more
            ReLU to a tensor that has negative values.
        alpha: Learned clipping, in units of the activations.
        bits: Bits, with the sign where there is one; None in floating point: values pass.
    """

    def __init__(self, grid: Grid, *, signed: bool = False) -> None:
        super().__init__()
        self.grid: Grid = grid
        self.signed = signed
        self.alpha = nn.Parameter(torch.tensor(ACTIVATION_CLIP_START))
        self.bits: int | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return values on the grid, of the shape of `x` and the dtype of `alpha`."""
        if self.bits is None:
            return x
        x = x.to(self.alpha.dtype)
        return _quantize(x, self.alpha, self.bits, self.grid, signed=self.signed)


def set_quantizer_bits(network: nn.Module, weights: int | None, activations: int | None) -> None:
    """Set the precision of every quantizer inside `network`; None is floating point.

    Raises:
        LearningError: If a number of bits is not between 1 and 32, or one bit is to hold a sign.
    """
    for bits in (weights, activations):
        if bits is not None and not 1 <= bits <= 32:
            msg = f"a precision is 1 to 32 bits, or None for floating point, not {bits}"
            raise LearningError(msg)
    for part in network.modules():
        if isinstance(part, LearnedWeightQuantizer):
            part.bits = None if weights is None else min(weights, part.most_bits)
        elif isinstance(part, LearnedActivationQuantizer):
            if part.signed and activations == 1:
                msg = "the signed activations of this network need at least 2 bits"
                raise LearningError(msg)
            part.bits = activations
