"""What total-variation smoothing does to feature maps, to accuracy and to time."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import Field

from qpde_perception.learning.experiments.experiment import (
    Experiment,
    PrecisionText,
    Presentation,
    Row,
    accuracies,
    grouped,
    mean_of,
    number,
    percent,
)
from qpde_perception.learning.experiments.image_task import batches, build_image_network
from qpde_perception.learning.experiments.images import fingerprint
from qpde_perception.learning.experiments.jobs import Step
from qpde_perception.learning.experiments.measurements import shape_of
from qpde_perception.learning.experiments.plots import Line, Panel, line_plot
from qpde_perception.learning.experiments.runs import ImageRun, Precision
from qpde_perception.learning.experiments.settings import ImageRecipe, Settings
from qpde_perception.learning.zoo import SmoothingConfig, block_outputs
from qpde_perception.learning.zoo.layers import Flavour  # noqa: TC001  (pydantic reads it)
from qpde_perception.learning.zoo.smoothing import Smoothing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from qpde_perception.learning.experiments.images import ImageSplits
    from qpde_perception.learning.experiments.jobs import Result

BEHIND_BLOCKS = 2
TIMED_IMAGES = 100
TIMED_ROUNDS = 9
MEASURES = ("range", "kurtosis", "entropy_bits", "sqnr_db", "rms")
FLOAT_GRID_BITS = 8
"""Bits to which the maps of a float network are rounded for their error."""
APPLIED_ITERATIONS = 3
"""Steps that a map of the network without smoothing is given, as in the published figures."""


class TvSettings(Settings):
    """Profile of `tv`.

    Attributes:
        networks: Names of networks.
        flavours: Their flavours.
        precisions: For example `W4A4`.
        iterations: Steps of the smoothing; 0 is the network without.
        sites: `inner`, `outer`, or both.
        flux: `sqrt` or `huber`.
        gamma: Root of the step.
        eps: Square of the difference at which an edge begins.
        recipe: How the networks are trained.
    """

    networks: tuple[str, ...] = Field(min_length=1)
    flavours: tuple[Flavour, ...] = Field(min_length=1)
    precisions: tuple[PrecisionText, ...] = Field(min_length=1)
    iterations: tuple[int, ...] = Field(min_length=1)
    sites: tuple[Literal["inner", "outer"], ...] = Field(min_length=1)
    flux: Literal["sqrt", "huber"]
    gamma: float = Field(gt=0)
    eps: float = Field(gt=0)
    recipe: ImageRecipe

    def smoothing(self, iterations: int) -> SmoothingConfig | None:
        """Return the smoothing of so many steps."""
        if iterations == 0:
            return None
        return SmoothingConfig(
            sites=self.sites,
            flux=self.flux,
            gamma=self.gamma,
            eps=self.eps,
            iterations=iterations,
        )


@dataclass(frozen=True, slots=True)
class FeatureMaps:
    """Measures the outputs of all blocks, smoothed in the network or, without that, afterwards.

    Attributes:
        applied: What is applied afterwards to the maps of a network without smoothing.
    """

    applied: SmoothingConfig
    name: str = "feature-maps"

    @torch.no_grad()
    def measure(self, run: ImageRun, network: nn.Module, images: ImageSplits) -> dict[str, Any]:
        """Return the means over blocks, and the time beside that of a network without smoothing."""
        bits = run.precision.activations or FLOAT_GRID_BITS
        pixels, _ = next(batches(images.test))
        with block_outputs(network) as layers:
            network(pixels)
        maps = [x for _, x in layers[:-BEHIND_BLOCKS]]
        values: dict[str, Any] = {"maps": _means(maps, bits), "applied": None, "time_ratio": 1.0}
        if run.smoothing is None:
            smoothing = Smoothing(self.applied)
            values["applied"] = _means([smoothing(x) for x in maps], bits)
        else:
            plain = build_image_network(replace(run, smoothing=None), pixels.device).eval()
            values["time_ratio"] = time_ratio(
                lambda: network(pixels[:TIMED_IMAGES]), lambda: plain(pixels[:TIMED_IMAGES])
            )
        return values


def time_ratio(subject: Callable[[], Tensor], other: Callable[[], Tensor]) -> float:
    """Return the median time of one call over that of another, in one interleaved run."""
    times: tuple[list[float], list[float]] = ([], [])
    for index in range(TIMED_ROUNDS + 1):
        for call, noted in zip((subject, other), times, strict=True):
            start = perf_counter()
            # A value on the host is one that is computed, also where calls only queue work.
            float(call().sum())
            if index > 0:
                noted.append(perf_counter() - start)
    return statistics.median(times[0]) / statistics.median(times[1])


def plan(settings: TvSettings, data: Path) -> list[Step]:
    """Return a run with its measurement for every network, flavour, precision, steps and seed."""
    known = fingerprint(data)
    applied = settings.smoothing(APPLIED_ITERATIONS)
    assert applied is not None
    return [
        Step(
            ImageRun(
                network,
                flavour,
                Precision.parse(text),
                settings.smoothing(iterations),
                seed,
                settings.recipe,
                known,
            ),
            FeatureMaps(applied),
        )
        for network in settings.networks
        for flavour in settings.flavours
        for text in settings.precisions
        for iterations in settings.iterations
        for seed in settings.seeds
    ]


def summarise(results: Sequence[Result]) -> list[Row]:
    """Return a row for every network, flavour, precision and number of steps."""
    groups = grouped(results, "network", "flavour", "precision", "smoothing")
    rows = []
    for (network, flavour, precision, smoothing), group in groups.items():
        measured = [result.measured for result in group if result.measured is not None]
        applied = [m["applied"] for m in measured if m["applied"] is not None]
        rows.append(
            {
                "network": network,
                "flavour": flavour,
                "precision": precision.text,
                "iterations": 0 if smoothing is None else smoothing.iterations,
                "smoothing": None if smoothing is None else asdict(smoothing),
                **accuracies(group),
                "maps": _over_seeds([m["maps"] for m in measured]),
                "applied": _over_seeds(applied) if applied else None,
                "time_ratio": mean_of([m["time_ratio"] for m in measured]),
            }
        )
    return rows


def present(rows: Sequence[Row]) -> Presentation:
    """Return the table of measures beside accuracy and time, and what smoothing changed."""
    table, reading, panels = [], [], []
    for row in rows:
        start = (row["network"], row["flavour"], row["precision"])
        cost = number(row["time_ratio"], 2)
        table.append(
            (*start, str(row["iterations"]), *_cells(row["maps"]), percent(row), f"x{cost}")
        )
        if row["applied"] is not None:
            after = f"0, then {APPLIED_ITERATIONS} applied"
            table.append((*start, after, *_cells(row["applied"]), "-", "-"))
            reading.append(_applied(row))
    kinds = list(dict.fromkeys((r["network"], r["flavour"], r["precision"]) for r in rows))
    for kind in kinds:
        same = [r for r in rows if (r["network"], r["flavour"], r["precision"]) == kind]
        reading += _changes(same)
        steps = [row["iterations"] for row in same]
        for key, label in (("kurtosis", "kurtosis"), ("sqnr_db", "SQNR, dB")):
            line = Line(steps, [row["maps"][key] for row in same], kind[1])
            panels.append(Panel(" ".join(kind), "steps of smoothing", label, {kind[1]: line}))
    plots = {"maps": ("Feature maps against steps of smoothing", line_plot(panels))}
    head = (
        *("network", "flavour", "precision", "steps", "range", "kurtosis", "entropy, bits"),
        *("SQNR, dB", "RMS of rounding", "test accuracy, %", "time"),
    )
    return Presentation(head, table, reading, plots)


def _means(maps: Sequence[Tensor], bits: int) -> Row:
    shapes = [shape_of(x, bits) for x in maps]
    known = [asdict(shape) for shape in shapes if shape is not None]
    return {
        key: mean_of([shape[key] for shape in known if shape[key] is not None]) for key in MEASURES
    }


def _over_seeds(measured: Sequence[Row]) -> Row:
    return {key: mean_of([m[key] for m in measured if m[key] is not None]) for key in MEASURES}


def _cells(maps: Row) -> tuple[str, ...]:
    digits = {"range": 2, "kurtosis": 1, "entropy_bits": 2, "sqnr_db": 1, "rms": 4}
    return tuple(number(maps[key], digits[key]) for key in MEASURES)


def _applied(row: Row) -> str:
    before, after = row["maps"], row["applied"]
    return (
        f"{row['network']} ({row['flavour']}, {row['precision']}) without smoothing, its maps "
        f"given {APPLIED_ITERATIONS} steps afterwards: range x{_ratio(after, before, 'range')}, "
        f"kurtosis "
        f"{number(before['kurtosis'], 1)} to {number(after['kurtosis'], 1)}, entropy "
        f"{_difference(after, before, 'entropy_bits')} bits, SQNR "
        f"{_difference(after, before, 'sqnr_db')} dB. Published for one map of a ResNet-50: range "
        "x0.48, kurtosis 48.9 to 9.7, entropy +0.87 bit."
    )


def _changes(rows: Sequence[Row]) -> list[str]:
    plain = next((row for row in rows if row["iterations"] == 0), None)
    if plain is None:
        return []
    lines = []
    for row in rows:
        if row is plain:
            continue
        top1 = (row["test_top1"], plain["test_top1"])
        gain = "unknown" if None in top1 else f"{100 * (top1[0] - top1[1]):+.1f}"
        lines.append(
            f"{row['network']} ({row['flavour']}, {row['precision']}) trained with "
            f"{row['iterations']} step(s) against the one without: accuracy {gain} points, SQNR "
            f"{_difference(row['maps'], plain['maps'], 'sqnr_db')} dB, for "
            f"{number(row['time_ratio'], 2)} times the time."
        )
    return lines


def _ratio(after: Row, before: Row, key: str) -> str:
    known = after[key] is not None and before[key]
    return number(after[key] / before[key] if known else None, 2)


def _difference(after: Row, before: Row, key: str) -> str:
    if after[key] is None or before[key] is None:
        return "-"
    return f"{after[key] - before[key]:+.2f}"


EXPERIMENT = Experiment(
    question=(
        "Does total-variation smoothing make feature maps easier to quantize, and what does it "
        "cost?"
    ),
    settings=TvSettings,
    plan=plan,
    summarise=summarise,
    present=present,
)
