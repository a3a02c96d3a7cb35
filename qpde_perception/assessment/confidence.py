"""Whether a network's confidence means anything: calibration, and telling known from unknown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qpde_perception.perception import softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

BINS = 15


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Answers of similar confidence.

    Attributes:
        count: Number of answers, at least one.
        confidence: Their mean confidence.
        accuracy: Share of them that is right.
    """

    count: int
    confidence: float
    accuracy: float


def confidence_of(logits: NDArray[np.float32], temperature: float = 1.0) -> Floats:
    """Return the largest probability of each image, shape (n,), of logits (n, classes)."""
    return np.asarray(softmax(logits / temperature).max(axis=1), np.float64)


def reliability(
    confidences: Floats, correct: NDArray[np.bool_], bins: int = BINS
) -> list[ReliabilityBin]:
    """Sort answers by confidence and cut them into bins of equal mass.

    Args:
        confidences: Shape (n,), n at least 1.
        correct: Which answers are right, shape (n,).
        bins: Number of bins; those that stay empty are left out.

    Returns:
        The bins, the least confident first. Of equal confidences the wrong answers come first, so
        the order of the input does not matter.
    """
    order = np.lexsort((correct, confidences))
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return [
        ReliabilityBin(len(p), float(confidences[p].mean()), float(correct[p].mean()))
        for p in parts
    ]


def calibration_error(bins: list[ReliabilityBin]) -> float:
    """Return the expected calibration error: the mean distance of accuracy from confidence.

    Naeini, Cooper, Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning",
    AAAI 2015; with bins of equal mass as in Nguyen, O'Connor, EMNLP 2015.
    """
    total = sum(each.count for each in bins)
    return sum(each.count * abs(each.accuracy - each.confidence) for each in bins) / total


def roc_curve(known: Floats, unknown: Floats) -> tuple[Floats, Floats]:
    """Return the operating points of `confident enough to be known`.

    Args:
        known: Confidences of what the network knows, at least one.
        unknown: Confidences of what it does not know, at least one.

    Returns:
        Share of the unknown that is taken for known, and share of the known that is; both rise from
        0 to 1, one point for every distinct confidence.
    """
    scores = np.concatenate([known, unknown])
    is_known = np.arange(len(scores)) < len(known)
    order = np.argsort(-scores, kind="stable")
    # Equal confidences pass the threshold together.
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    hits, alarms = np.cumsum(is_known[order])[last], np.cumsum(~is_known[order])[last]
    return np.append(0.0, alarms / len(unknown)), np.append(0.0, hits / len(known))


def area_under_roc(known: Floats, unknown: Floats) -> float:
    """Return how often a known thing gets more confidence than an unknown one, ties by half."""
    alarms, hits = roc_curve(known, unknown)
    return float(np.sum(np.diff(alarms) * (hits[1:] + hits[:-1]) / 2.0))
