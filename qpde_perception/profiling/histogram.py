"""A histogram of durations that keeps every quantile to within 0.2 %."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_PRECISION_BITS = 9
_HALF = 1 << (_PRECISION_BITS - 1)

RELATIVE_ERROR = 1.0 / (1 << _PRECISION_BITS)
"""Largest relative error of a quantile: half the width of a bucket over its lower end."""

NS_PER_MS = 1_000_000


class Histogram(BaseModel):
    """Counts of durations in log-linear buckets, as in Tene's HdrHistogram.

    A duration of v nanoseconds below 512 has a bucket of its own, of number v. Above, with
    s = bit_length(v) - 9, the bucket is 256 s + (v >> s): 256 buckets of equal width for each
    doubling. Two histograms are merged by adding counts.

    Attributes:
        count: Number of durations.
        sum_ns: Their sum, nanoseconds.
        sum_squares_ns2: The sum of their squares.
        min_ns: The shortest; 0 where there is none.
        max_ns: The longest; 0 where there is none.
        buckets: Number of durations by number of the bucket.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: int = Field(ge=0)
    sum_ns: int = Field(ge=0)
    sum_squares_ns2: float = Field(ge=0.0)
    min_ns: int = Field(ge=0)
    max_ns: int = Field(ge=0)
    buckets: dict[int, int]

    @classmethod
    def of(cls, durations_ns: NDArray[np.int64]) -> Histogram:
        """Count durations, int64 (n,), nanoseconds, none negative."""
        if len(durations_ns) == 0:
            return cls(count=0, sum_ns=0, sum_squares_ns2=0.0, min_ns=0, max_ns=0, buckets={})
        numbers, counts = np.unique(buckets_of(durations_ns), return_counts=True)
        return cls(
            count=len(durations_ns),
            sum_ns=int(durations_ns.sum()),
            sum_squares_ns2=float(np.square(durations_ns.astype(np.float64)).sum()),
            min_ns=int(durations_ns.min()),
            max_ns=int(durations_ns.max()),
            buckets=dict(zip(numbers.tolist(), counts.tolist(), strict=True)),
        )

    @classmethod
    def merged(cls, parts: Sequence[Histogram]) -> Histogram:
        """Return the histogram of all durations of some histograms."""
        filled = [part for part in parts if part.count]
        buckets: dict[int, int] = {}
        for part in filled:
            for number, count in part.buckets.items():
                buckets[number] = buckets.get(number, 0) + count
        return cls(
            count=sum(part.count for part in filled),
            sum_ns=sum(part.sum_ns for part in filled),
            sum_squares_ns2=sum(part.sum_squares_ns2 for part in filled),
            min_ns=min((part.min_ns for part in filled), default=0),
            max_ns=max((part.max_ns for part in filled), default=0),
            buckets=dict(sorted(buckets.items())),
        )

    @property
    def mean_ms(self) -> float:
        """The mean, exact, milliseconds; 0 where there is no duration."""
        return self.sum_ns / self.count / NS_PER_MS if self.count else 0.0

    @property
    def deviation_ms(self) -> float:
        """The standard deviation, milliseconds; 0 where there is no duration."""
        if not self.count:
            return 0.0
        mean = self.sum_ns / self.count
        return math.sqrt(max(0.0, self.sum_squares_ns2 / self.count - mean * mean)) / NS_PER_MS

    @property
    def max_ms(self) -> float:
        """The longest, exact, milliseconds."""
        return self.max_ns / NS_PER_MS

    def quantile_ms(self, share: float) -> float:
        """Return the smallest duration that at least this share did not exceed, milliseconds.

        It is wrong by at most `RELATIVE_ERROR`, and never outside of what occurred.

        Raises:
            ValueError: If the histogram is empty.
        """
        if not self.count:
            msg = "an empty histogram has no quantile"
            raise ValueError(msg)
        numbers = sorted(self.buckets)
        passed = np.cumsum([self.buckets[number] for number in numbers])
        rank = min(max(1, math.ceil(share * self.count - 1e-9)), self.count)
        number = numbers[int(np.searchsorted(passed, rank))]
        middle = float(middles_ns(np.array([number]))[0])
        return min(max(middle, self.min_ns), self.max_ns) / NS_PER_MS


def buckets_of(durations_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the number of the bucket of each duration."""
    values = np.asarray(durations_ns, np.int64)
    # frexp's exponent is the bit length, and exact below 2^53 nanoseconds: 104 days.
    shifts = np.maximum(np.frexp(values.astype(np.float64))[1] - _PRECISION_BITS, 0)
    return np.asarray(shifts * _HALF + (values >> shifts), np.int64)


def middles_ns(numbers: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the middle of each bucket, nanoseconds."""
    shifts = np.maximum(numbers // _HALF - 1, 0)
    low = (numbers - shifts * _HALF).astype(np.float64) * np.exp2(shifts)
    return np.asarray(low + (np.exp2(shifts) - 1.0) / 2.0, np.float64)
