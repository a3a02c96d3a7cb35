"""Accuracy of results against the truth that a drive carries."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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


class JudgedResults:
    """Judged results in order, of any number: columns of 28 bytes a result instead of objects."""

    def __init__(self) -> None:
        self._columns: tuple[array[Any], ...] = tuple(array(code) for code in "qiiid")

    def __len__(self) -> int:
        return len(self._columns[0])

    def __iter__(self) -> Iterator[Judged]:
        return self.spread(1)

    def spread(self, every: int) -> Iterator[Judged]:
        """Yield one of so many in a row."""
        columns = (islice(column, None, None, every) for column in self._columns)
        return (Judged(*row) for row in zip(*columns, strict=True))

    def append(self, judged: Judged) -> None:
        """Add one."""
        for column, name in zip(self._columns, Judged.__slots__, strict=True):
            column.append(getattr(judged, name))


@dataclass(slots=True)
class TruthScore:
    """Brings results and truth together by topic, stamp and box, in whichever order they come.

    Attributes:
        known: Number of results that found their truth, an object that the model knows.
        unknown: Number of those that found another object.
        unmatched: Results and true boxes of a common stamp that found no partner.
        confusion: Number of known objects by (true class, single-frame class).
        judged: The results that found their truth, in order.
    """

    known: int = 0
    unknown: int = 0
    unmatched: int = 0
    confusion: Counter[tuple[int, int]] = field(default_factory=Counter)
    judged: JudgedResults = field(default_factory=JudgedResults)
    _right: int = 0
    _right_filtered: int = 0
    _unknown_probability: float = 0.0
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
            self._count(
                Judged(
                    stamp_ns=stamp_ns,
                    truth=truth[box],
                    predicted=result.class_index,
                    filtered=result.filtered_class_index,
                    probability=result.probability,
                )
            )
        self.unmatched += len(results) + len(truth) - 2 * found

    def _count(self, judged: Judged) -> None:
        self.judged.append(judged)
        if judged.truth == UNKNOWN:
            self.unknown += 1
            self._unknown_probability += judged.probability
            return
        self.known += 1
        self.confusion[judged.truth, judged.predicted] += 1
        self._right += judged.predicted == judged.truth
        self._right_filtered += judged.filtered == judged.truth

    @property
    def accuracy(self) -> float | None:
        """Share of known objects whose single-frame class is right; None without any."""
        return self._right / self.known if self.known else None

    @property
    def accuracy_filtered(self) -> float | None:
        """Share of known objects whose filtered class is right; None without any."""
        return self._right_filtered / self.known if self.known else None

    @property
    def unknown_mean_probability(self) -> float | None:
        """Mean probability the model gives to objects that it does not know; None without any."""
        return self._unknown_probability / self.unknown if self.unknown else None
