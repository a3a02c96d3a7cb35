"""The page of an experiment: Markdown and plots, made from its results alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from qpde_perception.learning.experiments.experiment import Presentation, Section

PAGE = "README.md"


def write_page(document: dict[str, Any], shown: Presentation, folder: Path) -> Path:
    """Write the page and its plots.

    Args:
        document: The results as `results.json` has them.
        shown: How the rows are shown.
        folder: Gets `README.md` and one SVG file for every plot.

    Returns:
        The path of the page.
    """
    for plots in (shown.plots, *(section.plots for section in shown.sections)):
        for name, (_, svg) in plots.items():
            (folder / f"{name}.svg").write_bytes(svg)
    path = folder / PAGE
    path.write_text(page_text(document, shown), encoding="utf-8")
    return path


def page_text(document: dict[str, Any], shown: Presentation) -> str:
    """Return the page."""
    name, device = document["experiment"], document["device"]
    chosen = {key: value for key, value in document["settings"].items() if key != "remarks"}
    settings = yaml.safe_dump(chosen, sort_keys=True, default_flow_style=None)
    parts = [
        f"# {name}",
        document["question"],
        "## Result",
        _table(shown.head, shown.table),
        *_pictures(shown.plots),
        *(part for section in shown.sections for part in _section(section)),
        "## Reading",
        *shown.reading,
        *_cautions(document),
        *document["settings"].get("remarks", ()),
        "## How it was made",
        f"    qpde experiment {name} --device {device}",
        shown.effort or _effort(document),
        f"Settings (`experiments/{name}.yaml`, profile `{device}`):",
        f"```yaml\n{settings}```",
    ]
    return "\n\n".join(parts) + "\n"


def _section(section: Section) -> list[str]:
    table = _table(section.head, section.table)
    return [f"## {section.title}", section.text, table, *_pictures(section.plots)]


def _pictures(plots: Mapping[str, tuple[str, bytes]]) -> list[str]:
    return [f"![{title}]({file}.svg)" for file, (title, _) in plots.items()]


def _effort(document: dict[str, Any]) -> str:
    seeds = ", ".join(str(seed) for seed in document["seeds"])
    return (
        f"Seeds: {seeds}. {document['runs']} runs on {', '.join(document['machines'])}, "
        f"{document['training_seconds']:,.0f} s of training in all, the float runs that quantized "
        "ones go on from counted where they stand in the table. The figures are in "
        "[results.json](results.json), and this page is made from them."
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cautions(document: dict[str, Any]) -> list[str]:
    """Say what the protocol does not carry."""
    recipe = document["settings"].get("recipe", {})
    lines = []
    if recipe:
        lines.append(
            f"A float figure is that of {recipe['float_epochs']} float epochs; a quantized one has "
            f"{recipe['quantized_epochs']} epochs more behind it, which may outweigh what the bits "
            "cost. The epoch was chosen on the validation part, the test set read for it alone."
        )
    if recipe.get("images") is not None:
        lines.append(
            f"Only {recipe['images']:,} images were learned from and chosen on: accuracies are far "
            "below those of the whole set."
        )
    if len(document["seeds"]) < 3:
        lines.append(
            f"{len(document['seeds'])} seed(s): differences of a few points are within what "
            "another seed would change."
        )
    return lines
