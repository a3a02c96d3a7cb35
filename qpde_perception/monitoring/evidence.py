"""Evidence that grows: betting e-processes, valid at every moment of an unbounded stream.

The null of a stream of numbers between 0 and 1 is "given the past, the next one is at most m on
average". Whoever bets a share of the wealth on its being larger multiplies the wealth by
`1 + bet (x - m)`, at most 1 on average: under the null the wealth is a nonnegative supermartingale,
and by Ville's inequality (1939) it ever reaches 1 / alpha with a probability of at most alpha, at
whatever moment one looks and however the numbers depend on each other.

Betting on means of bounded numbers: Waudby-Smith and Ramdas, "Estimating means of bounded random
variables by betting", JRSS B 2024. Change detection by such wealth: Shekhar and Ramdas, arXiv
2309.09111.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from qpde_perception.monitoring.errors import MonitoringError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]

_BETS = 8
_MEAN = np.full(_BETS, 1 / _BETS)
# The largest bet leaves a tenth of the wealth when x is 0, and multiplies it by at most 8 when x is
# 1: a rare event that comes twice in a row is not yet proof.
_RISK = 0.9
_LARGEST_GAIN = 7.0


def bets(means: ArrayLike) -> Array:
    """Return the bets against each mean: half as large each, from the largest that is safe.

    Args:
        means: The nulls, each above 0 and below 1, shape (n,).

    Returns:
        float64, shape (n, bets).
    """
    m = np.asarray(means, dtype=np.float64)
    largest = np.minimum(_RISK / m, _LARGEST_GAIN / (1 - m))
    return np.asarray(largest[:, None] * 0.5 ** np.arange(_BETS))


class Evidence:
    """E-processes of streams that advance together, one for each.

    The wealth of a stream starts at 1 and is split over bets of several sizes and over all moments
    at which the change may come: part `w_t = 1 / ln(t + 1) - 1 / ln(t + 2)`, times ln 2, is kept
    aside until frame t. So the delay of a detection grows only with the logarithm of the healthy
    time before. The wealth is cut at a cap, which only lowers it: it is soon small again when a
    fault has passed. A restart begins the moments anew with the wealth that there is: at no time
    does wealth come from nothing, and the inequality holds over all restarts.
    """

    def __init__(self, means: ArrayLike, cap: float = math.inf) -> None:
        """Start with a wealth of 1 in each stream.

        Args:
            means: The nulls, each above 0 and below 1, shape (n,).
            cap: Largest wealth of a stream.

        Raises:
            MonitoringError: If a mean is not above 0 and below 1.
        """
        self._means = np.asarray(means, dtype=np.float64).reshape(-1)
        if not ((self._means > 0) & (self._means < 1)).all():
            msg = f"means {self._means.tolist()} are not all above 0 and below 1; calibrate again"
            raise MonitoringError(msg)
        n = len(self._means)
        self._cap = cap
        self._bets = bets(self._means)
        self._staked = np.zeros((n, _BETS))
        self._aside = np.ones(n)
        self._wealth = np.ones(n)  # at the last restart
        self._frames = np.zeros(n)  # since then
        self._values = np.ones(n)
        self._runs = np.zeros((n, _BETS))
        self._begun = np.zeros((n, _BETS))
        self._count = 0

    @property
    def values(self) -> Array:
        """Evidence against each null: e-values, float64, shape (n,)."""
        return self._values

    @property
    def recent(self) -> Array:
        """How much each bet has gained since its last low, its mean over bets, shape (n,).

        A CUSUM statistic: under the null its run to a height has a mean length of at least this
        height. It answers at once, but reaches any height in the end: good for a suspicion, not
        for a verdict.
        """
        return np.asarray(self._runs @ _MEAN)

    def risen_since(self, stream: int) -> int:
        """Return the number of frames that were added before the best bet's last low."""
        return int(self._begun[stream, self._runs[stream].argmax()])

    def add(self, x: ArrayLike) -> None:
        """Take the next number of each stream.

        Args:
            x: Between 0 and 1, shape (n,). One that is not a number changes nothing.
        """
        excess = np.minimum(np.maximum(x, 0.0), 1.0)
        excess -= self._means
        if math.isnan(excess.sum()):
            excess[np.isnan(excess)] = 0.0
        gains = self._bets * excess[:, None]
        gains += 1.0
        self._frames += 1.0
        aside = np.log(self._frames + 2.0)
        np.divide(self._wealth * math.log(2), aside, out=aside)
        self._staked += (self._aside - aside)[:, None]
        self._staked *= gains
        self._aside = aside
        self._values = self._staked @ _MEAN
        self._values += aside
        if (self._values > self._cap).any():
            room = (self._cap - aside) / np.maximum(self._values - aside, self._cap - aside)
            self._staked *= room[:, None]
            np.minimum(self._values, self._cap, out=self._values)
        np.copyto(self._begun, self._count, where=self._runs <= 1.0)
        np.maximum(self._runs, 1.0, out=self._runs)
        self._runs *= gains
        np.minimum(self._runs, self._cap, out=self._runs)
        self._count += 1

    def restart(self, streams: NDArray[Any]) -> None:
        """Begin anew in some streams, with the wealth that they have.

        Args:
            streams: bool, shape (n,).
        """
        self._wealth[streams] = self._values[streams]
        self._aside[streams] = self._values[streams]
        self._staked[streams] = 0.0
        self._frames[streams] = 0.0
        self._runs[streams] = 0.0


def upper_mean_bound(values: ArrayLike, confidence: float) -> float:
    """Bound the mean of independent numbers between 0 and 1 from above.

    The bound is the smallest mean that the bets reject: all larger ones are rejected, too. The
    order of the values plays no part.

    Args:
        values: Between 0 and 1, shape (n,), one of each independent group.
        confidence: Probability with which the bound holds, at least; above 0 and below 1.

    Returns:
        The bound; 1 where nothing below can be rejected.

    Raises:
        MonitoringError: If there is no value, one is not between 0 and 1, or the confidence is not.
    """
    x = np.asarray(values, dtype=np.float64).reshape(-1)
    if not len(x) or not ((x >= 0) & (x <= 1)).all():
        msg = f"a mean of {len(x)} values can be bounded where each is from 0 to 1 and one exists"
        raise MonitoringError(msg)
    if not 0 < confidence < 1:
        msg = f"confidence is {confidence}; give one above 0 and below 1"
        raise MonitoringError(msg)
    wanted = -math.log(1 - confidence)
    low, high = float(x.mean()), 1.0
    while high - low > 1e-9 + 1e-6 * low:
        mean = (low + high) / 2
        if _log_wealth_below(x, mean) >= wanted:
            high = mean
        else:
            low = mean
    return high


def _log_wealth_below(x: Array, mean: float) -> float:
    """Return the log of the wealth of bets on less than a mean, above 0 and below 1."""
    stakes = bets([1 - mean])[0]
    logs = np.log1p(stakes * (mean - x[:, None])).sum(0)
    return float(np.logaddexp.reduce(logs) - math.log(_BETS))
