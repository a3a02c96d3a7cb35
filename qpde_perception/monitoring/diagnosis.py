"""What ails the inputs: which known fault moves their statistics as they are moved now."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from qpde_perception.bundles import InputReference, Signature

    Array = NDArray[np.float64]

LARGEST_SCORE = 3.0
"""Normal scores end here: beyond, a rank among some thousand frames says nothing."""

_NORMAL = NormalDist()
_LEAST_RANK = _NORMAL.cdf(-LARGEST_SCORE)
# Frames of a camera depend on each other: so many tell as much as one that stands alone.
_FRAMES_PER_INDEPENDENT = 8
# Two examples of one fault differ by this share of the healthy covariance, and by this deviation
# of every score whatever the covariance: severities are steps, faults are not.
_SPREAD = 0.1
_FLOOR = 0.2
# A signature is near where chance explains the distance to it (once in 1,000), or where it explains
# this share of the way from healthy.
_Z_NEAR = 3.09
_EXPLAINED = 0.75


def rank(value: float, quantiles: Sequence[float]) -> float:
    """Return the rank of a value among numbers that evenly spaced quantiles describe.

    Between two quantiles it is interpolated; where several are equal to the value, it is the middle
    of theirs, so that its mean over the numbers is a half also where many are the same.

    Args:
        value: The value; one that is not a number has no rank.
        quantiles: At evenly spaced probabilities from 0 to 1, ascending, at least two.

    Returns:
        From 0 to 1, or not a number.
    """
    if value != value:  # noqa: PLR0124 - not a number
        return value
    first, last = bisect_left(quantiles, value), bisect_right(quantiles, value)
    if first < last:
        place = (first + last - 1) / 2
    elif first == 0:
        place = 0.0
    elif first == len(quantiles):
        place = first - 1.0
    else:
        below, above = quantiles[first - 1], quantiles[first]
        place = first - 1 + (value - below) / (above - below)
    return place / (len(quantiles) - 1)


def normal_score(rank_: float) -> float:
    """Return the normal quantile of a rank, from -LARGEST_SCORE to LARGEST_SCORE.

    Args:
        rank_: From 0 to 1; one that is not a number scores 0, which speaks for nothing.
    """
    if rank_ != rank_:  # noqa: PLR0124 - not a number
        return 0.0
    return _NORMAL.inv_cdf(min(max(rank_, _LEAST_RANK), 1 - _LEAST_RANK))


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The most likely fault.

    Attributes:
        signature: The signature of the fault; None where no known fault is near.
        probability: Of its cause among the causes of all signatures; 0 where none is near.
        distance: Mahalanobis distance to it, or to the nearest where none is near.
    """

    signature: Signature | None
    probability: float
    distance: float


class Diagnostician:
    """Linear discriminant analysis among the signatures of known faults.

    Fisher 1936: the classes are the signatures, all with one covariance. That of a window's mean is
    the healthy one over the number of independent frames in the window, and a part that more frames
    do not make smaller. Faults are equally likely at first, and so are the severities of one.
    """

    def __init__(self, reference: InputReference) -> None:
        """Read the signatures of a calibration."""
        self._signatures = reference.signatures
        self._healthy = np.asarray(reference.covariance, dtype=np.float64)
        size = len(reference.statistics)
        # Healthy is one of the classes: where it is nearest, no fault is.
        self._shifts = np.array([[0.0] * size, *(each.shift for each in self._signatures)])
        faults = [each.fault for each in self._signatures]
        self._priors = np.array([-np.log(faults.count(fault)) for fault in faults])
        self._near = _chi_square_limit(size)

    def diagnose(self, window: ArrayLike) -> Diagnosis:
        """Name the fault of a window of frames.

        Args:
            window: Normal scores, shape (frames, statistics), at least one frame.
        """
        scores = np.asarray(window, dtype=np.float64)
        independent = max(len(scores) / _FRAMES_PER_INDEPENDENT, 1.0)
        size = scores.shape[1]
        covariance = self._healthy * (1 / independent + _SPREAD) + _FLOOR**2 * np.eye(size)
        gaps = self._shifts - scores.mean(0)
        squares = np.einsum("ij,ij->i", gaps, np.linalg.solve(covariance, gaps.T).T)
        healthy, distances = float(squares[0]), squares[1:]
        if not len(distances):
            return Diagnosis(None, 0.0, float(np.sqrt(healthy)))
        logs = self._priors - distances / 2
        shares = np.exp(logs - logs.max())
        shares /= shares.sum()
        by_cause: dict[str, float] = {}
        for signature, share in zip(self._signatures, shares, strict=True):
            by_cause[signature.cause] = by_cause.get(signature.cause, 0.0) + float(share)
        cause = max(by_cause, key=lambda each: by_cause[each])
        of_cause = [each.cause == cause for each in self._signatures]
        best = int(np.where(of_cause, shares, -1.0).argmax())
        nearest = float(distances[best])
        near = nearest < healthy and (
            nearest <= self._near or nearest <= (1 - _EXPLAINED) * healthy
        )
        if not near:
            return Diagnosis(None, 0.0, float(np.sqrt(distances.min())))
        return Diagnosis(self._signatures[best], by_cause[cause], float(np.sqrt(nearest)))


def _chi_square_limit(freedom: int) -> float:
    """Return what a chi-square variable exceeds once in 1,000 (Wilson and Hilferty 1931)."""
    part = 2 / (9 * freedom)
    return float(freedom * (1 - part + _Z_NEAR * part**0.5) ** 3)
