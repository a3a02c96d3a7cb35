"""`qpde replay`: classify the camera frames of a recorded drive."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from qpde_perception.bags import BagError, open_drive
from qpde_perception.bags.cameras import Camera, cameras_of
from qpde_perception.bags.results import claim_folder
from qpde_perception.bundles import find_model, load_bundle
from qpde_perception.cli.errors import CommandError
from qpde_perception.cli.frame import Json, emit, progress, warn
from qpde_perception.cli.interrupting import INTERRUPTED, interruptible
from qpde_perception.cli.replay_fleet import FleetOptions, replay_fleet
from qpde_perception.engines import open_engine
from qpde_perception.fleet.job import ReplayJob, ReplayOptions
from qpde_perception.reports.drift import drift_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qpde_perception.bags import Drive
    from qpde_perception.cli.interrupting import Wish
    from qpde_perception.reports import Summary


DrivePath = Annotated[
    Path, typer.Argument(metavar="DRIVE", help="A rosbag1 file, a rosbag2 folder, .mcap or .db3.")
]
Drives = Annotated[
    list[Path],
    typer.Argument(
        metavar="DRIVE",
        help="A rosbag1 file, a rosbag2 folder, .mcap or .db3; with --fleet folders and patterns "
        "too, as many as you like.",
    ),
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
Fleet = Annotated[
    bool, typer.Option("--fleet", help="Replay many drives, and put their results together.")
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Of a fleet: drives at a time. Default: one a processor; 0: in this process, "
        "without Ray.",
    ),
]
Address = Annotated[
    str | None,
    typer.Option(help="Of a fleet: address of a Ray cluster. Default: this machine alone."),
]


def command(
    drives: Drives,
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
    fleet: Fleet = False,
    workers: Workers = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Classify the camera frames of a recorded drive.

    Leaves in the folder: results.jsonl, dropped.jsonl, timings.csv, perception.mcap (for Foxglove),
    summary.json and report.html. Equal input gives an equal results.jsonl.

    With --fleet, leaves such a folder for each drive in drives/, and of all together results.jsonl,
    fleet.json, fleet.html and timings.json. Run again, it goes on where it stopped. Fails when a
    drive does.
    """
    if not math.isfinite(start) or not math.isfinite(duration or 0.0):
        msg = "--start and --duration: give a number of seconds"
        raise CommandError(msg)
    options = ReplayOptions(
        cameras=tuple(camera or ()),
        regions=regions,
        start_s=start,
        duration_s=duration,
        filter=filter_name,
        drift_share=drift_share,
    )
    if fleet:
        asked = FleetOptions(model, engine, threads, workers, address, out, as_json)
        replay_fleet(drives, options, asked)
        return
    drive = _only(drives, workers, address)
    if drive.resolve().is_relative_to(out.resolve()):
        msg = f"{drive}: lies in {out}, which would be replaced; name another folder with --out"
        raise CommandError(msg)
    bundle = load_bundle(find_model(model))
    with open_drive(drive) as opened:
        job = ReplayJob(
            drive=opened,
            cameras=asked_cameras(opened, camera, regions),
            bundle=bundle,
            engine=open_engine(bundle, engine, threads=threads),
            options=options,
            out=out,
        )
        with interruptible() as wish:
            try:
                claim_folder(out)
                _run(job, wish)
            finally:
                job.engine.close()
            summary = job.finish(str(drive))
    _warn(summary, job)
    emit(as_json, summary.document(), lambda: _table(summary, job))
    if summary.interrupted:
        raise typer.Exit(INTERRUPTED)


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


def _only(drives: Sequence[Path], workers: int | None, address: str | None) -> Path:
    if len(drives) > 1 or workers is not None or address is not None:
        msg = "several drives, --workers and --address are for a fleet: add --fleet"
        raise CommandError(msg)
    return drives[0]


def _run(job: ReplayJob, wish: Wish) -> None:
    whole = job.options.start_s == 0.0 and job.options.duration_s is None
    with progress() as bar:
        task = bar.add_task("replay", total=job.frames if whole else None)
        job.run(stopped=lambda: wish.requested, advanced=lambda: bar.advance(task))


def _warn(summary: Summary, job: ReplayJob) -> None:
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


def _table(summary: Summary, job: ReplayJob) -> Table:
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
