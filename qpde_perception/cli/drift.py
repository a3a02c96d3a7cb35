"""`qpde drift`: has the network, its input or the world changed in a recorded drive?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from qpde_perception.bags import open_drive
from qpde_perception.bags.drift import ALPHA, DriveWatch
from qpde_perception.bags.replay import Dropped, Published, replay
from qpde_perception.bundles import find_model, load_bundle
from qpde_perception.cli.frame import Json, emit, progress, warn
from qpde_perception.cli.replay import (
    Cameras,
    DrivePath,
    Duration,
    EngineName,
    Model,
    RegionsTopic,
    Start,
    Threads,
    asked_cameras,
)
from qpde_perception.engines import open_engine
from qpde_perception.monitoring import Accounting, Level
from qpde_perception.perception import Classifier, NoFilter

if TYPE_CHECKING:
    from qpde_perception.bags import Drive
    from qpde_perception.bags.cameras import Camera
    from qpde_perception.monitoring import DriftReport

Share = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="Share of the items held against the reference.")
]
Alpha = Annotated[
    float, typer.Option(min=1e-9, max=0.5, help="Probability of a false verdict on evidence.")
]


def command(
    drive: DrivePath,
    *,
    camera: Cameras = None,
    model: Model = None,
    engine: EngineName = None,
    regions: RegionsTopic = None,
    start: Start = 0.0,
    duration: Duration = None,
    share: Share = 1.0,
    alpha: Alpha = ALPHA,
    threads: Threads = 1,
    as_json: Json = False,
) -> None:
    """Tell whether a model still computes in a drive what it was validated with.

    Every item is classified, and held against the float reference. Fails (1) where the engine has
    changed or the preprocessing is wrong; a changed world or a degraded camera is told, no failure.
    """
    bundle = load_bundle(find_model(model))
    watch = DriveWatch(bundle, share=share, alpha=alpha)
    with open_drive(drive) as opened:
        cameras = asked_cameras(opened, camera, regions)
        chosen = open_engine(bundle, engine, threads=threads)
        try:
            classifiers = {
                each: Classifier(bundle, chosen, NoFilter(), watch.observe) for each in cameras
            }
            totals = _run(opened, classifiers, watch, start, duration)
        finally:
            chosen.close()
        losses = tuple(opened.losses)
    for loss in losses:
        warn(loss)
    payload = {
        "drive": str(drive),
        "model": bundle.manifest.name,
        "engine": chosen.name,
        "engine_version": chosen.version,
        "frames": totals.totals.received,
        "losses": losses,
        **watch.document(),
    }
    emit(as_json, payload, lambda: _table(payload, watch))
    if watch.course.level >= Level.ERROR:
        raise typer.Exit(1)


def _run(
    drive: Drive,
    classifiers: dict[Camera, Classifier],
    watch: DriveWatch,
    start_s: float,
    duration_s: float | None,
) -> Accounting:
    accounting = Accounting()
    some = next(iter(classifiers.values()))
    topics = {camera.topic for camera in classifiers}
    frames = sum(topic.count for topic in drive.topics if topic.name in topics)
    whole = start_s == 0.0 and duration_s is None
    watch.begin(some)
    with progress() as bar:
        task = bar.add_task("drift", total=frames if whole else None)
        for outcome in replay(
            drive, classifiers, accounting, start_s=start_s, duration_s=duration_s
        ):
            if isinstance(outcome, Published | Dropped):
                watch.after(outcome, some)
                bar.advance(task)
    watch.end(some)
    return accounting


def _table(payload: dict[str, Any], watch: DriveWatch) -> Table:
    course = watch.course
    table = Table("", "", title=f"{payload['model']} on {payload['engine']}", show_header=False)
    for episode in course.episodes:
        verdict = episode.verdict
        end = "the end" if episode.end_s is None else f"{episode.end_s:.1f} s"
        table.add_row(
            verdict.cause.value,
            f"{episode.begin_s:.1f} s to {end}, by the rule {verdict.rule}: {verdict.message} "
            f"{verdict.remedy}",
        )
    if not course.episodes:
        table.add_row("changes", "none found")
    report = course.last
    assert report is not None  # the golden frames were asked, at least
    table.add_row("frames", f"{payload['frames']}, of which {report.observed} items were held")
    for name, text in _numbers(report):
        table.add_row(name, text)
    for each in report.unwatched:
        table.add_row("not watched", each)
    return table


def _numbers(report: DriftReport) -> list[tuple[str, str]]:
    shown = [("golden frames", f"{report.golden_checks} rounds, {_same(report)}")]
    if report.noise_ratio is not None:
        shown.append(("noise", f"{report.noise_ratio:.3g} times that of a healthy engine"))
    if report.disagreement is not None:
        shown.append(("disagreement", f"{report.disagreement:.2%} with the float reference"))
    shown += [(f"cut off, {tap}", f"{share:.2%}") for tap, share in report.saturation.items()]
    if report.combined_evidence is not None:
        alarm = f"(log10; a verdict at {report.alarm_at:.3g})"
        shown.append(("evidence", f"{report.combined_evidence:.3g} {alarm}"))
    return shown


def _same(report: DriftReport) -> str:
    return "the last as the first" if report.golden_identical else "not answered as at first"
