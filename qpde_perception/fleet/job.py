"""One drive's replay: its parts, its run, and the folder it leaves."""

from __future__ import annotations

import hashlib
import json
import time
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from qpde_perception.bags.drift import DriveWatch
from qpde_perception.bags.overlay import PerceptionBag
from qpde_perception.bags.replay import Dropped, Published, Truth, replay
from qpde_perception.bags.results import ResultFiles, write_text
from qpde_perception.monitoring import Accounting, LatencyRecorder
from qpde_perception.perception import DEFAULT_LIMITS, Classifier, ExponentialFilter, NoFilter
from qpde_perception.reports import ReplayReport, SampleFrames, Summary
from qpde_perception.reports.accuracy import UNKNOWN
from qpde_perception.version import package_version

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from qpde_perception.bags import Drive
    from qpde_perception.bags.cameras import Camera
    from qpde_perception.bundles import Bundle
    from qpde_perception.engines import Engine
    from qpde_perception.perception import Limits, TemporalFilter

_TIME_CONSTANT_S = 0.3
_RESET_AFTER_S = 1.0
_FAULTS_SHOWN = 3


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """What of a drive is replayed, and how.

    Attributes:
        cameras: Image topics; empty for all.
        regions: Topic with the boxes, `none` for whole frames; None for `regions` beside the
            camera.
        start_s: Where to start, seconds into the drive.
        duration_s: How much to replay, seconds; None for all.
        filter: Filter over time.
        drift_share: Share of the items that are held against the float reference.
    """

    cameras: tuple[str, ...] = ()
    regions: str | None = None
    start_s: float = 0.0
    duration_s: float | None = None
    filter: Literal["exponential", "none"] = "exponential"
    drift_share: float = 0.1


@dataclass(slots=True)
class ReplayJob:
    """One replay: its parts, and what it collects.

    Attributes:
        drive: The open drive.
        cameras: Its cameras that are replayed.
        bundle: The model.
        engine: The engine; who opened it closes it.
        options: What is replayed, and how.
        out: A folder that was claimed before the run.
        limits: How far frames run ahead, and in how many threads.
        faults: What was wrong with the first frames that were dropped.
        log_times_ns: When each published frame was recorded, in the order of `results.jsonl`.
        interrupted: Whether the run was stopped before the end.
        seconds: How long the run took.
    """

    drive: Drive
    cameras: tuple[Camera, ...]
    bundle: Bundle
    engine: Engine
    options: ReplayOptions
    out: Path
    limits: Limits = DEFAULT_LIMITS
    accounting: Accounting = field(default_factory=Accounting)
    latency: LatencyRecorder = field(default_factory=LatencyRecorder)
    faults: list[str] = field(default_factory=list)
    log_times_ns: array[int] = field(default_factory=lambda: array("q"))
    objects: int = 0
    rejected_regions: int = 0
    interrupted: bool = False
    seconds: float = 0.0
    results_sha256: str = ""
    watch: DriveWatch = field(init=False)
    report: ReplayReport = field(init=False)
    samples: SampleFrames = field(init=False)
    frames: int = field(init=False)

    def __post_init__(self) -> None:
        topics = {camera.topic for camera in self.cameras}
        self.frames = sum(topic.count for topic in self.drive.topics if topic.name in topics)
        self.watch = DriveWatch(self.bundle, share=self.options.drift_share)
        self.report = ReplayReport(self.bundle.manifest.labels)
        self.samples = SampleFrames(self.frames)

    def run(self, *, stopped: Callable[[], bool], advanced: Callable[[], None]) -> None:
        """Replay the drive into the folder, until its end or until it is stopped.

        Args:
            stopped: Asked after each message; once true, no further message is read.
            advanced: Called after each frame.

        Raises:
            BagError: If the drive cannot be read.
            OSError: If the disk is full.
        """
        labels = self.bundle.manifest.labels
        classifiers = {
            camera: Classifier(self.bundle, self.engine, self._filter(), self.watch.observe)
            for camera in self.cameras
        }
        some = next(iter(classifiers.values()))
        self.watch.begin(some)
        started = time.perf_counter()
        with (
            ResultFiles(self.out) as files,
            PerceptionBag(
                self.out / "perception.mcap", labels, self.accounting, lambda: [self.watch.task()]
            ) as bag,
        ):
            for outcome in replay(
                self.drive,
                classifiers,
                self.accounting,
                start_s=self.options.start_s,
                duration_s=self.options.duration_s,
                stopped=stopped,
                limits=self.limits,
            ):
                if isinstance(outcome, Truth):
                    self._take_truth(outcome)
                    continue
                self.watch.after(outcome, some)
                files.add(outcome)
                bag.add(outcome)
                self._take(outcome)
                advanced()
            self.interrupted = stopped()
            self.results_sha256 = files.results_sha256
            self.watch.end(some)
            bag.end()
        self.seconds = time.perf_counter() - started

    def finish(self, drive: str) -> Summary:
        """Write the report, then the summary.

        Args:
            drive: The drive, as the user named it.

        Raises:
            OSError: If the disk is full.
        """
        summary = self._summary(drive)
        html = self.report.html(summary, self.samples.samples, self.watch.course)
        write_text(self.out / "report.html", html)
        write_document(self.out / "summary.json", summary.document())
        return summary

    def _filter(self) -> TemporalFilter:
        if self.options.filter == "none":
            return NoFilter()
        return ExponentialFilter(time_constant_s=_TIME_CONSTANT_S, reset_after_s=_RESET_AFTER_S)

    def _take(self, outcome: Published | Dropped) -> None:
        if isinstance(outcome, Dropped):
            if len(self.faults) < _FAULTS_SHOWN:
                self.faults.append(f"{outcome.camera.topic} at {outcome.stamp_ns}: {outcome.fault}")
            return
        topic, perception = outcome.camera.topic, outcome.perception
        self.log_times_ns.append(outcome.recorded.log_time_ns)
        self.objects += len(perception.regions)
        self.rejected_regions += len(perception.rejected)
        self.latency.add(perception.stages_ms)
        self.report.add(perception)
        if outcome.camera.truth_topic is not None:
            self.report.score.add_results(topic, perception.stamp_ns, perception.regions)
        self.samples.offer(outcome.frame, perception, topic)

    def _take_truth(self, truth: Truth) -> None:
        boxes = [tuple(box) for box in truth.labels.regions.boxes.tolist()]
        known = range(len(self.bundle.manifest.labels))
        classes = [index if index in known else UNKNOWN for index in truth.labels.class_indices]
        self.report.score.add_truth(truth.camera.topic, truth.stamp_ns, boxes, classes)

    def _summary(self, drive: str) -> Summary:
        totals, score = self.accounting.totals, self.report.score
        manifest = self.bundle.manifest
        return Summary(
            drive=drive,
            cameras=tuple(camera.topic for camera in self.cameras),
            model=manifest.name,
            model_sha256=manifest_sha256(self.bundle),
            engine=self.engine.name,
            engine_version=self.engine.version,
            package_version=package_version(),
            filter=self.options.filter,
            received=totals.received,
            published=totals.published,
            dropped={reason.value: count for reason, count in totals.dropped.items()},
            objects=self.objects,
            rejected_regions=self.rejected_regions,
            frames_per_second=totals.received / self.seconds,
            accuracy=score.accuracy,
            accuracy_filtered=score.accuracy_filtered,
            known_objects=score.known,
            unknown_objects=score.unknown,
            unknown_mean_probability=score.unknown_mean_probability,
            unmatched_objects=score.unmatched,
            stages=self.latency.quantiles(),
            drift=self.watch.document(),
            results_sha256=self.results_sha256,
            losses=tuple(self.drive.losses),
            interrupted=self.interrupted,
        )


def manifest_sha256(bundle: Bundle) -> str:
    """Return the SHA-256 of a model's manifest, which holds the hashes of all its files."""
    return hashlib.sha256((bundle.path / "manifest.json").read_bytes()).hexdigest()


def write_document(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON object wholly or not at all.

    Raises:
        OSError: If it cannot be written.
    """
    write_text(path, json.dumps(document, allow_nan=False, indent=2) + "\n")
