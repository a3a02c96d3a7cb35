"""`qpde replay --fleet`: many drives, on Ray or in this process."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

import typer
from rich.table import Table

from qpde_perception.bundles import find_model, load_bundle
from qpde_perception.cli.errors import CommandError
from qpde_perception.cli.frame import emit, progress, warn
from qpde_perception.cli.interrupting import INTERRUPTED, interruptible
from qpde_perception.engines import open_engine
from qpde_perception.fleet.folder import FleetFolder, fleet_folder
from qpde_perception.fleet.planning import plan_drives
from qpde_perception.fleet.running import ray_workers, run_here
from qpde_perception.fleet.worker import DriveOutcome, FleetSetup
from qpde_perception.reports.fleet_report import why

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from qpde_perception.bundles import Bundle
    from qpde_perception.fleet.job import ReplayOptions

_MOST_ROWS = 60
_WORST_SHOWN = 5


class FleetOptions(NamedTuple):
    """What `qpde replay --fleet` was asked for, beside what is replayed of each drive.

    Attributes:
        model: A model's name or folder.
        engine: Name of the engine.
        threads: Threads of each worker's engine.
        workers: Drives at a time; 0 for this process without Ray, None for what there is room for.
        address: Address of a Ray cluster.
        out: The folder of the results.
        as_json: Whether to print one JSON object.
    """

    model: str | None
    engine: str | None
    threads: int
    workers: int | None
    address: str | None
    out: Path
    as_json: bool


def replay_fleet(named: Sequence[Path], options: ReplayOptions, asked: FleetOptions) -> None:
    """Replay many drives, go on where an earlier fleet stopped, and put the results together.

    Raises:
        Exit: With code 1 where a drive failed, 130 where the user stopped it.
    """
    if asked.workers == 0 and asked.address is not None:
        msg = "--workers 0 replays in this process, --address on a cluster: give one of them"
        raise CommandError(msg)
    drives = plan_drives([str(each) for each in named])
    for drive in drives:
        if drive.path.resolve().is_relative_to(asked.out.resolve()):
            msg = f"{drive.path}: lies in {asked.out}, where the results go; name another --out"
            raise CommandError(msg)
    bundle = load_bundle(find_model(asked.model))
    engine, version = _engine(bundle, asked)
    folder = fleet_folder(asked.out, drives, bundle, f"{engine} {version}", options)
    folder.claim()
    setup = FleetSetup(bundle.path.absolute(), engine, asked.threads, options)
    outcomes, timings, interrupted = _run(folder, setup, asked)
    errors = {one.name: one.error for one in outcomes if one.error}
    document = folder.merge(errors)
    folder.write_timings(outcomes, timings)
    _warn(folder, document, timings)
    emit(
        asked.as_json,
        {**document, "timings": timings},
        lambda: _table(document, timings, asked.out),
    )
    if interrupted:
        raise typer.Exit(INTERRUPTED)
    if errors:
        raise typer.Exit(1)


def _engine(bundle: Bundle, asked: FleetOptions) -> tuple[str, str]:
    """Return the engine that all workers take: the same, so that drives can be compared."""
    if asked.engine is not None and asked.address is not None:
        # It may be one that only the cluster's machines have.
        return asked.engine, ""
    engine = open_engine(bundle, asked.engine, threads=asked.threads)
    engine.close()
    return engine.name, engine.version


def _run(
    folder: FleetFolder, setup: FleetSetup, asked: FleetOptions
) -> tuple[list[DriveOutcome], dict[str, Any], bool]:
    """Replay what is not finished; return what became of it, what was measured, and the wish."""
    waiting = folder.unfinished()
    outcomes: list[DriveOutcome] = []
    begun = started = time.perf_counter()
    workers = 0
    with ExitStack() as stack:
        run = run_here
        if asked.workers != 0 and waiting:
            threads = max(1, setup.threads)
            count = None if asked.workers is None else min(asked.workers, len(waiting))
            ray = stack.enter_context(ray_workers(count, threads, asked.address))
            run, workers = ray.run, ray.count
            started = time.perf_counter()
        wish = stack.enter_context(interruptible())
        bar = stack.enter_context(progress())
        done = len(folder.works) - len(waiting)
        task = bar.add_task("drives", total=len(folder.works), completed=done)
        for outcome in run(setup, waiting, lambda: wish.requested):
            outcomes.append(outcome)
            if outcome.deaths and not outcome.error:
                warn(f"{outcome.name}: {outcome.deaths} workers died over it; it was begun again")
            bar.update(task, advance=1, description=outcome.name)
        ended = time.perf_counter()
    timings = {
        "workers": workers,
        "threads": setup.threads,
        "finished_before": done,
        "starting_s": round(started - begun, 4),
        "replaying_s": round(ended - started, 4),
    }
    return outcomes, timings, wish.requested


def _warn(folder: FleetFolder, document: Mapping[str, Any], timings: Mapping[str, Any]) -> None:
    if timings["finished_before"]:
        warn(f"{timings['finished_before']} drives were finished before and stayed as they are")
    for row in document["drives"]:
        if row["status"] == "failed":
            warn(f"{row['name']}: failed: {row['error']}")
        for loss in row.get("losses", ()):
            warn(f"{row['name']}: {loss}")
    for cause, names in document["drift"].items():
        warn(f"{cause}: {', '.join(names)}")
    if strangers := folder.strangers():
        warn(f"not part of these results, from an earlier fleet: {', '.join(strangers)}")


def _table(document: Mapping[str, Any], timings: Mapping[str, Any], out: Path) -> Table:
    totals = document["totals"]
    table = Table(title=f"{document['model']} on {', '.join(document['engines']) or 'no engine'}")
    table.add_column("drive", overflow="fold")
    table.add_column("what to know", overflow="fold")
    for name in ("frames", "published", "dropped", "accuracy"):
        table.add_column(name, justify="right", no_wrap=True)
    drives = document["drives"]
    shown = drives if len(drives) <= _MOST_ROWS else [row for row in drives if _to_know(row)]
    for row in shown[:_MOST_ROWS]:
        table.add_row(row["name"], _to_know(row), *(_counts(row) if "received" in row else ()))
    if more := len(drives) - len(shown[:_MOST_ROWS]):
        table.add_row(f"{more} more", "in fleet.html")
    table.add_section()
    table.add_row(f"{totals['replayed']} of {totals['drives']}", "", *_counts(totals))
    lines = [
        f"worst: {frame['drive']} at {frame['stamp_ns']} ns: {why(frame)}"
        for frame in document["worst"][:_WORST_SHOWN]
    ]
    lines.append(
        f"{timings['replaying_s']:.1f} s, {timings['workers'] or 'no'} workers of Ray "
        f"(started in {timings['starting_s']:.1f} s)"
    )
    lines.append(f"results: {out}/ (open {out / 'fleet.html'})")
    table.caption = "\n".join(lines)
    table.caption_justify = "left"
    return table


def _counts(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        f"{row['received']}",
        f"{row['published']}",
        f"{sum(row['dropped'].values())}",
        "" if row["accuracy"] is None else f"{row['accuracy']:.1%}",
    )


def _to_know(row: Mapping[str, Any]) -> str:
    """Return what is notable of a drive in a few words: warnings tell the rest."""
    if row["status"] != "replayed":
        return str(row["status"])
    causes = dict.fromkeys(verdict["cause"] for verdict in row["drift"]["verdicts"])
    return ", ".join((*causes, *(["not all readable"] if row["losses"] else [])))
