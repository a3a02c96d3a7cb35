"""The HTML report of a profile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpde_perception.profiling.schema import RosSettings
from qpde_perception.reports.page import details, figure, notes, page, section, table, tiles
from qpde_perception.reports.profile_plots import course_plot, distribution_plot, waterfall_plot

if TYPE_CHECKING:
    from qpde_perception.profiling import Profile, Row, Settings

_COLUMNS = ("p50", "p90", "p99", "p99.9", "max", "mean", "deviation")


def profile_html(profile: Profile) -> str:
    """Return the report as one HTML page; it needs nothing else."""
    best = min(profile.rows, key=lambda row: row.stages["total"].p50_ms)
    total = best.stages["total"]
    parts = [
        tiles(
            [
                ("fastest", f"{total.p50_ms:.2f} ms", f"median of {best.name}"),
                ("its p99", f"{total.p99_ms:.2f} ms", f"slowest {total.max_ms:.2f} ms"),
                ("its throughput", f"{best.frames_per_second:.0f} /s", _load(best)),
                ("its first frame", _first(best, " ms"), "cold"),
                ("energy per frame", _or_dash(best.energy_mj, " mJ"), _power_source(profile)),
            ]
        ),
        notes(_notes(profile)),
        section(
            "Time per frame",
            "Milliseconds of the whole road in steady state, decoding included; through ROS, from "
            "the stamp of a frame to the publication of its answer.",
            table(
                ("configuration", "", *_COLUMNS, "first", "after idle", "frames/s"),
                [_times(row) for row in profile.rows],
            ),
        ),
        section(
            "Distribution",
            "How many frames were slower than a time. A line that falls steeply is a steady "
            "engine; one with a long foot has rare slow frames.",
            figure(distribution_plot(profile.rows), "Share of slower frames by time"),
        ),
        section(
            "Course of the run",
            "Of every few frames in a row the slowest, and below what the machine's sensors told "
            "meanwhile: a step in the clocks, or a rising temperature, explains a step above.",
            figure(course_plot(profile), "Latency and sensors over time"),
        ),
        section(
            "Stages",
            "Where a frame's time goes, stage after stage.",
            *(
                f"{section(row.name, '', figure(waterfall_plot(row), f'Stages of {row.name}'))}"
                for row in profile.rows
            ),
        ),
        section(
            "Resources",
            "",
            table(
                (
                    "configuration",
                    "",
                    "built (ms)",
                    "memory (MiB)",
                    "power (W)",
                    "energy (mJ)",
                    "missed deadlines",
                ),
                [_resources(row) for row in profile.rows],
            ),
        ),
        section(
            "Sensors",
            "Over the whole run; a dash is a sensor that is there and told nothing.",
            table(("sensor", "", "lowest", "mean", "highest"), _sensors(profile)),
        ),
        section("Details", "", details(_details(profile))),
    ]
    subtitle = f"{profile.model.name} · {profile.machine.name} · {profile.began}"
    return page("Profile", subtitle, parts)


def _times(row: Row) -> list[str]:
    idle = sorted(row.after_idle_ms)
    return [
        row.name,
        "",
        *(f"{value:.2f}" for value in row.stages["total"].model_dump().values()),
        _first(row),
        _or_dash(idle[len(idle) // 2] if idle else None),
        f"{row.frames_per_second:.0f}",
    ]


def _resources(row: Row) -> list[str]:
    paced = row.paced
    return [
        row.name,
        "",
        f"{row.opening.build_ms:.0f}" if row.opening else "-",
        _or_dash(row.memory_mib),
        _or_dash(row.power_w),
        _or_dash(row.energy_mj),
        f"{paced.misses} of {paced.frames}" if paced else "-",
    ]


def _sensors(profile: Profile) -> list[list[str]]:
    rows = []
    for name, values in sorted(profile.sensors.series.items()):
        known = [value for value in values if value is not None]
        figures = (min(known), sum(known) / len(known), max(known)) if known else (None,) * 3
        rows.append([name, "", *(_or_dash(figure) for figure in figures)])
    return rows


def _notes(profile: Profile) -> list[str]:
    shown = []
    for name, values in profile.sensors.series.items():
        known = [value for value in values if value is not None]
        throttled = name.startswith("throttle.") and any(known)
        if throttled or (name.startswith("events.") and known and known[-1] > known[0]):
            shown.append(f"The machine was throttled during the run: {name}.")
    if profile.machine.jetson_clocks is False:
        shown.append(
            "The clocks were not held (sudo jetson_clocks): they follow the load, and latencies "
            "with them."
        )
    return shown


def _power_source(profile: Profile) -> str:
    return profile.sensors.power_source or "no power sensor here"


def _details(profile: Profile) -> list[tuple[str, str]]:
    machine = {
        name.replace("_", " "): _text(value) for name, value in profile.machine.model_dump().items()
    }
    engines = sorted({f"{row.engine} {row.engine_version}" for row in profile.rows})
    return [
        *machine.items(),
        ("engines", ", ".join(engines)),
        ("model", f"{profile.model.name} (manifest SHA-256 {profile.model.sha256})"),
        *_measured(profile.settings),
        ("qpde_perception", profile.package_version),
    ]


def _measured(settings: Settings | RosSettings) -> list[tuple[str, str]]:
    if isinstance(settings, RosSettings):
        told = f"{settings.trials} trials of {settings.seconds:g} s at the peak, one at each "
        return [("measured", told + "fixed rate"), ("drive", f"MD5 {settings.drive_md5}")]
    paced = "-"
    if settings.rate_hz is not None:
        paced = f"{settings.rate_hz:g} frames/s, deadline {settings.deadline_ms:.2f} ms"
    return [
        (
            "measured",
            f"{settings.frames} frames in {settings.rounds} rounds after {settings.warm_up}",
        ),
        ("paced at", paced),
    ]


def _load(row: Row) -> str:
    return "one caller, no pause" if row.sent_hz is None else f"sent {row.sent_hz:g} /s"


def _first(row: Row, unit: str = "") -> str:
    return f"{row.opening.first_ms:.1f}{unit}" if row.opening else "-"


def _text(value: object) -> str:
    if value is None or value == "":
        return "-"
    return f"{value:.0f}" if isinstance(value, float) else str(value)


def _or_dash(value: float | None, unit: str = "") -> str:
    return "-" if value is None else f"{value:.2f}{unit}"
