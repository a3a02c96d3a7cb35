"""`qpde replay`: classify the camera frames of a recorded drive."""

from __future__ import annotations

import hashlib
import math
import signal
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from qpde_perception.bags import BagError, open_drive
from qpde_perception.bags.cameras import Camera, cameras_of
from qpde_perception.bags.drift import DriveWatch
from qpde_perception.bags.overlay import PerceptionBag
from qpde_perception.bags.replay import Dropped, Published, Truth, replay
from qpde_perception.bags.results import ResultFiles, claim_folder, write_text
from qpde_perception.bundles import Bundle, find_model, load_bundle
from qpde_perception.cli.errors import CommandError
from qpde_perception.cli.frame import Json, emit, json_text, package_version, progress, warn
from qpde_perception.engines import Engine, open_engine
from qpde_perception.monitoring import Accounting, LatencyRecorder
from qpde_perception.perception import Classifier, ExponentialFilter, NoFilter, TemporalFilter
from qpde_perception.reports import ReplayReport, SampleFrames, Summary
from qpde_perception.reports.accuracy import UNKNOWN
from qpde_perception.reports.drift import drift_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qpde_perception.bags import Drive

_INTERRUPTED = 130
_TIME_CONSTANT_S = 0.3
_RESET_AFTER_S = 1.0
_FAULTS_SHOWN = 3

DrivePath = Annotated[
    Path, typer.Argument(metavar="DRIVE", help="A rosbag1 file, a rosbag2 folder, .mcap or .db3.")
]
Cameras = Annotated[
    list[str] | None,
    typer.Option("--camera", metavar="TOPIC", help="Image topic; may be repeated. Default: all."),
]
Model = Annotated[
    str | None, typer.Option(help="Model: a name or a bundle's folder. Default: traffic signs.")
]
EngineName = Annotated[
    str | None, typer.Option("--engine", help="Engine. Default: the best one that works.")
]
Out = Annotated[Path, typer.Option(help="Folder for the results; replaced if a replay made it.")]
RegionsTopic = Annotated[
    str | None,
    typer.Option(
        metavar="TOPIC|none",
        help="Topic with the boxes to classify; none: whole frames. "
        "Default: `regions` beside the camera, where the drive has it.",
    ),
]
Start = Annotated[float, typer.Option(min=0.0, help="Where to start, seconds into the drive.")]
Duration = Annotated[float | None, typer.Option(min=0.0, help="How much to replay, seconds.")]
Filter = Annotated[
    Literal["exponential", "none"], typer.Option("--filter", help="Filter over time.")
]
DriftShare = Annotated[
    float,
    typer.Option(
        min=0.0, max=1.0, help="Share of the items held against the float reference; 0: none."
    ),
]
Threads = Annotated[int, typer.Option(min=0, help="Threads of the engine; 0: it decides.")]


def command(
    drive: DrivePath,
    *,
    camera: Cameras = None,
    model: Model = None,
    engine: EngineName = None,
    out: Out = Path("out"),
    regions: RegionsTopic = None,
    start: Start = 0.0,
    duration: Duration = None,
    filter_name: Filter = "exponential",
    threads: Threads = 1,
    drift_share: DriftShare = 0.1,
    as_json: Json = False,
) -> None:
    """Classify the camera frames of a recorded drive.

    Leaves in the folder: results.jsonl, dropped.jsonl, timings.csv, perception.mcap (for Foxglove),
    summary.json and report.html. Equal input gives an equal results.jsonl.
    """
    if drive.resolve().is_relative_to(out.resolve()):
        msg = f"{drive}: lies in {out}, which would be replaced; name another folder with --out"
        raise CommandError(msg)
    if not math.isfinite(start) or not math.isfinite(duration or 0.0):
        msg = "--start and --duration: give a number of seconds"
        raise CommandError(msg)
    bundle = load_bundle(find_model(model))
    with open_drive(drive) as opened:
        job = _Job(
            drive=opened,
            cameras=asked_cameras(opened, camera, regions),
            bundle=bundle,
            engine=open_engine(bundle, engine, threads=threads),
            filter_name=filter_name,
            out=out,
            watch=DriveWatch(bundle, share=drift_share),
        )
        with _interruptible() as wish:
            try:
                claim_folder(out)
                job.run(start, duration, wish)
            finally:
                job.engine.close()
            summary = job.finish(str(drive))
    _warn(summary, job)
    emit(as_json, summary.document(), lambda: _table(summary, job))
    if summary.interrupted:
        raise typer.Exit(_INTERRUPTED)


def asked_cameras(
    drive: Drive, topics: list[str] | None, regions: str | None
) -> tuple[Camera, ...]:
    """Return the cameras of a drive that were asked for.

    Raises:
        BagError: If a topic does not exist; what could not be read of the drive is told before.
    """
    try:
        return cameras_of(drive.topics, topics or (), regions=regions)
    except BagError:
        for loss in drive.losses:
            warn(loss)
        raise


@dataclass(slots=True)
class _Job:
    """One replay: its parts, and what it collects."""

    drive: Drive
    cameras: tuple[Camera, ...]
    bundle: Bundle
    engine: Engine
    filter_name: Literal["exponential", "none"]
    out: Path
    watch: DriveWatch
    accounting: Accounting = field(default_factory=Accounting)
    latency: LatencyRecorder = field(default_factory=LatencyRecorder)
    faults: list[str] = field(default_factory=list)
    objects: int = 0
    rejected_regions: int = 0
    interrupted: bool = False
    seconds: float = 0.0
    results_sha256: str = ""
    report: ReplayReport = field(init=False)
    samples: SampleFrames = field(init=False)
    frames: int = field(init=False)

    def __post_init__(self) -> None:
        topics = {camera.topic for camera in self.cameras}
        self.frames = sum(topic.count for topic in self.drive.topics if topic.name in topics)
        self.report = ReplayReport(self.bundle.manifest.labels)
        self.samples = SampleFrames(self.frames)

    def run(self, start_s: float, duration_s: float | None, wish: _Wish) -> None:
        """Replay the drive into the folder, until its end or the wish to stop."""
        labels = self.bundle.manifest.labels
        classifiers = {
            camera: Classifier(self.bundle, self.engine, self._filter(), self.watch.observe)
            for camera in self.cameras
        }
        some = next(iter(classifiers.values()))
        self.watch.begin(some)
        whole = start_s == 0.0 and duration_s is None
        started = time.perf_counter()
        with (
            ResultFiles(self.out) as files,
            PerceptionBag(
                self.out / "perception.mcap", labels, self.accounting, lambda: [self.watch.task()]
            ) as bag,
            progress() as bar,
        ):
            task = bar.add_task("replay", total=self.frames if whole else None)
            for outcome in replay(
                self.drive,
                classifiers,
                self.accounting,
                start_s=start_s,
                duration_s=duration_s,
                stopped=lambda: wish.requested,
            ):
                if isinstance(outcome, Truth):
                    self._take_truth(outcome)
                    continue
                self.watch.after(outcome, some)
                files.add(outcome)
                bag.add(outcome)
                self._take(outcome)
                bar.advance(task)
            self.interrupted = wish.requested
            self.results_sha256 = files.results_sha256
            self.watch.end(some)
            bag.end()
        self.seconds = time.perf_counter() - started

    def finish(self, drive: str) -> Summary:
        """Write the summary and the report."""
        summary = self._summary(drive)
        write_text(self.out / "summary.json", json_text(summary.document(), indent=2) + "\n")
        html = self.report.html(summary, self.samples.samples, self.watch.course)
        write_text(self.out / "report.html", html)
        return summary

    def _filter(self) -> TemporalFilter:
        if self.filter_name == "none":
            return NoFilter()
        return ExponentialFilter(time_constant_s=_TIME_CONSTANT_S, reset_after_s=_RESET_AFTER_S)

    def _take(self, outcome: Published | Dropped) -> None:
        if isinstance(outcome, Dropped):
            if len(self.faults) < _FAULTS_SHOWN:
                self.faults.append(f"{outcome.camera.topic} at {outcome.stamp_ns}: {outcome.fault}")
            return
        topic, perception = outcome.camera.topic, outcome.perception
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
            model_sha256=_sha256(self.bundle.path / "manifest.json"),
            engine=self.engine.name,
            engine_version=self.engine.version,
            package_version=package_version(),
            filter=self.filter_name,
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


@dataclass(slots=True)
class _Wish:
    requested: bool = False


@contextmanager
def _interruptible() -> Iterator[_Wish]:
    """Turn the first Ctrl-C, or request to terminate, into a wish; a second one interrupts."""
    wish = _Wish()

    def note(_number: int, _frame: object) -> None:
        if wish.requested:
            raise KeyboardInterrupt
        wish.requested = True

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield wish
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _warn(summary: Summary, job: _Job) -> None:
    for loss in summary.losses:
        warn(loss)
    for fault in job.faults:
        warn(f"dropped: {fault}")
    more = sum(summary.dropped.values()) - len(job.faults)
    if more > 0:
        warn(f"dropped: {more} more, listed in dropped.jsonl")
    if not summary.received and not summary.interrupted:
        warn(f"no frame of {', '.join(summary.cameras)} lies in the part that was replayed")
    for episode in job.watch.course.episodes:
        verdict = episode.verdict
        warn(f"{verdict.cause.value} at {episode.begin_s:.1f} s: {verdict.message}")
    if summary.published and not summary.objects:
        topics = ", ".join(str(camera.regions_topic) for camera in job.cameras)
        warn(f"no frame has regions: no boxes on {topics} have the stamp of an image")
    if summary.rejected_regions:
        warn(f"{summary.rejected_regions} regions had no part in their frame")


def _table(summary: Summary, job: _Job) -> Table:
    out = job.out
    table = Table(show_header=False, title=f"{summary.model} on {summary.engine}")
    dropped = ", ".join(f"{count} {reason}" for reason, count in summary.dropped.items())
    table.add_row("frames in", f"{summary.received}")
    table.add_row("published", f"{summary.published}")
    table.add_row("dropped", dropped or "0")
    table.add_row("frames per second", f"{summary.frames_per_second:.0f}")
    for stage, times in summary.stages.items():
        table.add_row(f"{stage} (ms)", f"p50 {times['p50']:.2f}   p99 {times['p99']:.2f}")
    if summary.accuracy is not None and summary.accuracy_filtered is not None:
        filtered = f"(filtered {summary.accuracy_filtered:.1%})"
        objects = f"of {summary.known_objects} objects"
        table.add_row("accuracy", f"{summary.accuracy:.1%} {objects} {filtered}")
    if summary.unknown_mean_probability is not None:
        confidence = f"mean probability {summary.unknown_mean_probability:.1%}"
        table.add_row("unknown to the model", f"{summary.unknown_objects} objects, {confidence}")
    table.add_row("drift", drift_words(job.watch.course))
    table.add_row("results", f"{out}/ (open {out / 'report.html'})")
    return table
