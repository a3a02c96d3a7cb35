"""Error of every layer between quantized and 32-bit activations (PAPER: section 5)."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
from qpde_perception.learning.experiments.image_task import accuracy, batches
from qpde_perception.learning.experiments.images import fingerprint
from qpde_perception.learning.experiments.jobs import Step
from qpde_perception.learning.experiments.measurements import ErrorSum
from qpde_perception.learning.experiments.plots import Line, Panel, line_plot
from qpde_perception.learning.experiments.runs import ImageRun, Precision
from qpde_perception.learning.experiments.settings import ImageRecipe, Settings
from qpde_perception.learning.zoo import block_outputs, set_bits
from qpde_perception.learning.zoo.layers import Flavour  # noqa: TC001  (pydantic reads it)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import nn

    from qpde_perception.learning.experiments.images import ImageSplits
    from qpde_perception.learning.experiments.jobs import Result

BEHIND_BLOCKS = 2
"""Pooled features and logits come after the blocks."""

REFERENCE_BITS = 32
"""Activations of the reference: clipped as those of the quantized network, and not rounded."""


class LayerErrorSettings(Settings):
    """Profile of `layer-error`.

    Attributes:
        networks: Names of networks.
        flavours: Their flavours.
        precisions: For example `W4A8`.
        recipe: How they are trained.
    """

    networks: tuple[str, ...] = Field(min_length=1)
    flavours: tuple[Flavour, ...] = Field(min_length=1)
    precisions: tuple[PrecisionText, ...] = Field(min_length=1)
    recipe: ImageRecipe


@dataclass(frozen=True, slots=True)
class LayerError:
    """Compares a network with itself at 32-bit activations, its weights quantized in both."""

    name: str = "layer-error"

    @torch.no_grad()
    def measure(self, run: ImageRun, network: nn.Module, images: ImageSplits) -> dict[str, Any]:
        """Return name, root mean square error and SQNR of every layer over the test set."""
        reference = deepcopy(network)
        set_bits(reference, run.precision.weights, REFERENCE_BITS)
        # A certified block would measure its norm anew, and the steps would differ by rounding.
        reference.load_state_dict(network.state_dict())
        layers: dict[str, ErrorSum] = {}
        # TF32 would round the reference to ten bits.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            for pixels, _ in batches(images.test):
                with block_outputs(network) as quantized:
                    network(pixels)
                with block_outputs(reference) as exact:
                    reference(pixels)
                for (name, ours), (_, theirs) in zip(quantized, exact, strict=True):
                    layers.setdefault(name, ErrorSum()).add(ours, theirs)
            top1 = accuracy(reference, images.test)
        return {
            "test_top1_float_activations": top1,
            "layers": [
                {"name": name, "rms": error.rms, "sqnr_db": error.sqnr_db}
                for name, error in layers.items()
            ],
        }


def plan(settings: LayerErrorSettings, data: Path) -> list[Step]:
    """Return a run with its measurement for every network, flavour, precision and seed."""
    known = fingerprint(data)
    return [
        Step(
            ImageRun(network, flavour, Precision.parse(text), None, seed, settings.recipe, known),
            LayerError(),
        )
        for network in settings.networks
        for text in settings.precisions
        for flavour in settings.flavours
        for seed in settings.seeds
    ]


def summarise(results: Sequence[Result]) -> list[Row]:
    """Return a row for every network, precision and flavour, its layers averaged over seeds."""
    groups = grouped(results, "network", "precision", "flavour")
    rows = []
    for (network, precision, flavour), group in groups.items():
        measured = [result.measured for result in group if result.measured is not None]
        layers = [
            {
                "name": same[0]["name"],
                "rms": mean_of([layer["rms"] for layer in same]),
                "sqnr_db": mean_of([s["sqnr_db"] for s in same if s["sqnr_db"] is not None]),
            }
            for same in zip(*(m["layers"] for m in measured), strict=True)
        ]
        blocks = layers[:-BEHIND_BLOCKS]
        first, last = (blocks[0]["rms"], blocks[-1]["rms"]) if blocks else (None, None)
        rows.append(
            {
                "network": network,
                "precision": precision.text,
                "flavour": flavour,
                **accuracies(group),
                "test_top1_float_activations": mean_of(
                    [m["test_top1_float_activations"] for m in measured]
                ),
                "growth": last / first if first and last is not None else None,
                "layers": layers,
            }
        )
    return rows


def present(rows: Sequence[Row]) -> Presentation:
    """Return the table of first and last layers, the curves, and how the flavours compare."""
    pairs = list(dict.fromkeys((row["network"], row["precision"]) for row in rows))
    panels: dict[str, list[Panel]] = {"rms": [], "sqnr_db": []}
    reading = []
    for network, precision in pairs:
        same = [r for r in rows if (r["network"], r["precision"]) == (network, precision)]
        for key, label in (("rms", "RMS error"), ("sqnr_db", "SQNR, dB")):
            lines = {row["flavour"]: _curve(row, key) for row in same if row["layers"]}
            title = f"{network}, {precision}"
            panels[key].append(Panel(title, "residual block", label, lines))
        reading.append(_comparison(network, precision, same))
    plots = {
        "rms": ("RMS error against depth", line_plot(panels["rms"])),
        "sqnr": ("Signal to quantization noise against depth", line_plot(panels["sqnr_db"])),
    }
    head = (
        *("network", "precision", "flavour", "RMS first block", "last block", "last/first"),
        *("pooled", "logits", "SQNR first, dB", "last, dB", "logits, dB"),
        *("test accuracy, %", "with 32-bit activations, %", "parameters"),
    )
    return Presentation(head, [_cells(row) for row in rows], reading, plots)


def _curve(row: Row, key: str) -> Line:
    values = [layer[key] for layer in row["layers"][:-BEHIND_BLOCKS]]
    return Line(range(1, len(values) + 1), values, row["flavour"])


def _cells(row: Row) -> tuple[str, ...]:
    start = (row["network"], row["precision"], row["flavour"])
    if not row["layers"]:
        return (*start, *("-",) * 8, percent(row), "-", f"{row['parameters']:,}")
    first, (last, pooled, logits) = row["layers"][0], row["layers"][-BEHIND_BLOCKS - 1 :]
    exact = row["test_top1_float_activations"]
    return (
        *start,
        *(number(first["rms"], 4), number(last["rms"], 4), number(row["growth"], 2)),
        *(number(pooled["rms"], 4), number(logits["rms"], 4)),
        *(number(layer["sqnr_db"], 1) for layer in (first, last, logits)),
        *(percent(row), number(100 * exact, 1), f"{row['parameters']:,}"),
    )


def _comparison(network: str, precision: str, rows: Sequence[Row]) -> str:
    """Say how the error of every flavour grows, and by how much the twin's is the larger."""
    known = [row for row in rows if row["growth"] is not None]
    parts = [f"{row['flavour']} x{row['growth']:.2f}" for row in known]
    text = f"{network} at {precision}, error after the last block over the first: "
    text += f"{', '.join(parts) or 'no figures'}."
    within = {row["flavour"]: _growth_within_stages(row["layers"]) for row in known}
    parts = [
        f"{flavour} {', '.join(f'x{growth:.2f}' for growth in growths)}"
        for flavour, growths in within.items()
        if growths
    ]
    if parts:
        text += f" Within each stage, last block over first: {'; '.join(parts)}."
    twins = [row for row in known if row["flavour"] == "twin"]
    for twin, row in ((twin, row) for twin in twins for row in known if row is not twin):
        ratios, noise = [], []
        for index in (-BEHIND_BLOCKS - 1, -1):
            theirs, ours = twin["layers"][index], row["layers"][index]
            ratios.append(theirs["rms"] / ours["rms"] if ours["rms"] else None)
            both = (ours["sqnr_db"], theirs["sqnr_db"])
            noise.append(None if None in both else both[0] - both[1])
        text += (
            f" The twin's error is {number(ratios[0], 2)} times that of {row['flavour']} after the"
            f" last block and {number(ratios[1], 2)} times at the logits; relative to its own"
            f" signal, {row['flavour']} stands {number(noise[0], 1)} dB and"
            f" {number(noise[1], 1)} dB above the twin there (below, where negative)."
        )
    return text


def _growth_within_stages(layers: Sequence[dict[str, Any]]) -> list[float]:
    """Return the error after the last block over that after the first, of stages of several."""
    stages: dict[str, list[float]] = {}
    for layer in layers[:-BEHIND_BLOCKS]:
        stages.setdefault(layer["name"].rpartition(".")[0], []).append(layer["rms"])
    return [rms[-1] / rms[0] for rms in stages.values() if len(rms) > 1 and rms[0]]


EXPERIMENT = Experiment(
    question=(
        "Does the error of quantized activations stay bounded with depth in a symmetric network, "
        "where it grows in the non-symmetric twin?"
    ),
    settings=LayerErrorSettings,
    plan=plan,
    summarise=summarise,
    present=present,
)
