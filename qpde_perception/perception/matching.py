"""Matching of live frames with the boxes that a detector found in them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from qpde_perception.frames import Regions

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Matches(Generic[Item]):
    """What became of waiting frames.

    Attributes:
        pairs: Frames with their regions, ready to be classified.
        passed: Frames older than one that was matched: their regions will not come any more.
        crowded: Frames that waited until there was no room for them.
    """

    pairs: list[tuple[Item, Regions]] = field(default_factory=list)
    passed: list[Item] = field(default_factory=list)
    crowded: list[Item] = field(default_factory=list)


class RegionMatcher(Generic[Item]):
    """Pairs each frame with the regions of its stamp, whichever comes first, in bounded memory."""

    def __init__(self, *, slop_ns: int = 0, capacity: int = 8) -> None:
        """Make a matcher that has seen nothing.

        Args:
            slop_ns: How far the stamps of a frame and its regions may be apart; 0 for equal ones.
            capacity: How many frames, and how many messages of regions, may wait.
        """
        self._slop_ns = slop_ns
        self._capacity = capacity
        self._frames: deque[tuple[int, Item]] = deque()
        self._regions: deque[tuple[int, Regions]] = deque(maxlen=capacity)

    def add_frame(self, stamp_ns: int, item: Item) -> Matches[Item]:
        """Take in a frame."""
        nearest = _nearest(self._regions, stamp_ns, self._slop_ns)
        if nearest is not None:
            regions = self._regions[nearest][1]
            del self._regions[nearest]
            return Matches([(item, regions)], self._passed(stamp_ns))
        self._frames.append((stamp_ns, item))
        crowded = []
        while len(self._frames) > self._capacity:
            crowded.append(self._frames.popleft()[1])
        return Matches(crowded=crowded)

    def add_regions(self, stamp_ns: int, regions: Regions) -> Matches[Item]:
        """Take in the regions of one frame."""
        nearest = _nearest(self._frames, stamp_ns, self._slop_ns)
        if nearest is None:
            self._regions.append((stamp_ns, regions))
            return Matches()
        found_ns, item = self._frames[nearest]
        del self._frames[nearest]
        return Matches([(item, regions)], self._passed(found_ns))

    def clear(self) -> list[Item]:
        """Forget everything, as after a jump of the clock; return the frames that waited."""
        left = [item for _, item in self._frames]
        self._frames.clear()
        self._regions.clear()
        return left

    def _passed(self, stamp_ns: int) -> list[Item]:
        passed = [item for waiting_ns, item in self._frames if waiting_ns < stamp_ns]
        self._frames = deque(pair for pair in self._frames if pair[0] >= stamp_ns)
        return passed


def _nearest(waiting: deque[tuple[int, Item]], stamp_ns: int, slop_ns: int) -> int | None:
    """Return the position of what is nearest in time, or None where nothing is near enough."""
    distances = [(abs(other_ns - stamp_ns), index) for index, (other_ns, _) in enumerate(waiting)]
    distance, index = min(distances, default=(slop_ns + 1, 0))
    return index if distance <= slop_ns else None
