"""Plots of a replay, each returned as an SVG document."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from qpde_perception.monitoring import Level

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from qpde_perception.monitoring import DriftCourse

BLUE, GREEN, RED, GREY = "#2563eb", "#16a34a", "#dc2626", "#94a3b8"
AMBER = "#d97706"
_INK = "#334155"
_MOST_CLASSES = 24
# Beyond this number of marks a picture of them is smaller than their list.
_MOST_MARKS = 4000


def latency_plot(times_s: Sequence[float], totals_ms: Sequence[float]) -> bytes:
    """Plot how long frames took: as a distribution, and over the drive.

    Args:
        times_s: Time of each frame since the start of the drive, seconds.
        totals_ms: Time that each frame took, milliseconds; as many, at least one.
    """
    figure = new_figure(9.0, 2.9)
    distribution, course = figure.subplots(1, 2, width_ratios=(1, 1.4))
    distribution.hist(totals_ms, bins=min(40, max(8, len(totals_ms) // 4)), color=BLUE)
    for share, style in ((0.5, "-"), (0.99, "--")):
        value = float(np.quantile(totals_ms, share, method="inverted_cdf"))
        label = f"p{share * 100:.0f}: {value:.2f} ms"
        distribution.axvline(value, color=_INK, linestyle=style, linewidth=1.2, label=label)
    distribution.set(xlabel="time per frame (ms)", ylabel="frames", title="Distribution")
    distribution.legend(frameon=False, fontsize=8)
    course.plot(
        times_s, totals_ms, ".", color=BLUE, markersize=3, rasterized=len(times_s) > _MOST_MARKS
    )
    course.set(xlabel="drive time (s)", ylabel="time per frame (ms)", title="Over the drive")
    course.set_ylim(bottom=0)
    tidy(distribution, course)
    return svg(figure)


def timeline_plot(
    groups: Mapping[str, tuple[str, Sequence[float], Sequence[int]]], labels: Sequence[str]
) -> bytes:
    """Plot which class was seen when.

    Args:
        groups: Per group of results its name, with its colour, times in seconds of the drive and
            class indexes.
        labels: Names of the classes.
    """
    seen = np.concatenate([np.asarray(classes, int) for _, _, classes in groups.values()])
    classes, counts = np.unique(seen, return_counts=True)
    shown = np.sort(classes[np.argsort(-counts, kind="stable")][:_MOST_CLASSES])
    figure = new_figure(9.0, 1.2 + 0.24 * len(shown))
    axes = figure.subplots()
    for name, (colour, times_s, indexes) in groups.items():
        inside = np.isin(indexes, shown)
        axes.plot(
            np.asarray(times_s)[inside],
            np.searchsorted(shown, np.asarray(indexes, int)[inside]),
            "o",
            color=colour,
            markersize=4,
            alpha=0.7,
            label=f"{name} ({len(indexes)})",
            rasterized=len(seen) > _MOST_MARKS,
        )
    axes.set_yticks(range(len(shown)), [f"{labels[index]}  ({index})" for index in shown])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.grid(axis="y", color="#e2e8f0", linewidth=0.6)
    axes.set_xlabel("drive time (s)")
    axes.legend(
        frameon=False, fontsize=8, ncols=len(groups), loc="lower left", bbox_to_anchor=(0, 1)
    )
    tidy(axes)
    return svg(figure)


def drift_plot(course: DriftCourse) -> bytes:
    """Plot the evidence for a change and the noise over a drive, with the verdicts as spans."""
    assert course.last is not None
    figure = new_figure(9.0, 4.2)
    evidence, noise = figure.subplots(2, 1, sharex=True)
    evidence.step(course.times_s, course.evidence, where="post", color=BLUE)
    evidence.axhline(course.last.alarm_at, color=_INK, linestyle="--", linewidth=1.0)
    evidence.set(ylabel="evidence (log10)", title="Dashed: a verdict is raised")
    noise.step(course.times_s, course.noise_ratio, where="post", color=BLUE)
    noise.axhline(1.0, color=_INK, linestyle="--", linewidth=1.0)
    noise.set(xlabel="drive time (s)", ylabel="noise over healthy")
    for index, episode in enumerate(course.episodes):
        colour = RED if episode.verdict.level >= Level.ERROR else AMBER
        end_s = course.times_s[-1] if episode.end_s is None else episode.end_s
        for axes in (evidence, noise):
            axes.axvspan(episode.begin_s, end_s, color=colour, alpha=0.15, linewidth=0)
            axes.axvline(episode.begin_s, color=colour, linewidth=1.2)
        evidence.annotate(
            f"{episode.verdict.cause.value} ({episode.verdict.rule})",
            (episode.begin_s, 0.0),
            xycoords=("data", "axes fraction"),
            xytext=(3, 4 + 11 * (index % 4)),
            textcoords="offset points",
            color=colour,
            fontsize=8,
        )
    tidy(evidence, noise)
    return svg(figure)


def confusion_plot(confusion: Counter[tuple[int, int]], labels: Sequence[str]) -> bytes:
    """Plot how often each true class was taken for each class, among those that occur.

    Args:
        confusion: Number of objects by (true class, predicted class).
        labels: Names of the classes.
    """
    rows = sorted({truth for truth, _ in confusion})
    columns = sorted({*rows, *(predicted for _, predicted in confusion)})
    table = np.array([[confusion[row, column] for column in columns] for row in rows])
    shares = table / table.sum(axis=1, keepdims=True)
    figure = new_figure(3.6 + 0.42 * len(columns), 2.8 + 0.34 * len(rows))
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), count in np.ndenumerate(table):
        if count:
            colour = "white" if shares[row, column] > 0.5 else _INK
            axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=8)
    axes.set_yticks(range(len(rows)), [f"{labels[index]}  ({index})" for index in rows])
    names = [f"{labels[index]} ({index})" for index in columns]
    axes.set_xticks(range(len(columns)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set(xlabel="predicted", ylabel="true")
    tidy(axes)
    return svg(figure)


def drives_plot(names: Sequence[str], rights: Sequence[int], objects: Sequence[int]) -> bytes:
    """Plot the accuracy of each drive with its 95 % interval (Wilson, 1927), and that of all.

    Args:
        names: Names of the drives.
        rights: Objects of each drive whose class is right.
        objects: Objects of each drive, at least one.
    """
    right, count = np.asarray(rights, float), np.asarray(objects, float)
    share, z = right / count, 1.96
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    reach = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    low, high = np.maximum(share - middle + reach, 0), np.maximum(middle + reach - share, 0)
    figure = new_figure(9.0, 1.2 + 0.24 * len(names))
    axes = figure.subplots()
    rows = np.arange(len(names))
    axes.errorbar(100 * share, rows, xerr=100 * np.array([low, high]), fmt="o", color=BLUE, ms=4)
    axes.axvline(100 * right.sum() / count.sum(), color=_INK, linestyle="--", linewidth=1.0)
    axes.set_yticks(rows, names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel("objects whose class is right, % (dashed: of all drives)")
    tidy(axes)
    return svg(figure)


def training_plot(metrics: Sequence[Mapping[str, Any]]) -> bytes:
    """Plot loss and validation accuracy against the epoch.

    Args:
        metrics: One entry per epoch: `epoch`, `phase`, `loss`, `val_top1`.
    """
    epochs = [entry["epoch"] for entry in metrics]
    figure = new_figure(8, 3.2)
    losses, accuracies = figure.subplots(1, 2)
    losses.plot(epochs, [entry["loss"] for entry in metrics], color=_INK)
    losses.set(xlabel="epoch", ylabel="training loss")
    accuracies.plot(epochs, [100 * entry["val_top1"] for entry in metrics], color=_INK)
    accuracies.set(xlabel="epoch", ylabel="top-1 on val, %")
    quantized = [entry["epoch"] for entry in metrics if entry["phase"] == "quantized"]
    for axes in (losses, accuracies) if quantized else ():
        axes.axvspan(quantized[0] - 0.5, epochs[-1] + 0.5, color="#e2e8f0", zorder=0)
        axes.set_title("shaded: quantization in the loop", loc="left")
    tidy(losses, accuracies)
    return svg(figure)


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, its sides in inches."""
    # Imported here: it takes longer than the rest of the package together.
    from matplotlib.figure import Figure  # noqa: PLC0415

    return Figure(figsize=(width, height), layout="constrained", dpi=150)


def tidy(*panels: Axes) -> None:
    """Give the panels the look of the house."""
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color("#cbd5e1")
        axes.tick_params(colors=_INK, labelsize=8)
        axes.xaxis.label.set(color=_INK, size=9)
        axes.yaxis.label.set(color=_INK, size=9)
        axes.title.set(color=_INK, size=10)


def svg(figure: Figure) -> bytes:
    """Return a figure as an SVG document."""
    from matplotlib import rc_context  # noqa: PLC0415  (see new_figure)

    buffer = io.BytesIO()
    # Without salt of its own, matplotlib names the parts of equal plots differently every time.
    with rc_context({"svg.hashsalt": "qpde"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()
