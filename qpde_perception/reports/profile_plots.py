"""Plots of a profile, each returned as an SVG document."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qpde_perception.profiling.histogram import NS_PER_MS, middles_ns
from qpde_perception.reports.plots import AMBER, BLUE, GREEN, GREY, RED, new_figure, svg, tidy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qpde_perception.profiling.schema import Profile, Row, Sensors

_COLOURS = (BLUE, AMBER, GREEN, RED, "#7c3aed", "#0891b2", "#be185d", "#4d7c0f")
_KINDS = {
    "clock_mhz": "clock (MHz)",
    "temperature_c": "temperature (C)",
    "power_w": "power (W)",
    "load_percent": "load (%)",
}
_MOST_SERIES = 8


def distribution_plot(rows: Sequence[Row]) -> bytes:
    """Plot the share of frames that took longer than a time, both axes logarithmic.

    A histogram hides the tail; here p99.9 is where a line crosses one in a thousand.
    """
    figure = new_figure(9.0, 3.6)
    axes = figure.subplots()
    for row, colour in zip(rows, _cycle(len(rows)), strict=True):
        histogram = row.histogram
        numbers = np.array(sorted(histogram.buckets), np.int64)
        passed = np.cumsum([histogram.buckets[int(number)] for number in numbers])
        slower = 1.0 - (passed - 0.5) / histogram.count
        axes.step(
            middles_ns(numbers) / NS_PER_MS, slower, where="post", color=colour, label=row.name
        )
    for share, name in ((0.5, "p50"), (0.1, "p90"), (0.01, "p99"), (0.001, "p99.9")):
        axes.axhline(share, color=GREY, linewidth=0.6)
        axes.annotate(name, (1.0, share), xycoords=("axes fraction", "data"), fontsize=7)
    axes.set(
        xscale="log", yscale="log", xlabel="time per frame (ms)", ylabel="share of slower frames"
    )
    axes.legend(frameon=False, fontsize=7)
    tidy(axes)
    return svg(figure)


def waterfall_plot(row: Row) -> bytes:
    """Plot the stages of a configuration one after another, at their medians and p99."""
    stages = [stage for stage in row.stages if stage != "total"]
    figure = new_figure(9.0, 0.9 + 0.32 * (len(stages) + 1))
    axes = figure.subplots()
    begin = 0.0
    for place, stage in enumerate(stages):
        times = row.stages[stage]
        axes.barh(place, times.p50_ms, left=begin, color=BLUE, height=0.6)
        axes.barh(
            place, times.p99_ms - times.p50_ms, left=begin + times.p50_ms, color=GREY, height=0.2
        )
        label = f" {times.p50_ms:.3f} (p99 {times.p99_ms:.3f})"
        axes.text(begin + times.p99_ms, place, label, va="center", fontsize=8)
        begin += times.p50_ms
    total = row.stages["total"]
    axes.barh(len(stages), total.p50_ms, color=GREEN, height=0.6)
    axes.text(
        total.p50_ms,
        len(stages),
        f" {total.p50_ms:.3f} (p99 {total.p99_ms:.3f})",
        va="center",
        fontsize=8,
    )
    axes.set_yticks(range(len(stages) + 1), [*stages, "total"])
    axes.set_ylim(len(stages) + 0.5, -0.5)
    axes.set_xlim(right=1.3 * max(total.p99_ms, begin))
    axes.set_xlabel("milliseconds; thick: median, thin: p99")
    tidy(axes)
    return svg(figure)


def course_plot(profile: Profile) -> bytes:
    """Plot the latency over the run with the sensors' readings below, on one axis of time."""
    kinds = {kind: _series(profile.sensors, kind) for kind in _KINDS}
    shown = {kind: series for kind, series in kinds.items() if series}
    figure = new_figure(9.0, 2.4 + 1.5 * len(shown))
    panels = figure.subplots(1 + len(shown), 1, sharex=True, squeeze=False)[:, 0]
    for row, colour in zip(profile.rows, _cycle(len(profile.rows)), strict=True):
        times_s, totals_ms = zip(*row.course, strict=True)
        panels[0].plot(times_s, totals_ms, ".", color=colour, markersize=3, label=row.name)
    panels[0].set(ylabel="slowest frames (ms)", yscale="log")
    panels[0].legend(frameon=False, fontsize=6, ncols=2)
    for axes, (kind, series) in zip(panels[1:], shown.items(), strict=True):
        for (name, values), colour in zip(series.items(), _cycle(len(series)), strict=True):
            numbers = np.array([np.nan if value is None else value for value in values])
            axes.plot(profile.sensors.times_s, numbers, color=colour, linewidth=1.0, label=name)
        axes.set_ylabel(_KINDS[kind])
        if kind == "load_percent":
            axes.set_ylim(0, 105)
        axes.legend(frameon=False, fontsize=6, ncols=4)
    panels[-1].set_xlabel("time since the start (s)")
    tidy(*panels)
    return svg(figure)


def _series(sensors: Sensors, kind: str) -> Mapping[str, Sequence[float | None]]:
    """Return a kind's readings by what they are of; those of many cores only to a limit."""
    found = {
        name.partition(".")[2]: values
        for name, values in sensors.series.items()
        if name.startswith(f"{kind}.") and any(value is not None for value in values)
    }
    # Cores last: there can be more of them than a plot has room for.
    names = sorted(found, key=lambda name: name.startswith("cpu") and name[3:].isdigit())
    return {name: found[name] for name in names[:_MOST_SERIES]}


def _cycle(count: int) -> list[str]:
    return [_COLOURS[number % len(_COLOURS)] for number in range(count)]
