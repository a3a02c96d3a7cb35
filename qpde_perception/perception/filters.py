"""Temporal filters: probabilities of a thing seen again and again."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from qpde_perception.perception.scores import leading

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Box = tuple[float, float, float, float]

_MINIMUM_IOU = 0.3
# A detector that gives every box a new name must not fill the memory.
_MAX_TRACKS = 1024
_NS_PER_S = 1_000_000_000


class Filtered(NamedTuple):
    """What a filter makes of one frame.

    Attributes:
        probabilities: Shape (n, classes), float64; each row sums to 1.
        classes: The class of each item, shape (n,), int64.
    """

    probabilities: NDArray[np.float64]
    classes: NDArray[np.int64]


class TemporalFilter(Protocol):
    """Combines the probabilities of one camera's frames over time."""

    def update(
        self,
        stamp_ns: int,
        track_ids: Sequence[str],
        boxes: Sequence[Box | None],
        probabilities: NDArray[np.float64],
    ) -> Filtered:
        """Take in one frame.

        Args:
            stamp_ns: Capture time in the source's clock, nanoseconds.
            track_ids: Per item the track identifier, empty where there is none.
            boxes: Per item the box in pixels, None for the whole frame.
            probabilities: Shape (n, classes), n may be 0.
        """
        ...


class NoFilter:
    """The baseline: every frame speaks for itself."""

    def update(
        self,
        stamp_ns: int,  # noqa: ARG002
        track_ids: Sequence[str],  # noqa: ARG002
        boxes: Sequence[Box | None],  # noqa: ARG002
        probabilities: NDArray[np.float64],
    ) -> Filtered:
        """Return the probabilities as they are."""
        classes = np.array([leading(each) for each in probabilities], np.int64)
        return Filtered(probabilities, classes)


@dataclass(frozen=True, slots=True)
class _Track:
    """What is remembered of a thing; `rival_ns` is when its rival class began to lead."""

    stamp_ns: int
    probabilities: NDArray[np.float64]
    chosen: int
    rival: int = -1
    rival_ns: int = 0


class _TrackingFilter(ABC):
    """Remembers every thing a camera sees.

    Items are the same thing if they have the same track identifier; without one, if their boxes in
    consecutive frames overlap with an intersection over union of at least 0.3, the best pairs
    first. The whole frame is one thing. A frame that is not newer than the one before resets
    everything: with a clock that stands still or jumps back every frame speaks for itself.
    """

    def __init__(self, reset_after_s: float) -> None:
        self._reset_after_ns = reset_after_s * _NS_PER_S
        self._stamp_ns: int | None = None
        self._named: dict[str, _Track] = {}
        self._nameless: list[tuple[Box, _Track]] = []

    @abstractmethod
    def _next(self, track: _Track, stamp_ns: int, seen: NDArray[np.float64]) -> _Track:
        """Return a thing's track after it was seen once more."""

    def update(
        self,
        stamp_ns: int,
        track_ids: Sequence[str],
        boxes: Sequence[Box | None],
        probabilities: NDArray[np.float64],
    ) -> Filtered:
        """Take in one frame; see `TemporalFilter`."""
        if self._stamp_ns is not None and stamp_ns <= self._stamp_ns:
            self._named.clear()
            self._nameless.clear()
        self._stamp_ns = stamp_ns
        tracks: dict[int, _Track] = {}
        nameless: dict[int, Box] = {}
        used: set[str] = set()
        for item, (track_id, box) in enumerate(zip(track_ids, boxes, strict=True)):
            # A name that a detector gives twice in one frame names nothing the second time.
            if box is not None and (not track_id or track_id in used):
                nameless[item] = box
                continue
            used.add(track_id)
            # Taken out and put back, so that the dictionary is in order of last use.
            track = self._seen(self._named.pop(track_id, None), stamp_ns, probabilities[item])
            self._named[track_id] = tracks[item] = track
        pairs = _match(nameless, self._nameless)
        for item in nameless:
            tracks[item] = self._seen(pairs.get(item), stamp_ns, probabilities[item])
        self._nameless = [(box, tracks[item]) for item, box in nameless.items()]
        self._forget(stamp_ns)
        filtered = np.array(probabilities, np.float64)
        classes = np.zeros(len(filtered), np.int64)
        for item, track in tracks.items():
            filtered[item], classes[item] = track.probabilities, track.chosen
        return Filtered(filtered, classes)

    def _seen(
        self, track: _Track | None, stamp_ns: int, probabilities: NDArray[np.float64]
    ) -> _Track:
        if track is None or stamp_ns - track.stamp_ns > self._reset_after_ns:
            return _Track(stamp_ns, probabilities.copy(), leading(probabilities))
        return self._next(track, stamp_ns, probabilities)

    def _forget(self, stamp_ns: int) -> None:
        for track_id, track in list(self._named.items()):
            gone = stamp_ns - track.stamp_ns > self._reset_after_ns
            if not gone and len(self._named) <= _MAX_TRACKS:
                break
            del self._named[track_id]


class ExponentialFilter(_TrackingFilter):
    """Exponential moving average by time, so that an uneven frame rate does no harm.

    After a time dt the old value weighs exp(-dt / time constant).
    """

    def __init__(self, *, time_constant_s: float, reset_after_s: float) -> None:
        """Make a filter that has seen nothing.

        Args:
            time_constant_s: Time after which an old value weighs 1/e, seconds, above 0.
            reset_after_s: A thing not seen for longer than this starts anew, seconds.

        Raises:
            ValueError: If the time constant is not above 0.
        """
        super().__init__(reset_after_s)
        if not time_constant_s > 0.0:
            msg = f"time_constant_s is {time_constant_s}; it must be above 0"
            raise ValueError(msg)
        self._time_constant_ns = time_constant_s * _NS_PER_S

    def _next(self, track: _Track, stamp_ns: int, seen: NDArray[np.float64]) -> _Track:
        kept = math.exp(-(stamp_ns - track.stamp_ns) / self._time_constant_ns)
        average = kept * track.probabilities + (1.0 - kept) * seen
        return _Track(stamp_ns, average, leading(average))


class HysteresisFilter(_TrackingFilter):
    """A thing keeps its class until another one has led without interruption for a hold time.

    The probabilities are those of the frame: that of a class which is held may be small.
    """

    def __init__(self, *, hold_s: float, reset_after_s: float) -> None:
        """Make a filter that has seen nothing.

        Args:
            hold_s: How long another class must lead before it is taken over, seconds, above 0.
            reset_after_s: A thing not seen for longer than this starts anew, seconds.

        Raises:
            ValueError: If the hold time is not above 0.
        """
        super().__init__(reset_after_s)
        if not hold_s > 0.0:
            msg = f"hold_s is {hold_s}; it must be above 0"
            raise ValueError(msg)
        self._hold_ns = hold_s * _NS_PER_S

    def _next(self, track: _Track, stamp_ns: int, seen: NDArray[np.float64]) -> _Track:
        leader = leading(seen)
        fresh = _Track(stamp_ns, seen.copy(), track.chosen)
        if leader == track.chosen:
            return fresh
        if leader != track.rival:
            return replace(fresh, rival=leader, rival_ns=stamp_ns)
        if stamp_ns - track.rival_ns >= self._hold_ns:
            return replace(fresh, chosen=leader)
        return replace(fresh, rival=leader, rival_ns=track.rival_ns)


def _match(boxes: dict[int, Box], tracks: list[tuple[Box, _Track]]) -> dict[int, _Track]:
    """Pair items with tracks, the largest overlap first."""
    pairs: dict[int, _Track] = {}
    if not boxes or not tracks:
        return pairs
    items = list(boxes)
    overlaps = _iou(np.array(list(boxes.values())), np.array([box for box, _ in tracks]))
    taken: set[int] = set()
    for flat in np.argsort(-overlaps, axis=None, kind="stable").tolist():
        row, position = divmod(flat, len(tracks))
        if overlaps[row, position] < _MINIMUM_IOU or len(pairs) == len(items):
            break
        if items[row] not in pairs and position not in taken:
            pairs[items[row]] = tracks[position][1]
            taken.add(position)
    return pairs


def _iou(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return intersection over union of boxes (n, 4) with boxes (m, 4), shape (n, m)."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    common = np.clip(high - low, 0.0, None).prod(axis=-1)
    area_one = (one[:, 2:] - one[:, :2]).prod(axis=-1)
    area_other = (other[:, 2:] - other[:, :2]).prod(axis=-1)
    union = area_one[:, None] + area_other - common
    return np.asarray(common / np.maximum(union, np.finfo(np.float64).tiny), np.float64)
