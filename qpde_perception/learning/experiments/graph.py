"""Symmetric graph networks on citation graphs, at fewer and fewer bits (PAPER: section 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from qpde_perception.learning.experiments.experiment import (
    Experiment,
    PrecisionText,
    Presentation,
    Row,
    accuracies,
    deviation_of,
    grouped,
    mean_of,
    percent,
)
from qpde_perception.learning.experiments.graphs import graph_fingerprint
from qpde_perception.learning.experiments.jobs import Step
from qpde_perception.learning.experiments.plots import Line, Panel, line_plot
from qpde_perception.learning.experiments.runs import FLOAT, GraphRun, Precision
from qpde_perception.learning.experiments.settings import GraphRecipe, Settings
from qpde_perception.learning.zoo.layers import Flavour  # noqa: TC001  (pydantic reads it)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from qpde_perception.learning.experiments.jobs import Result


PUBLISHED = (
    "For comparison, a graph convolutional network trained to the end reaches 81.5, 70.3 and "
    "79.0 % on Cora, Citeseer and Pubmed, and a perceptron that sees no edges 55.1, 46.5 and 71.4 "
    "% (Kipf and Welling, ICLR 2017). A float figure near the latter says that recipe and size set "
    "the limit, and what the bits cost must be read with that."
)


WORTH_A_REMARK = 0.01
"""Share of accuracy by which more bits must lose more to be remarked."""


class GraphSettings(Settings):
    """Profile of `graph`.

    Attributes:
        graphs: Names of graphs.
        flavours: Flavours of the network; `ordinary` is a graph convolutional network.
        precisions: `float`, or for example `W4A8`.
        recipe: How they are trained.
    """

    graphs: tuple[str, ...] = Field(min_length=1)
    flavours: tuple[Flavour, ...] = Field(min_length=1)
    precisions: tuple[PrecisionText, ...] = Field(min_length=1)
    recipe: GraphRecipe


def plan(settings: GraphSettings, data: Path) -> list[Step]:
    """Return a run for every graph, flavour, precision and seed."""
    known = {name: graph_fingerprint(data, name) for name in settings.graphs}
    return [
        Step(GraphRun(name, flavour, Precision.parse(text), seed, settings.recipe, known[name]))
        for name in settings.graphs
        for flavour in settings.flavours
        for text in settings.precisions
        for seed in settings.seeds
    ]


def summarise(results: Sequence[Result]) -> list[Row]:
    """Return a row for every graph, flavour and precision, with what each seed lost to the bits."""
    groups = grouped(results, "graph", "flavour", "precision")
    rows = []
    for (graph, flavour, precision), group in groups.items():
        before, after = _by_seed(groups.get((graph, flavour, FLOAT), [])), _by_seed(group)
        losses = [before[seed] - after[seed] for seed in after if seed in before]
        rows.append(
            {
                "graph": graph,
                "flavour": flavour,
                "precision": precision.text,
                **accuracies(group),
                "loss": mean_of(losses),
                "loss_deviation": deviation_of(losses),
            }
        )
    return rows


def _by_seed(results: Sequence[Result]) -> dict[int, float]:
    return {r.run.seed: r.outcome.test_top1 for r in results if r.outcome.test_top1 is not None}


def present(rows: Sequence[Row]) -> Presentation:
    """Return the table of accuracies, plots against bits, and which flavour lost least."""
    table = [
        (
            *(row["graph"], row["flavour"], row["precision"], percent(row), _loss(row)),
            f"{row['parameters']:,}",
        )
        for row in rows
    ]
    graphs = list(dict.fromkeys(row["graph"] for row in rows))
    flavours = list(dict.fromkeys(row["flavour"] for row in rows))
    precisions = list(dict.fromkeys(row["precision"] for row in rows))
    panels, reading = [], []
    for graph in graphs:
        lines = {}
        for flavour in flavours:
            same = [r for r in rows if (r["graph"], r["flavour"]) == (graph, flavour)]
            shown = [None if r["test_top1"] is None else 100 * r["test_top1"] for r in same]
            lines[flavour] = Line(range(len(same)), shown, flavour)
        panels.append(Panel(graph, "", "test accuracy, %", lines, precisions))
        reading += [
            _comparison(
                graph, text, [r for r in rows if (r["graph"], r["precision"]) == (graph, text)]
            )
            for text in precisions
        ]
    reading += [*_overtrained(rows), PUBLISHED]
    plots = {"accuracy": ("Accuracy against bits", line_plot(panels))}
    head = (
        *("graph", "flavour", "precision", "test accuracy, %", "lost against float, points"),
        "parameters",
    )
    return Presentation(head, table, reading, plots)


def _loss(row: Row) -> str:
    if row["loss"] is None:
        return "-"
    text = f"{100 * row['loss']:.1f}"
    if row["loss_deviation"] is None:
        return text
    return f"{text} ± {100 * row['loss_deviation']:.1f}"


def _comparison(graph: str, precision: str, rows: Sequence[Row]) -> str:
    """Say which flavour is ahead, and whether by more than the deviation over seeds."""
    known = sorted(
        (row for row in rows if row["test_top1"] is not None), key=lambda row: -row["test_top1"]
    )
    if len(known) < 2:
        return f"{graph} at {precision}: too few figures to compare."
    best, second = known[:2]
    lead = best["test_top1"] - second["test_top1"]
    deviations = [row["test_top1_deviation"] or 0.0 for row in (best, second)]
    # Standard error of the difference of two means.
    error = (
        sum(d**2 / row["runs"] for d, row in zip(deviations, (best, second), strict=True))
    ) ** 0.5
    lost = [f"{row['flavour']} {100 * row['loss']:.1f}" for row in rows if row["loss"] is not None]
    quantized = precision != "float" and lost
    losses = f" Lost against float, points: {', '.join(lost)}." if quantized else ""
    verdict = "more than" if lead > 2 * error else "no more than"
    return (
        f"{graph} at {precision}: {best['flavour']} leads {second['flavour']} by {100 * lead:.1f} "
        f"points, {verdict} twice the standard error of the difference ({100 * error:.1f}).{losses}"
    )


def _overtrained(rows: Sequence[Row]) -> list[str]:
    """Name where more bits lose more: that is the training, not the bits."""
    lines = []
    for row in rows:
        finer = [
            other
            for other in rows
            if (other["graph"], other["flavour"]) == (row["graph"], row["flavour"])
            and _is_finer(other["precision"], row["precision"])
        ]
        for other in finer:
            known = other["loss"] is not None and row["loss"] is not None
            if known and other["loss"] - row["loss"] > WORTH_A_REMARK:
                lines.append(
                    f"{row['graph']}, {row['flavour']}: {other['precision']} loses "
                    f"{100 * (other['loss'] - row['loss']):.1f} points more than "
                    f"{row['precision']}, so at least that much of its loss comes from the epochs "
                    "of training on, not from rounding."
                )
    return lines


def _is_finer(text: str, other: str) -> bool:
    first, second = Precision.parse(text), Precision.parse(other)
    if FLOAT in {first, second} or first == second:
        return False
    return all(
        a >= b for a, b in zip(first, second, strict=True) if a is not None and b is not None
    )


EXPERIMENT = Experiment(
    question="Does a symmetric graph network keep its accuracy at few bits, better than others?",
    settings=GraphSettings,
    plan=plan,
    summarise=summarise,
    present=present,
)
