"""The frames of a drive that a person should look at first."""

from __future__ import annotations

import heapq
import json
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from qpde_perception.bags.results import DIGITS
from qpde_perception.reports.accuracy import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from qpde_perception.reports.accuracy import Judged

Kind = Literal["wrong", "unknown", "unsure", "dropped"]
KINDS: tuple[Kind, ...] = ("wrong", "unknown", "unsure", "dropped")
"""Worst first: a wrong class with high probability; an object that the model does not know, with
high probability; the lowest probabilities; frames without a result."""

PER_KIND = 6
_NEIGHBOUR_NS = 1_000_000_000
# Of more candidates the best are no better to look at, and sorting them all takes time.
_CONSIDERED = 256


class _Seen(NamedTuple):
    stamp_ns: int
    class_index: int | None
    probability: float | None


class SeenRegion(NamedTuple):
    """What the model says of one region of a frame; see `RegionResult`."""

    box: tuple[float, float, float, float] | None
    label: str
    probability: float


@dataclass(frozen=True, slots=True)
class WorstFrame:
    """A frame to look at, for one of its objects.

    Attributes:
        kind: Why.
        topic: The camera topic.
        stamp_ns: Stamp of the frame.
        truth: True class index; -1 for what the model does not know, None where nobody tells.
        class_index: What the model says; None of a dropped frame.
        probability: Its probability, to six digits; None of a dropped frame.
        fault: Why the frame was dropped.
        log_time_ns: When it was recorded; None of a dropped frame.
        regions: All its results, so that it can be drawn.
    """

    kind: Kind
    topic: str
    stamp_ns: int
    truth: int | None = None
    class_index: int | None = None
    probability: float | None = None
    fault: str = ""
    log_time_ns: int | None = None
    regions: tuple[SeenRegion, ...] = ()

    @property
    def rank(self) -> tuple[float, int, str]:
        """What frames of one kind are sorted by, worst first."""
        probability = self.probability or 0.0
        return (probability if self.kind == "unsure" else -probability, self.stamp_ns, self.topic)


def worst_frames(
    judged: Iterable[Judged], folder: Path, log_times_ns: Sequence[int]
) -> tuple[WorstFrame, ...]:
    """Choose the worst frames of a drive, kind after kind, at most `PER_KIND` of each.

    A moment is chosen once, and of an object that is seen the same way within one second only the
    worst frame.

    Args:
        judged: The results that found their truth; gone through twice.
        folder: The folder of the replay.
        log_times_ns: When each frame of its `results.jsonl` was recorded.
    """
    results, dropped = folder / "results.jsonl", folder / "dropped.jsonl"
    chosen: list[WorstFrame] = []
    for candidates in (
        _missed(judged, "wrong"),
        _missed(judged, "unknown"),
        _objects(results),
        _dropped(dropped),
    ):
        chosen += _choose(heapq.nsmallest(_CONSIDERED, candidates, key=_rank), chosen)
    return tuple(_complete(chosen, results, log_times_ns))


def _complete(
    chosen: Sequence[WorstFrame], results: Path, log_times_ns: Sequence[int]
) -> Iterator[WorstFrame]:
    """Add the topic, and what is needed to draw the frames."""
    wanted = {_Seen(frame.stamp_ns, frame.class_index, frame.probability) for frame in chosen}
    found: dict[_Seen, tuple[str, int, tuple[SeenRegion, ...]]] = {}
    for result, log_time_ns in zip(_lines(results), log_times_ns, strict=True):
        for region in result["regions"]:
            key = _Seen(result["stamp_ns"], region["class_index"], region["probability"])
            if key in wanted and key not in found:
                found[key] = result["topic"], log_time_ns, seen_regions(result["regions"])
    for frame in chosen:
        key = _Seen(frame.stamp_ns, frame.class_index, frame.probability)
        if frame.kind != "dropped":
            topic, log_time_ns, regions = found[key]
            yield replace(frame, topic=topic, log_time_ns=log_time_ns, regions=regions)
        else:
            yield frame


def seen_regions(regions: Sequence[Mapping[str, Any]]) -> tuple[SeenRegion, ...]:
    """Return regions as they are drawn, of those of a JSON object."""
    return tuple(
        SeenRegion(
            None if region["box"] is None else tuple(region["box"]),
            region["label"],
            region["probability"],
        )
        for region in regions
    )


def classes_seen(folder: Path) -> Counter[int]:
    """Return the number of objects by class of the frame, of a replay's folder."""
    results = _lines(folder / "results.jsonl")
    return Counter(region["class_index"] for one in results for region in one["regions"])


def _choose(ranked: Iterable[WorstFrame], taken: Sequence[WorstFrame]) -> list[WorstFrame]:
    stamps = {frame.stamp_ns for frame in taken}
    chosen: list[WorstFrame] = []
    for frame in ranked:
        if len(chosen) == PER_KIND:
            break
        if frame.stamp_ns not in stamps and not any(_alike(frame, one) for one in chosen):
            chosen.append(frame)
    return chosen


def _alike(one: WorstFrame, other: WorstFrame) -> bool:
    return (one.topic, one.truth, one.class_index) == (
        other.topic,
        other.truth,
        other.class_index,
    ) and abs(one.stamp_ns - other.stamp_ns) < _NEIGHBOUR_NS


def _rank(frame: WorstFrame) -> tuple[float, int, str]:
    return frame.rank


def _missed(judged: Iterable[Judged], kind: Kind) -> Iterator[WorstFrame]:
    for one in judged:
        if one.truth != one.predicted and (one.truth == UNKNOWN) == (kind == "unknown"):
            yield WorstFrame(
                kind,
                "",  # which `_complete` finds
                one.stamp_ns,
                one.truth,
                one.predicted,
                round(one.probability, DIGITS),
            )


def _objects(results: Path) -> Iterator[WorstFrame]:
    for result in _lines(results):
        for region in result["regions"]:
            yield WorstFrame(
                "unsure",
                result["topic"],
                result["stamp_ns"],
                class_index=region["class_index"],
                probability=region["probability"],
            )


def _dropped(dropped: Path) -> Iterator[WorstFrame]:
    for frame in _lines(dropped):
        fault = f"{frame['reason']}: {frame['fault']}"
        yield WorstFrame("dropped", frame["topic"], frame["stamp_ns"], fault=fault)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
