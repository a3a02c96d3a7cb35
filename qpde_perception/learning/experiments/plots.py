"""Line plots of an experiment, the same bytes for the same figures."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

COLOURS = {
    "ordinary": "#94a3b8",
    "twin": "#dc2626",
    "paper": "#2563eb",
    "certified": "#16a34a",
}
_INK = "#334155"


@dataclass(frozen=True, slots=True)
class Line:
    """One curve.

    Attributes:
        x: Positions.
        y: Values; None leaves a gap.
        colour: A key of `COLOURS`, or a colour.
        dashed: Whether it is dashed.
    """

    x: Sequence[float]
    y: Sequence[float | None]
    colour: str
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """One coordinate system.

    Attributes:
        title: Above it.
        xlabel: Below it.
        ylabel: Beside it.
        lines: The curves by name.
        ticks: Names of the positions 0, 1, ...; None for numbers.
    """

    title: str
    xlabel: str
    ylabel: str
    lines: Mapping[str, Line]
    ticks: Sequence[str] | None = None


def line_plot(panels: Sequence[Panel]) -> bytes:
    """Draw panels side by side, two in a row, and return the SVG document."""
    # Imported here: it takes longer than the rest of the package together.
    from matplotlib import rc_context  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    # The salt makes the identifiers inside of the document the same every time.
    with rc_context({"svg.hashsalt": "qpde"}):
        figure = Figure(figsize=(4.6 * columns, 3.2 * rows), layout="constrained", dpi=150)
        grid = figure.subplots(rows, columns, squeeze=False).flat
        for axes, panel in zip(grid, panels, strict=False):
            for name, line in panel.lines.items():
                values = [float("nan") if value is None else value for value in line.y]
                colour = COLOURS.get(line.colour, line.colour)
                style = "--" if line.dashed else "-"
                axes.plot(line.x, values, style, color=colour, marker=".", label=name)
            axes.set(xlabel=panel.xlabel, ylabel=panel.ylabel)
            axes.set_title(panel.title, loc="left", fontsize=10, color=_INK)
            if panel.ticks is not None:
                axes.set_xticks(range(len(panel.ticks)), panel.ticks)
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(colors=_INK, labelsize=8)
            axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]) if "RMS" in panel.ylabel else None)
            if panel.lines:
                axes.legend(frameon=False, fontsize=8)
        for axes in list(figure.axes)[len(panels) :]:
            axes.remove()
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
