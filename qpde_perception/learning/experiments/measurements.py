"""Measurements on activations: errors, signal to noise, and the shape of a distribution."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

HISTOGRAM_BINS = 200


@dataclass(slots=True)
class ErrorSum:
    """Sums over batches from which the error of an activation follows.

    Attributes:
        error: Sum of squared differences.
        signal: Sum of squares of the reference.
        count: Number of values.
    """

    error: float = 0.0
    signal: float = 0.0
    count: int = 0

    def add(self, quantized: Tensor, reference: Tensor) -> None:
        """Add one batch.

        Args:
            quantized: Values of the quantized network, any shape.
            reference: Values of the reference, of the same shape.
        """
        wide = reference.double()
        self.error += float((quantized.double() - wide).square().sum())
        self.signal += float(wide.square().sum())
        self.count += reference.numel()

    @property
    def rms(self) -> float:
        """Root mean square error, `sqrt(sum of squares / number of values)` (PAPER: section 5)."""
        return math.sqrt(self.error / self.count)

    @property
    def sqnr_db(self) -> float | None:
        """Signal to quantization noise, `10 log10(signal / error)`; None without any error."""
        if self.error == 0.0 or self.signal == 0.0:
            return None
        return 10.0 * math.log10(self.signal / self.error)


@dataclass(frozen=True, slots=True)
class Shape:
    """How the values of a feature map are distributed.

    Attributes:
        range: Largest minus smallest value.
        kurtosis: Fourth central moment over the squared variance; 3 for a normal distribution.
        entropy_bits: Entropy of a histogram of 200 equal bins over the range, bits.
        sqnr_db: Signal to noise of rounding to a uniform grid of the given bits over the range.
        rms: Root mean square error of that rounding.
    """

    range: float
    kurtosis: float
    entropy_bits: float
    sqnr_db: float | None
    rms: float


def shape_of(x: Tensor, bits: int) -> Shape | None:
    """Measure the distribution of a feature map's values.

    Args:
        x: Values, any shape.
        bits: Bits of the grid that they are rounded to.

    Returns:
        The measures; None for a constant map, which has none.
    """
    values = x.detach().double().flatten()
    low, high = values.min(), values.max()
    extent = float(high - low)
    centred = values - values.mean()
    variance = float(centred.square().mean())
    if variance == 0.0 or extent == 0.0:
        return None
    step = extent / (2**bits - 1)
    rounding = ErrorSum()
    rounding.add(torch.round((values - low) / step) * step + low, values)
    return Shape(
        range=extent,
        kurtosis=float(centred.pow(4).mean()) / variance**2,
        entropy_bits=entropy_bits(values),
        sqnr_db=rounding.sqnr_db,
        rms=rounding.rms,
    )


def entropy_bits(values: Tensor, bins: int = HISTOGRAM_BINS) -> float:
    """Return the entropy of a histogram over the range of the values, bits.

    Args:
        values: Any shape, not all equal.
        bins: Number of bins of equal width; the last one holds its upper end.
    """
    low, high = values.min(), values.max()
    index = ((values - low) / (high - low) * bins).long().clamp_max(bins - 1)
    shares = torch.bincount(index.flatten(), minlength=bins).double() / values.numel()
    used = shares[shares > 0]
    return float(-(used * used.log2()).sum())
