"""False alarms of the drift monitor's evidence over streams in which nothing has changed.

Many streams advance together: the project's own `Evidence` takes them as so many more rows, and an
alarm is what `Suspicion` calls one, the average of all e-values of a stream at 1 / alpha. What is
kept is the largest average of every stream, so that one pass answers for every alpha.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qpde_perception.monitoring.evidence import Evidence
from qpde_perception.monitoring.suspicion import numbers_of, observables_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qpde_perception.bundles import Calibration
    from qpde_perception.monitoring import Observation

    Next = Callable[[np.ndarray], np.ndarray]
    """From the combined evidence of each stream to its next numbers, (streams, observables)."""

ALPHAS = (0.1, 0.01, 0.001)
SWITCH = 0.02
BOLD_ABOVE = 0.3


def matrix_of(calibration: Calibration, observations: Sequence[Observation]) -> np.ndarray:
    """Return the numbers of observations, shape (n, observables)."""
    return np.array([numbers_of(calibration, each) for each in observations])


def nulls_of(calibration: Calibration) -> np.ndarray:
    """Return the largest mean that each observable may have, given the past."""
    return np.array([each.bound for _, each in observables_of(calibration)])


def largest_evidence(nulls: np.ndarray, streams: int, frames: int, step: Next) -> np.ndarray:
    """Return the largest average of the e-values that each stream ever had, shape (streams,)."""
    size = len(nulls)
    # The cap is that of `Suspicion` for the smallest alpha.
    evidence = Evidence(np.tile(nulls, streams), 10 * size / min(ALPHAS))
    largest = combined = np.ones(streams)
    for _ in range(frames):
        evidence.add(step(combined).reshape(-1))
        combined = evidence.values.reshape(streams, size).mean(1)
        largest = np.maximum(largest, combined)
    return largest


def independent_at_null(nulls: np.ndarray, streams: int, rng: np.random.Generator) -> Next:
    """Every number is 0 or 1, its mean the largest that is allowed: the most variance there is."""
    return lambda _combined: (rng.random((streams, len(nulls))) < nulls).astype(float)


def markov_modulated(nulls: np.ndarray, streams: int, rng: np.random.Generator) -> Next:
    """One hidden state a stream: quiet, or wild with means at the null, and one chance for all."""
    wild = rng.random(streams) < 0.5

    def step(_combined: np.ndarray) -> np.ndarray:
        nonlocal wild
        wild = wild ^ (rng.random(streams) < SWITCH)
        chance = (rng.random((streams, 1)) < nulls).astype(float)
        return np.where(wild[:, None], chance, nulls * rng.random((streams, 1)))

    return step


def adversary(nulls: np.ndarray, streams: int, rng: np.random.Generator) -> Next:
    """Plays for an alarm within the null, all observables together, and knows the evidence.

    While the evidence is worth it, everything is staked on one chance; else nothing moves, until it
    tries again.
    """

    def step(combined: np.ndarray) -> np.ndarray:
        bold = (combined > BOLD_ABOVE) | (rng.random(streams) < SWITCH)
        chance = (rng.random((streams, 1)) < nulls).astype(float)
        return np.where(bold[:, None], chance, nulls)

    return step


def resampled(bank: np.ndarray, streams: int, rng: np.random.Generator) -> Next:
    """Real frames, one after another at random."""
    return lambda _combined: bank[rng.integers(len(bank), size=streams)]


def in_blocks(step: Next, size: int) -> Next:
    """Take the mean of so many steps as one, as the monitor does where many items are sampled."""
    return lambda combined: np.mean([step(combined) for _ in range(size)], axis=0)


def by_track(
    bank: np.ndarray, tracks: np.ndarray, *, streams: int, share: float, rng: np.random.Generator
) -> Next:
    """Real tracks after one another at random, a share of the frames of each in their order.

    Args:
        bank: Numbers of all frames, those of a track together and in order.
        tracks: Name of each frame's track.
        streams: Number of streams.
        share: Probability with which a frame is sampled.
        rng: Source of chance.
    """
    starts = np.flatnonzero(np.r_[True, tracks[1:] != tracks[:-1]])
    ends = np.r_[starts[1:], len(tracks)]
    track = rng.integers(len(starts), size=streams)
    place = starts[track]

    def step(_combined: np.ndarray) -> np.ndarray:
        nonlocal track, place
        # Frames until the next one that is sampled.
        ahead = rng.geometric(share, size=streams)
        while True:
            left = ends[track] - place
            over = ahead > left
            if not over.any():
                break
            ahead = np.where(over, ahead - left, ahead)
            track = np.where(over, rng.integers(len(starts), size=streams), track)
            place = np.where(over, starts[track], place)
        place = place + ahead
        return bank[place - 1]

    return step
