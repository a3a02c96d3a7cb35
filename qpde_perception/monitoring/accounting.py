"""Accounting of frames: each one that arrives is published, or dropped for a stated reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum


class DropReason(str, Enum):
    """Why a frame was not published; the value is what files and diagnostics show."""

    SUPERSEDED = "superseded"
    MALFORMED = "malformed"
    TOO_OLD = "too_old"
    OVER_CAPACITY = "over_capacity"
    ENGINE_DOWN = "engine_down"


@dataclass(frozen=True, slots=True)
class Counts:
    """Frames of one camera topic, or of all together.

    Attributes:
        received: Frames that arrived.
        published: Frames whose result was published.
        dropped: Frames that were not, by reason; reasons that did not occur are left out.
    """

    received: int
    published: int
    dropped: dict[DropReason, int]

    @property
    def balanced(self) -> bool:
        """Whether every frame received has ended in exactly one way."""
        return self.received == self.published + sum(self.dropped.values())


@dataclass(slots=True)
class Accounting:
    """Counters of all camera topics; between events of one frame it is briefly not balanced."""

    _received: Counter[str] = field(default_factory=Counter)
    _published: Counter[str] = field(default_factory=Counter)
    _dropped: Counter[tuple[str, DropReason]] = field(default_factory=Counter)

    def received(self, topic: str) -> None:
        """Count a frame that arrived on a camera topic."""
        self._received[topic] += 1

    def published(self, topic: str) -> None:
        """Count a frame whose result was published."""
        self._published[topic] += 1

    def dropped(self, topic: str, reason: DropReason) -> None:
        """Count a frame that was dropped."""
        self._dropped[topic, reason] += 1

    @property
    def topics(self) -> dict[str, Counts]:
        """Counts by camera topic, in order of the topics' names."""
        named = {*self._received, *self._published, *(topic for topic, _ in self._dropped)}
        return {
            topic: Counts(
                received=self._received[topic],
                published=self._published[topic],
                dropped={
                    reason: self._dropped[topic, reason]
                    for reason in DropReason
                    if self._dropped[topic, reason]
                },
            )
            for topic in sorted(named)
        }

    @property
    def totals(self) -> Counts:
        """Counts of all camera topics together."""
        dropped: Counter[DropReason] = Counter()
        for (_, reason), count in self._dropped.items():
            dropped[reason] += count
        return Counts(
            received=self._received.total(),
            published=self._published.total(),
            dropped={reason: dropped[reason] for reason in DropReason if dropped[reason]},
        )

    @property
    def balanced(self) -> bool:
        """Whether received = published + dropped holds on every camera topic by itself."""
        return all(counts.balanced for counts in self.topics.values())
