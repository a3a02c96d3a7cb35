"""Accuracy against bits, for every flavour of a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from qpde_perception.learning.experiments.experiment import (
    Experiment,
    PrecisionText,
    Presentation,
    Row,
    accuracies,
    grouped,
    percent,
)
from qpde_perception.learning.experiments.images import fingerprint
from qpde_perception.learning.experiments.jobs import Step
from qpde_perception.learning.experiments.plots import Line, Panel, line_plot
from qpde_perception.learning.experiments.runs import ImageRun, Precision
from qpde_perception.learning.experiments.settings import ImageRecipe, Settings
from qpde_perception.learning.zoo.layers import Flavour  # noqa: TC001  (pydantic reads it)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from qpde_perception.learning.experiments.jobs import Result


class BitsSettings(Settings):
    """Profile of `bits`.

    Attributes:
        networks: Names of networks.
        flavours: Their flavours.
        precisions: `float`, or for example `W4A8`.
        recipe: How they are trained.
    """

    networks: tuple[str, ...] = Field(min_length=1)
    flavours: tuple[Flavour, ...] = Field(min_length=1)
    precisions: tuple[PrecisionText, ...] = Field(min_length=1)
    recipe: ImageRecipe


def plan(settings: BitsSettings, data: Path) -> list[Step]:
    """Return a run for every network, flavour, precision and seed."""
    known = fingerprint(data)
    return [
        Step(ImageRun(network, flavour, Precision.parse(text), None, seed, settings.recipe, known))
        for network in settings.networks
        for text in settings.precisions
        for flavour in settings.flavours
        for seed in settings.seeds
    ]


def summarise(results: Sequence[Result]) -> list[Row]:
    """Return a row for every network, precision and flavour."""
    groups = grouped(results, "network", "precision", "flavour")
    return [
        {"network": network, "precision": precision.text, "flavour": flavour, **accuracies(group)}
        for (network, precision, flavour), group in groups.items()
    ]


def present(rows: Sequence[Row]) -> Presentation:
    """Return the table of accuracies, a plot against bits, and what was lost to the bits."""
    table = [
        (row["network"], row["precision"], row["flavour"], percent(row), f"{row['parameters']:,}")
        for row in rows
    ]
    networks = list(dict.fromkeys(row["network"] for row in rows))
    precisions = list(dict.fromkeys(row["precision"] for row in rows))
    flavours = list(dict.fromkeys(row["flavour"] for row in rows))
    top1 = {(r["network"], r["precision"], r["flavour"]): r["test_top1"] for r in rows}
    panels, reading = [], []
    for network in networks:
        lines = {}
        for flavour in flavours:
            values = [top1.get((network, precision, flavour)) for precision in precisions]
            shown = [None if value is None else 100 * value for value in values]
            lines[flavour] = Line(range(len(precisions)), shown, flavour)
        panels.append(Panel(network, "", "test accuracy, %", lines, precisions))
        reading += [
            _losses(network, precision, flavours, top1)
            for precision in precisions
            if precision != "float" and "float" in precisions
        ]
    plots = {"accuracy": ("Accuracy against bits", line_plot(panels))}
    head = ("network", "precision", "flavour", "test accuracy, %", "parameters")
    return Presentation(head, table, reading, plots)


def _losses(
    network: str,
    precision: str,
    flavours: Sequence[str],
    top1: dict[tuple[str, str, str], float | None],
) -> str:
    parts = []
    for flavour in flavours:
        before = top1.get((network, "float", flavour))
        after = top1.get((network, precision, flavour))
        if before is None or after is None:
            parts.append(f"{flavour} has no figure (diverged)")
        else:
            parts.append(f"{flavour} {100 * (after - before):+.1f}")
    return (
        f"{network} at {precision} against its own float run, points of accuracy: "
        f"{', '.join(parts)}."
    )


EXPERIMENT = Experiment(
    question="How much accuracy do fewer bits cost, and does a symmetric network lose less?",
    settings=BitsSettings,
    plan=plan,
    summarise=summarise,
    present=present,
)
