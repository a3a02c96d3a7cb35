"""The report of a replay: what is collected on the way, and the page made of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from qpde_perception.monitoring import Thinned
from qpde_perception.monitoring.thinned import MOST
from qpde_perception.reports.accuracy import UNKNOWN, TruthScore
from qpde_perception.reports.drift import drift_section
from qpde_perception.reports.page import (
    bars,
    details,
    figure,
    gallery,
    notes,
    page,
    section,
    table,
    tiles,
)
from qpde_perception.reports.plots import (
    BLUE,
    GREEN,
    GREY,
    RED,
    confusion_plot,
    latency_plot,
    timeline_plot,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qpde_perception.monitoring import DriftCourse
    from qpde_perception.perception import Perception
    from qpde_perception.reports.accuracy import Judged
    from qpde_perception.reports.samples import Sample

_NS_PER_S = 1_000_000_000
_EXPLANATIONS = {
    "decode": "JPEG, PNG or raw bytes to pixels",
    "prepare": "cropping and resizing to the network's input",
    "infer": "the int8 network in the engine: the frame's share of its batch",
    "postprocess": "probabilities and the temporal filter",
    "total": "all of these; not the time that the frame waited for its turn",
}


@dataclass(frozen=True, slots=True)
class Summary:
    """A replay in numbers: what `summary.json` and `--json` show.

    Attributes:
        drive: The recorded drive, as the user named it.
        cameras: Camera topics that were replayed.
        model: Name of the model.
        model_sha256: SHA-256 of the model's manifest, which holds the hashes of all its files.
        engine: Name of the engine.
        engine_version: Version of the engine's library.
        package_version: Version of this package.
        filter: Name of the temporal filter.
        received: Frames of the camera topics that could be read from the drive.
        published: Frames with a result.
        dropped: Frames without one, by reason.
        objects: Results in all: regions, or whole frames where there are none.
        rejected_regions: Regions that had no part in their frame and got no result.
        frames_per_second: Frames received per second of the replay, reading and writing included.
        accuracy: Share of known objects whose single-frame class is right; None without truth.
        accuracy_filtered: The same with the filtered class.
        known_objects: Objects with a true class.
        unknown_objects: Objects that the truth says the model does not know.
        unknown_mean_probability: Mean probability that the model gives to those.
        unmatched_objects: Results and true boxes of a common stamp that found no partner.
        drift: What the drift watch found: the last numbers, and every verdict with its time.
        stages: Per stage p50, p90, p99, max and mean, milliseconds.
        results_sha256: SHA-256 of `results.jsonl`.
        losses: What of the drive could not be read; empty when it was read to its end.
        interrupted: Whether the user stopped the replay.
    """

    drive: str
    cameras: tuple[str, ...]
    model: str
    model_sha256: str
    engine: str
    engine_version: str
    package_version: str
    filter: str
    received: int
    published: int
    dropped: dict[str, int]
    objects: int
    rejected_regions: int
    frames_per_second: float
    accuracy: float | None
    accuracy_filtered: float | None
    known_objects: int
    unknown_objects: int
    unknown_mean_probability: float | None
    unmatched_objects: int
    drift: dict[str, Any]
    stages: dict[str, dict[str, float]]
    results_sha256: str
    losses: tuple[str, ...]
    interrupted: bool

    def document(self) -> dict[str, Any]:
        """Return the summary as a JSON object."""
        return asdict(self)


@dataclass(slots=True)
class ReplayReport:
    """Collects what the page needs while the replay runs: as much for a long drive as for a short.

    Attributes:
        labels: Names of the classes.
        score: Results beside the truth.
    """

    labels: tuple[str, ...]
    score: TruthScore = field(default_factory=TruthScore)
    _frames: Thinned = field(default_factory=lambda: Thinned("qd"))
    _results: Thinned = field(default_factory=lambda: Thinned("ql"))
    _first_ns: int | None = None

    def add(self, perception: Perception) -> None:
        """Add the result of one frame."""
        stamp_ns = perception.stamp_ns
        self._first_ns = stamp_ns if self._first_ns is None else min(self._first_ns, stamp_ns)
        self._frames.add(stamp_ns, perception.stages_ms["total"])
        for region in perception.regions:
            self._results.add(stamp_ns, region.class_index)

    def html(self, summary: Summary, samples: Sequence[Sample], course: DriftCourse) -> str:
        """Return the page: one file that needs nothing else."""
        parts = [tiles(_tiles(summary)), notes(_notes(summary))]
        if len(self._frames):
            stamps_ns, totals_ms = self._frames.columns
            parts.append(
                section(
                    "Time per frame",
                    "Measured on the machine that ran the replay, with a monotonic clock. "
                    "p99: 99 of 100 frames were at least this fast."
                    + _drawn(self._frames.every, "frame"),
                    figure(latency_plot(self._times_s(stamps_ns), totals_ms), "Time per frame"),
                    _stage_table(summary.stages),
                )
            )
        if len(self._results):
            plot = timeline_plot(self._groups(), self.labels)
            parts.append(
                section(
                    "What was seen when",
                    "Each mark is one object in one frame; the row is the class the model gave it."
                    + _drawn(self._every(), "object"),
                    figure(plot, "Classes over the drive"),
                )
            )
        if self.score.known:
            parts.append(self._accuracy(summary))
        parts.append(drift_section(course))
        if samples:
            pictures = [(sample.caption, sample.jpeg) for sample in samples]
            parts.append(
                section("Sample frames", "Spread evenly over the drive.", gallery(pictures))
            )
        parts.append(section("Details", "", details(_details(summary))))
        subtitle = f"{summary.drive} · {summary.model} · {summary.engine}"
        return page("Replay report", subtitle, parts)

    def _times_s(self, stamps_ns: Sequence[float]) -> list[float]:
        return [(stamp - (self._first_ns or 0)) / _NS_PER_S for stamp in stamps_ns]

    def _every(self) -> int:
        """Return of how many objects in a row one is drawn."""
        return -(-len(self.score.judged) // MOST) or self._results.every

    def _groups(self) -> dict[str, tuple[str, list[float], list[int]]]:
        if not len(self.score.judged):
            stamps_ns, classes = self._results.columns
            return {"seen": (BLUE, self._times_s(stamps_ns), [int(each) for each in classes])}
        colours = {"right": GREEN, "wrong": RED, "of a kind the model does not know": GREY}
        right, wrong, unknown = colours
        members: dict[str, list[Judged]] = {name: [] for name in colours}
        for one in self.score.judged.spread(self._every()):
            known = right if one.truth == one.predicted else wrong
            members[unknown if one.truth == UNKNOWN else known].append(one)
        return {
            name: (
                colours[name],
                self._times_s([one.stamp_ns for one in marks]),
                [one.predicted for one in marks],
            )
            for name, marks in members.items()
            if marks
        }

    def _accuracy(self, summary: Summary) -> str:
        confusion = self.score.confusion
        rows = []
        for truth in sorted({truth for truth, _ in confusion}):
            count = sum(number for (row, _), number in confusion.items() if row == truth)
            right = confusion[truth, truth]
            rows.append((f"{self.labels[truth]} ({truth})", count, right, right / count))
        text = (
            f"{summary.known_objects} objects whose true class the drive carries; filtered over "
            f"time, {_share(summary.accuracy_filtered)} are right."
        )
        if summary.unknown_objects:
            text += (
                f" Beside these, {summary.unknown_objects} objects are of kinds that the model "
                "does not know: whatever it says of them is wrong, with a mean probability of "
                f"{_share(summary.unknown_mean_probability)}."
            )
        return section(
            "Accuracy",
            text,
            bars(("true class", "objects", "right", "share"), rows),
            figure(confusion_plot(confusion, self.labels), "Confusion of true and predicted class"),
        )


def _tiles(summary: Summary) -> list[tuple[str, str, str]]:
    total = summary.stages.get("total")
    dropped = sum(summary.dropped.values())
    reasons = ", ".join(f"{count} {reason}" for reason, count in summary.dropped.items())
    cameras = summary.cameras
    shown = [
        # Many are listed among the details.
        (
            "frames in",
            f"{summary.received}",
            f"of {len(cameras)} cameras" if cameras[1:] else cameras[0],
        ),
        ("published", f"{summary.published}", "frames with a result"),
        ("dropped", f"{dropped}", reasons or "none"),
        ("speed", f"{summary.frames_per_second:.0f} /s", "frames, reading and writing included"),
    ]
    if total is not None:
        shown.append(("time per frame", f"{total['p50']:.2f} ms", f"p99 {total['p99']:.2f} ms"))
    if summary.accuracy is not None:
        of = f"of {summary.known_objects} objects"
        shown.append(("accuracy", _share(summary.accuracy), of))
    return shown


def _notes(summary: Summary) -> list[str]:
    shown = [f"Not readable: {loss}" for loss in summary.losses]
    if summary.interrupted:
        shown.insert(0, "The replay was interrupted: the report covers the frames until then.")
    if summary.rejected_regions:
        shown.append(f"{summary.rejected_regions} regions had no part in their frame.")
    if summary.unmatched_objects:
        shown.append(
            f"{summary.unmatched_objects} results or true boxes found no partner in the truth."
        )
    return shown


def _stage_table(stages: Mapping[str, Mapping[str, float]]) -> str:
    rows = [
        (stage, _EXPLANATIONS.get(stage, ""), *(f"{times[name]:.3f}" for name in _COLUMNS))
        for stage, times in stages.items()
    ]
    return table(("stage", "what happens", *(f"{name} (ms)" for name in _COLUMNS)), rows)


_COLUMNS = ("p50", "p90", "p99", "max", "mean")


def _details(summary: Summary) -> list[tuple[str, str]]:
    return [
        ("Drive", summary.drive),
        ("Cameras", ", ".join(summary.cameras)),
        ("Model", f"{summary.model} (manifest SHA-256 {summary.model_sha256})"),
        ("Engine", f"{summary.engine} {summary.engine_version}"),
        ("Temporal filter", summary.filter),
        ("qpde_perception", summary.package_version),
        ("results.jsonl SHA-256", f"{summary.results_sha256} (equal input gives equal results)"),
        ("Files beside this report", "results.jsonl, dropped.jsonl, timings.csv, summary.json"),
        ("For Foxglove", "perception.mcap: camera, classification, annotations, diagnostics"),
    ]


def _drawn(every: int, noun: str) -> str:
    return f" One {noun} in {every} is drawn." if every > 1 else ""


def _share(share: float | None) -> str:
    return "unknown" if share is None else f"{share:.1%}"
