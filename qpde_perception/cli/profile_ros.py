"""`qpde profile --ros`: from a frame's stamp to its published answer, through the real node."""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from hashlib import md5
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from rich.console import Group
from rich.table import Table

from qpde_perception.bags import camera_frame, open_drive
from qpde_perception.bags.messages import regions_of
from qpde_perception.bundles import find_model, load_bundle
from qpde_perception.cli.errors import CommandError
from qpde_perception.cli.frame import progress, warn
from qpde_perception.cli.nodes import demand_ros
from qpde_perception.cli.ros_bench import RosBench
from qpde_perception.engines import engine_status, engines_for
from qpde_perception.frames.decode import frame_size
from qpde_perception.profiling import Profile
from qpde_perception.profiling.harness import model_of
from qpde_perception.profiling.machine import machine_of
from qpde_perception.profiling.ros2_benchmark import Input, Run, Subject, report, rows
from qpde_perception.profiling.sampling import sampled
from qpde_perception.profiling.schema import RosSettings
from qpde_perception.profiling.throughput import PLAYER_SHARE, Search, peak_rate
from qpde_perception.profiling.trials import BASIC, LATENCY, NODE, basic_metrics
from qpde_perception.version import package_version

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from qpde_perception.bundles import Bundle
    from qpde_perception.cli.nodes import PlayedCamera
    from qpde_perception.profiling.trials import Trial

FIXED_RATES_HZ = (10.0, 30.0, 60.0)
# A fixed rate is left out where the peak lies this far below it, as in ros2_benchmark.
_REACHED = 1.05
_NEAR_END_HZ = 5.0
_LOOKED_AT = 100
_COLUMNS = {
    "fps": f"{BASIC}MEAN_FRAME_RATE",
    "p50": f"{LATENCY}P50_LATENCY",
    "p90": f"{LATENCY}P90_LATENCY",
    "p99": f"{LATENCY}P99_LATENCY",
    "p99.9": f"{LATENCY}P99_9_LATENCY",
    "max": f"{BASIC}MAX_LATENCY",
    "jitter": f"{BASIC}MEAN_JITTER",
    "CPU": f"{NODE}CPU_MS_PER_FRAME",
}


@dataclass(frozen=True, slots=True)
class RosProfile:
    """What is asked for.

    Attributes:
        camera: What is played.
        engines: The engine to use; empty for the first that works.
        threads: Its threads.
        rates_hz: The fixed rates.
        seconds: Length of a trial.
        trials: Trials at the peak.
        highest_hz: Where the search for the peak ends at the latest.
        sensor_interval_s: Time between two readings of the sensors.
    """

    camera: PlayedCamera
    engines: list[str]
    threads: list[int]
    rates_hz: tuple[float, ...]
    seconds: float
    trials: int
    highest_hz: float
    sensor_interval_s: float

    @property
    def settings(self) -> dict[str, Any]:
        """What a profile's settings have of it."""
        names = ("seconds", "trials", "rates_hz", "highest_hz", "sensor_interval_s")
        return {name: getattr(self, name) for name in names}


def profile_through_ros(model: str | None, asked: RosProfile) -> tuple[Profile, dict[str, Any]]:
    """Measure the classifier node; return a profile, and ros2_benchmark's document.

    Raises:
        CommandError: If ROS is not there, a node fails, or nothing is answered.
    """
    demand_ros()
    bundle = load_bundle(find_model(model))
    subject, played = _subject(bundle, asked), _input(asked.camera)
    search = Search(publisher_upper_frequency=asked.highest_hz)
    began = datetime.now(timezone.utc)
    idle_percent = psutil.cpu_percent(interval=1.0)
    parameters = {
        "model": str(bundle.path),
        "engine": subject.engine,
        "threads": str(subject.threads),
    }
    with tempfile.TemporaryDirectory() as folder, sampled(asked.sensor_interval_s) as samples:
        start_s = time.monotonic()
        with RosBench(asked.camera, parameters, Path(folder)) as bench:
            peak, fixed = _trials(bench, search, asked)
    run = Run(
        subject=subject,
        played=played,
        search=search,
        seconds=asked.seconds,
        peak=peak,
        fixed=fixed,
        idle_cpu_percent=idle_percent,
        began=began,
        program=str(Path(sys.argv[0]).resolve()),
    )
    measured = Profile(
        package_version=package_version(),
        began=began.isoformat(timespec="seconds"),
        machine=machine_of(),
        model=model_of(bundle),
        settings=RosSettings(drive_md5=played.md5, **asked.settings),
        rows=rows(run, samples, start_s),
        sensors=samples.sensors(start_s),
    )
    return measured, report(run, samples)


def ros_table(measured: Profile, document: Mapping[str, Any]) -> Group:
    """Return the figures as a table, milliseconds."""
    assert isinstance(measured.settings, RosSettings)
    engine = measured.rows[0].engine
    table = Table("rate", "lost", title=f"{engine}, stamp to publish (ms)", min_width=76)
    for name in _COLUMNS:
        table.add_column(name, justify="right")
    fixed = {name: part for name, part in document.items() if name.endswith("fps")}
    for row, figures in zip(measured.rows, (document, *fixed.values()), strict=True):
        lost = figures[f"{BASIC}NUM_MISSED_FRAMES"] / figures[f"{BASIC}NUM_FRAMES_SENT"]
        known = [figures.get(key) for key in _COLUMNS.values()]
        shown = ["-" if value is None else f"{value:.1f}" for value in known]
        table.add_row(f"{row.sent_hz:.0f} Hz", f"{lost:.1%}", *shown)
    memory_mib = max(row.memory_mib or 0.0 for row in measured.rows)
    table.caption = (
        f"first row: the peak, {measured.settings.trials} trials concluded\n"
        f"CPU: of the node's process, a frame; its memory {memory_mib:.0f} MiB"
    )
    return Group(f"{measured.model.name} on {measured.machine.name}, through ROS", table)


def _trials(
    bench: RosBench, search: Search, asked: RosProfile
) -> tuple[tuple[Trial, ...], tuple[Trial, ...]]:
    """Warm up, search the peak, and measure there and at the fixed rates."""
    slow_player: dict[float, float] = {}
    with progress() as bar:
        task = bar.add_task("warm-up", total=None)
        done = 0

        def measure(what: str) -> Callable[[float], Trial]:
            def at(rate_hz: float) -> Trial:
                nonlocal done
                bar.update(task, description=f"{what}: {rate_hz:g} Hz", completed=done)
                trial = bench.trial(rate_hz, asked.seconds)
                done += 1
                played_hz = basic_metrics(trial)[f"{BASIC}MEAN_PLAYBACK_FRAME_RATE"]
                if played_hz < PLAYER_SHARE * rate_hz:
                    slow_player[rate_hz] = played_hz
                return trial

            return at

        measure("warm-up")(search.middle_hz)
        slow_player.clear()
        peak_hz = peak_rate(search, measure("search"))
        bar.update(task, total=done + asked.trials + len(asked.rates_hz))
        peak = tuple(measure("peak")(peak_hz) for _ in range(asked.trials))
        reached_hz = _REACHED * basic_metrics(peak[0])[f"{BASIC}MEAN_PLAYBACK_FRAME_RATE"]
        fixed = tuple(measure("fixed rate")(rate) for rate in asked.rates_hz if rate <= reached_hz)
    if slow_player:
        rate_hz, played_hz = min(slow_player.items())
        warn(f"asked for {rate_hz:.0f} Hz, the player sent {played_hz:.0f} a second: it may limit")
    if peak_hz >= search.publisher_upper_frequency - _NEAR_END_HZ:
        warn(
            f"the peak may lie beyond the highest rate tried; raise --highest {asked.highest_hz:g}"
        )
    if peak_hz <= search.publisher_lower_frequency:
        warn(f"the peak may lie below the lowest rate tried, {peak_hz:g} Hz")
    lost = sum(trial.missed for trial in peak) / sum(len(trial.sent_ns) for trial in peak)
    if lost > search.binary_search_acceptable_frame_loss_fraction:
        warn(
            f"the peak did not hold, {lost:.0%} were missed there: the machine had other work or "
            "changed its clocks; run again when it is quiet"
        )
    for rate in asked.rates_hz:
        if rate > reached_hz:
            warn(f"{rate:g} Hz is beyond the peak and left out")
    return peak, fixed


def _subject(bundle: Bundle, asked: RosProfile) -> Subject:
    """Choose the engine, so that the figures are known to be its own."""
    if len(asked.engines) > 1 or len(asked.threads) > 1:
        msg = "--engine and --threads: through ROS one at a time"
        raise CommandError(msg)
    names = asked.engines or engines_for(bundle)
    found = next((status for status in map(engine_status, names) if status.works), None)
    if found is None:
        msg = f"none of {', '.join(names)} works here: {engine_status(names[0]).remedy}"
        raise CommandError(msg)
    return Subject(
        benchmark="qpde_perception ClassifierNode Benchmark",
        model=bundle.manifest.name,
        engine=found.name,
        engine_version=found.version,
        threads=asked.threads[0],
    )


def _input(camera: PlayedCamera) -> Input:
    """Look at the frames that are sent."""
    with open_drive(camera.drive) as drive:
        image = next(iter(drive.messages([camera.topic])), None)
        if image is None:
            msg = f"{camera.drive}: no image on {camera.topic} can be read"
            raise CommandError(msg)
        height, width = frame_size(camera_frame(image))
        counts = [
            len(regions_of(each)[1].boxes)
            for each in islice(
                drive.messages([camera.regions] if camera.regions else []), _LOOKED_AT
            )
        ]
    path = camera.drive
    data = path if path.is_file() else min(each for each in path.iterdir() if _is_data(each))
    return Input(
        path=str(path.resolve()),
        size=data.stat().st_size,
        md5=_md5(data),
        width=width,
        height=height,
        encoding="jpeg" if camera.compressed else "raw",
        regions=max(1, round(sum(counts) / len(counts))) if counts else 1,
    )


def _is_data(path: Path) -> bool:
    return path.is_file() and path.suffix not in {".yaml", ""}


def _md5(path: Path) -> str:
    digest = md5(usedforsecurity=False)
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()
