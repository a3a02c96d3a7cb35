"""Accuracy of results against the truth that a drive carries."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qpde_perception.perception import RegionResult

UNKNOWN = -1
# Results and truth of one stamp lie close together in a drive; what finds no partner within this
# many others never will, and must not pile up.
_WAITING = 1024

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Judged:
    """One result beside the truth.

    Attributes:
        stamp_ns: Stamp of the frame.
        truth: True class index; -1 for an object that the model does not know.
        predicted: Class index of the single frame.
        filtered: Class index after the temporal filter.
        probability: Probability of `predicted`.
    """

    stamp_ns: int
    truth: int
    predicted: int
    filtered: int
    probability: float


@dataclass(slots=True)
class TruthScore:
    """Brings results and truth together by topic, stamp and box, in whichever order they come.

    Attributes:
        judged: Results that found their truth, in order.
        unmatched: Results and true boxes of a common stamp that found no partner.
    """

    judged: list[Judged] = field(default_factory=list)
    unmatched: int = 0
    _results: dict[tuple[str, int], tuple[RegionResult, ...]] = field(default_factory=dict)
    _truths: dict[tuple[str, int], dict[Box, int]] = field(default_factory=dict)

    def add_results(self, topic: str, stamp_ns: int, results: tuple[RegionResult, ...]) -> None:
        """Add the results of one frame."""
        truth = self._truths.pop((topic, stamp_ns), None)
        if truth is not None:
            self._judge(stamp_ns, results, truth)
            return
        self._results[topic, stamp_ns] = results
        if len(self._results) > _WAITING:
            del self._results[next(iter(self._results))]

    def add_truth(
        self, topic: str, stamp_ns: int, boxes: Sequence[Box], classes: Sequence[int]
    ) -> None:
        """Add the truth of one frame.

        Args:
            topic: The camera topic.
            stamp_ns: Stamp of the frame.
            boxes: The true boxes, in pixels of the frame.
            classes: Class index of each box, -1 for what the model does not know.
        """
        truth = dict(zip(boxes, classes, strict=True))
        results = self._results.pop((topic, stamp_ns), None)
        if results is not None:
            self._judge(stamp_ns, results, truth)
            return
        self._truths[topic, stamp_ns] = truth
        if len(self._truths) > _WAITING:
            del self._truths[next(iter(self._truths))]

    def _judge(
        self, stamp_ns: int, results: tuple[RegionResult, ...], truth: dict[Box, int]
    ) -> None:
        found = 0
        for result in results:
            # A whole frame has the one truth of its frame.
            box = next(iter(truth)) if result.box is None and len(truth) == 1 else result.box
            if box not in truth:
                continue
            found += 1
            self.judged.append(
                Judged(
                    stamp_ns=stamp_ns,
                    truth=truth[box],
                    predicted=result.class_index,
                    filtered=result.filtered_class_index,
                    probability=result.probability,
                )
            )
        self.unmatched += len(results) + len(truth) - 2 * found

    @property
    def known(self) -> list[Judged]:
        """Judged results of objects that the model knows."""
        return [one for one in self.judged if one.truth != UNKNOWN]

    @property
    def unknown(self) -> list[Judged]:
        """Judged results of objects that the model does not know."""
        return [one for one in self.judged if one.truth == UNKNOWN]

    @property
    def accuracy(self) -> float | None:
        """Share of known objects whose single-frame class is right; None without any."""
        known = self.known
        return sum(one.predicted == one.truth for one in known) / len(known) if known else None

    @property
    def accuracy_filtered(self) -> float | None:
        """Share of known objects whose filtered class is right; None without any."""
        known = self.known
        return sum(one.filtered == one.truth for one in known) / len(known) if known else None

    @property
    def unknown_mean_probability(self) -> float | None:
        """Mean probability the model gives to objects that it does not know; None without any."""
        unknown = self.unknown
        return sum(one.probability for one in unknown) / len(unknown) if unknown else None

    @property
    def confusion(self) -> Counter[tuple[int, int]]:
        """Number of known objects by (true class, single-frame class)."""
        return Counter((one.truth, one.predicted) for one in self.known)
