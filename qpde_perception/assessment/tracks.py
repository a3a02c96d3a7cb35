"""Accuracy on whole tracks: one sign, seen again and again as the car approaches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from qpde_perception.perception import TemporalFilter

_NS_PER_S = 1_000_000_000


def frames_of(tracks: Sequence[str]) -> list[NDArray[np.int64]]:
    """Return the positions of each track's frames, in order, from the track of every frame."""
    groups: dict[str, list[int]] = {}
    for position, track in enumerate(tracks):
        groups.setdefault(track, []).append(position)
    return [np.array(frames, np.int64) for frames in groups.values()]


def majority_accuracy(
    probabilities: NDArray[np.float64],
    labels: NDArray[np.int64],
    tracks: Iterable[NDArray[np.int64]],
) -> float:
    """Return the share of tracks whose most frequent answer is right.

    Args:
        probabilities: Of every frame, shape (n, classes).
        labels: True class of every frame, shape (n,), the same throughout a track.
        tracks: Positions of each track's frames, at least one track. Of two answers that are
            equally frequent the one with the larger sum of probabilities counts.
    """
    right = []
    for frames in tracks:
        seen = probabilities[frames]
        votes = np.bincount(seen.argmax(axis=1), minlength=seen.shape[1])
        leading = votes == votes.max()
        answer = int(np.where(leading, seen.sum(axis=0), -1.0).argmax())
        right.append(answer == labels[frames[0]])
    return float(np.mean(right))


def filtered_accuracy(
    probabilities: NDArray[np.float64],
    labels: NDArray[np.int64],
    tracks: Iterable[NDArray[np.int64]],
    new_filter: Callable[[], TemporalFilter],
    rate_hz: float,
) -> float:
    """Return the share of tracks whose answer is right at the last frame, after a temporal filter.

    Args:
        probabilities: Of every frame, shape (n, classes).
        labels: True class of every frame, shape (n,), the same throughout a track.
        tracks: Positions of each track's frames in temporal order, at least one track.
        new_filter: Makes a filter that has seen nothing.
        rate_hz: Frames per second.
    """
    right = []
    for frames in tracks:
        temporal = new_filter()
        chosen = -1
        for number, frame in enumerate(frames):
            stamp_ns = round(number * _NS_PER_S / rate_hz)
            seen = temporal.update(stamp_ns, ["sign"], [None], probabilities[frame][None])
            chosen = int(seen.classes[0])
        right.append(chosen == labels[frames[0]])
    return float(np.mean(right))
