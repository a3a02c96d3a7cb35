"""`qpde profile`: how long frames take on this machine, and whether that has changed."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.table import Table

from qpde_perception.bags.results import write_text
from qpde_perception.bundles import find_model, load_bundle
from qpde_perception.cli.errors import CommandError
from qpde_perception.cli.frame import Json, emit, json_text, progress, warn
from qpde_perception.cli.nodes import played_camera
from qpde_perception.cli.profile_ros import (
    FIXED_RATES_HZ,
    RosProfile,
    profile_through_ros,
    ros_table,
)
from qpde_perception.engines import ACCELERATORS, ENGINES, engine_status
from qpde_perception.profiling import (
    SMALLEST_CHANGE,
    Configuration,
    Settings,
    Source,
    breaches,
    compare,
    profile,
    read_budgets,
    read_profile,
)
from qpde_perception.reports.profile_report import profile_html
from qpde_perception.version import package_version

if TYPE_CHECKING:
    from qpde_perception.profiling import Comparison, Profile, Row

Model = Annotated[str | None, typer.Option(help="A model's name, or the folder of a bundle.")]
Engines = Annotated[
    list[str] | None,
    typer.Option("--engine", help="Engine; may be repeated. Default: all that work."),
]
Batches = Annotated[
    list[int] | None,
    typer.Option("--batch", min=1, help="Regions of a frame; may be repeated. Default: 1."),
]
Threads = Annotated[
    list[int] | None,
    typer.Option("--threads", min=0, help="Threads of an engine; may be repeated. Default: 1."),
]
Sources = Annotated[
    list[str] | None,
    typer.Option(
        "--source",
        metavar="raw|jpeg:SIZE",
        help="Frames, for example jpeg:1080p or raw:1280x720; may be repeated. "
        "Default: raw and jpeg of 720p and 1080p.",
    ),
]
Frames = Annotated[int, typer.Option(min=10, help="Measured frames of each configuration.")]
WarmUp = Annotated[int, typer.Option(min=0, help="Frames before that.")]
Rounds = Annotated[int, typer.Option(min=1, help="Rounds; the configurations take turns.")]
Idle = Annotated[float, typer.Option(min=0.0, help="Rest before a frame after idle, seconds.")]
Rate = Annotated[
    float | None, typer.Option(min=0.1, help="Frames a second to hold against the deadline.")
]
Deadline = Annotated[
    float | None,
    typer.Option("--deadline-ms", min=0.01, help="Time a frame has. Default: until the next."),
]
Budgets = Annotated[
    Path | None, typer.Option("--budget", help="File of budgets; beyond one, the exit code is 1.")
]
Interval = Annotated[
    float, typer.Option("--sensor-interval", min=0.1, help="Seconds between sensor readings.")
]
Ros = Annotated[
    bool,
    typer.Option("--ros", help="Through ROS: the node and the player, as ros2_benchmark does."),
]
Drive = Annotated[
    Path | None, typer.Option(help="With --ros: a recorded drive. Default: the sample drive.")
]
CameraTopic = Annotated[
    str | None, typer.Option(help="With --ros: its image topic. Default: the first.")
]
Seconds = Annotated[float, typer.Option(min=0.2, help="With --ros: length of a trial.")]
Trials = Annotated[int, typer.Option(min=1, help="With --ros: trials at the peak.")]
Highest = Annotated[
    float, typer.Option(min=20.0, max=10_000.0, help="With --ros: highest rate to try, Hz.")
]
Out = Annotated[Path, typer.Option(help="Folder for profile.json, profile.html and the like.")]
ProfilePath = Annotated[Path, typer.Argument(help="A profile.json.")]
Smallest = Annotated[
    float,
    typer.Option(
        "--smallest", min=0.0, max=1.0, help="Smallest relative change of interest; 0.05 is 5 %."
    ),
]

app = typer.Typer()


_ONLY_ROS = ("drive", "camera", "seconds", "trials", "highest")
_NEVER_ROS = ("batch", "source", "frames", "warm_up", "rounds", "idle", "deadline_ms")


@app.callback(invoke_without_command=True)
def command(
    context: typer.Context,
    *,
    model: Model = None,
    engine: Engines = None,
    batch: Batches = None,
    threads: Threads = None,
    source: Sources = None,
    frames: Frames = 2000,
    warm_up: WarmUp = 200,
    rounds: Rounds = 20,
    idle: Idle = 1.0,
    rate: Rate = None,
    deadline_ms: Deadline = None,
    ros: Ros = False,
    drive: Drive = None,
    camera: CameraTopic = None,
    seconds: Seconds = 5.0,
    trials: Trials = 5,
    highest: Highest = 600.0,
    budget: Budgets = None,
    sensor_interval: Interval = 0.5,
    out: Out = Path("profile"),
    as_json: Json = False,
) -> None:
    """Measure how long frames take on this machine: engines, batches, threads and sources.

    Leaves profile.json and profile.html in the folder, and with --ros ros2_benchmark.json. Fails
    when a budget is exceeded.
    """
    if context.invoked_subcommand is not None:
        return
    for name in _NEVER_ROS if ros else _ONLY_ROS:
        given = context.get_parameter_source(name)
        if given is not None and given.name == "COMMANDLINE":
            msg = f"--{name.replace('_', '-')}: {'not' if ros else 'only'} with --ros"
            raise CommandError(msg)
    if deadline_ms is not None and rate is None:
        msg = "--deadline-ms: give the frame rate too, with --rate"
        raise CommandError(msg)
    budgets = read_budgets(budget) if budget is not None else None
    further: dict[str, Any] = {}
    if ros:
        asked = RosProfile(
            played_camera(drive, camera),
            engines=engine or [],
            threads=threads or [1],
            rates_hz=(rate,) if rate is not None else FIXED_RATES_HZ,
            seconds=seconds,
            trials=trials,
            highest_hz=highest,
            sensor_interval_s=sensor_interval,
        )
        measured, further["ros2_benchmark"] = profile_through_ros(model, asked)
    else:
        settings = Settings(
            frames=frames,
            warm_up=warm_up,
            rounds=rounds,
            idle_s=idle,
            rate_hz=rate,
            deadline_ms=(deadline_ms or 1e3 / rate) if rate is not None else None,
            sensor_interval_s=sensor_interval,
        )
        sources = source or ["raw:720p", "jpeg:720p", "raw:1080p", "jpeg:1080p"]
        configurations = [
            Configuration(name, count, size, where)
            for where in (Source.parsed(text) for text in dict.fromkeys(sources))
            for name in engine or _working()
            # An accelerator's threads are its own.
            for count in ([1] if name in ACCELERATORS else dict.fromkeys(threads or [1]))
            for size in dict.fromkeys(batch or [1])
        ]
        measured = _on_the_road(model, configurations, settings)
    out.mkdir(parents=True, exist_ok=True)
    document = measured.document()
    write_text(out / "profile.json", json_text(document) + "\n")
    write_text(out / "profile.html", profile_html(measured))
    for name, each in further.items():
        write_text(out / f"{name}.json", json_text(each, indent=4) + "\n")
    exceeded = breaches(budgets, measured) if budgets is not None else []
    payload = {**document, **further, "breaches": [asdict(each) for each in exceeded]}
    emit(
        as_json,
        payload,
        lambda: ros_table(measured, further["ros2_benchmark"]) if ros else _tables(measured),
    )
    for each in exceeded:
        warn(f"beyond the budget: {each.told}")
    if exceeded:
        raise typer.Exit(1)


def _on_the_road(
    model: str | None, configurations: list[Configuration], settings: Settings
) -> Profile:
    bundle = load_bundle(find_model(model))
    with progress() as bar:
        task = bar.add_task("profile")
        return profile(
            bundle,
            configurations,
            settings,
            package_version(),
            lambda done, total: bar.update(task, completed=done, total=total),
        )


@app.command("compare")
def compare_profiles(
    before: ProfilePath,
    after: ProfilePath,
    smallest: Smallest = SMALLEST_CHANGE,
    as_json: Json = False,
) -> None:
    """Tell which latencies changed between two profiles, beyond the machine's noise.

    What else differs, machine, model or engine, is said first.
    """
    found = compare(read_profile(before), read_profile(after), smallest)
    for difference in found.differences:
        warn(f"not the same {difference}")
    emit(as_json, {**asdict(found), "verdict": found.verdict}, lambda: _changes(found, smallest))


def _working() -> list[str]:
    working = [name for name in ENGINES if engine_status(name).works]
    if not working:
        msg = f"no engine works; known are {', '.join(ENGINES)}; see qpde doctor"
        raise CommandError(msg)
    return working


def _tables(measured: Profile) -> Group:
    head = f"{measured.model.name} on {measured.machine.name}"
    return Group(head, *(_table(row) for row in measured.rows))


def _table(row: Row) -> Table:
    title = f"{row.name}: {row.histogram.count} frames"
    table = Table("stage (ms)", title=title, caption=_beside(row), min_width=76)
    for name in ("p50", "p90", "p99", "p99.9", "max", "mean", "sd"):
        table.add_column(name, justify="right")
    for stage, times in row.stages.items():
        table.add_row(stage, *(f"{value:.2f}" for value in times.model_dump().values()))
    return table


def _beside(row: Row) -> str:
    """Return what stands beside the times; a dash for what was not measured."""
    idle, paced = sorted(row.after_idle_ms), row.paced
    parts = (
        f"first frame {_or_dash(row.opening.first_ms if row.opening else None, 'ms')}",
        f"after idle {_or_dash(idle[len(idle) // 2] if idle else None, 'ms')}",
        f"{row.frames_per_second:.0f} frames/s",
        f"memory {_or_dash(row.memory_mib, 'MiB')}",
        f"energy {_or_dash(row.energy_mj, 'mJ')} a frame",
        f"deadlines missed {f'{paced.misses} of {paced.frames}' if paced else '-'}",
    )
    return ", ".join(parts[:3]) + "\n" + ", ".join(parts[3:])


def _or_dash(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:.1f} {unit}"


def _changes(found: Comparison, smallest: float) -> Table:
    table = Table("configuration", "figure", "before", "after", "change between", "verdict")
    table.title = f"{found.verdict} (milliseconds; changes of less than {smallest:.0%} not counted)"
    table.caption = (
        f"the machine's own speed, by a fixed piece of work: {found.machine_change:+.1%}"
    )
    for number, change in enumerate(found.changes):
        first = number == 0 or found.changes[number - 1].row != change.row
        table.add_row(
            change.row if first else "",
            change.figure,
            f"{change.before_ms:.2f}",
            f"{change.after_ms:.2f}",
            f"{change.low:+.1%} and {change.high:+.1%}",
            change.verdict,
        )
    for name in found.only_before:
        table.add_row(name, "", "", "-", "", "only in the first")
    for name in found.only_after:
        table.add_row(name, "", "-", "", "", "only in the second")
    return table
