"""The course of drift over a drive: numbers, and from when to when each verdict stood."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from qpde_perception.monitoring.levels import Level
from qpde_perception.monitoring.thinned import Thinned

if TYPE_CHECKING:
    from array import array

    from qpde_perception.monitoring.verdicts import DriftReport, Verdict


@dataclass(frozen=True, slots=True)
class Episode:
    """The time that a verdict stood.

    Attributes:
        verdict: The verdict, as it was last.
        begin_s: When it was raised, seconds of the drive.
        end_s: When it was withdrawn; None where it still stands.
    """

    verdict: Verdict
    begin_s: float
    end_s: float | None = None


@dataclass(slots=True)
class DriftCourse:
    """What was reported, one moment after another; what nobody knew is not a number.

    Of many moments, evenly spread ones are kept.

    Attributes:
        episodes: The verdicts, in the order in which they were raised.
        last: The last report; None before the first.
    """

    episodes: list[Episode] = field(default_factory=list)
    last: DriftReport | None = None
    _moments: Thinned = field(default_factory=lambda: Thinned("dddd"))

    @property
    def times_s(self) -> array[float]:
        """Time of each moment, seconds of the drive."""
        return self._moments.columns[0]

    @property
    def evidence(self) -> array[float]:
        """Decimal logarithm of the combined evidence."""
        return self._moments.columns[1]

    @property
    def noise_ratio(self) -> array[float]:
        """Recent squared distance to the reference, over that of a healthy engine."""
        return self._moments.columns[2]

    @property
    def disagreement(self) -> array[float]:
        """Recent share of items with another first class than the reference's."""
        return self._moments.columns[3]

    def add(self, time_s: float, report: DriftReport) -> None:
        """Add what is known at a moment."""
        self.last = report
        numbers = report.combined_evidence, report.noise_ratio, report.disagreement
        self._moments.add(time_s, *(math.nan if each is None else each for each in numbers))
        standing = {_key(verdict): verdict for verdict in report.causes}
        for index, episode in enumerate(self.episodes):
            if episode.end_s is None:
                now = standing.pop(_key(episode.verdict), None)
                self.episodes[index] = (
                    replace(episode, end_s=time_s) if now is None else replace(episode, verdict=now)
                )
        self.episodes += [Episode(verdict, time_s) for verdict in standing.values()]

    @property
    def known(self) -> bool:
        """Whether there is anything to draw."""
        return not all(math.isnan(value) for value in (*self.evidence, *self.noise_ratio))

    @property
    def level(self) -> Level:
        """The worst level that was reached at any time."""
        return max((episode.verdict.level for episode in self.episodes), default=Level.OK)

    def document(self) -> dict[str, Any]:
        """Return the last numbers and all verdicts as a JSON object."""
        numbers = {} if self.last is None else asdict(self.last)
        for name in ("level", "causes"):
            numbers.pop(name, None)
        return {
            "level": self.level.name,
            "verdicts": [
                {
                    **asdict(episode.verdict),
                    "cause": episode.verdict.cause.value,
                    "level": episode.verdict.level.name,
                    "begin_s": episode.begin_s,
                    "end_s": episode.end_s,
                }
                for episode in self.episodes
            ],
            **numbers,
        }


def _key(verdict: Verdict) -> tuple[str, str]:
    return verdict.cause.value, verdict.rule
