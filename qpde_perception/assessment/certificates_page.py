"""The page of the experiment `certificate`: tables, plots and reading, from its rows alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpde_perception.assessment.certificates_reading import reading_of
from qpde_perception.assessment.figures import (
    Figure,
    Group,
    at,
    grouped_by,
    mean,
    percent,
    plain,
)
from qpde_perception.assessment.presentation import PALETTE
from qpde_perception.learning.experiments.experiment import Presentation, Section
from qpde_perception.learning.experiments.plots import Line, Panel, line_plot

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qpde_perception.learning.experiments.experiment import Row

    Groups = Mapping[str, Group]

LIMITS = 4
"""Quantizers named as those that a bound is made of."""


def label_of(row: Row) -> str:
    """Return what a network is called on the page: its configuration, and its penalty if any."""
    name = str(row["model"]).replace("_mobilenet_v2", "")
    return f"{name}, penalty {row['noise_penalty']:g}" if row["noise_penalty"] else name


def present(rows: Sequence[Row]) -> Presentation:
    """Return the tables, the plots and the reading.

    Args:
        rows: One for every network and seed, as `certificates` makes them.
    """
    groups = grouped_by(rows, label_of)
    head = (
        *("network", "parameters", "val, %", "test-a, %", "certified, %", "refuted, %"),
        *("margin / bound, first order", "margin / bound, proven", "over 5 sigma, %"),
        *("noise, observed / predicted", "bound for every input", "largest distance seen"),
    )
    table = [
        (
            label,
            f"{group[0]['parameters']:,}",
            percent(group, at("val_top1")),
            percent(group, at("test_top1")),
            percent(group, at("certified_share")),
            percent(group, at("refuted_share")),
            f"{mean(group, lambda row: row['margin'] / row['first_order']):.2g}",
            f"{mean(group, lambda row: row['margin'] / row['proven'][0]['bound']):.2g}",
            percent(group, at("five_sigma_share")),
            plain(group, at("noise_ratio")),
            f"{mean(group, at('global_bound')):.2g}",
            f"{mean(group, at('observed_max')):.3g}",
        )
        for label, group in groups.items()
    ]
    sections = (_frontier(groups), _gains(groups), _constants(groups), _limits(groups))
    return Presentation(head, table, reading_of(groups), {}, sections, _effort(rows))


def _frontier(groups: Groups) -> Section:
    figures: tuple[tuple[str, Figure], ...] = (
        ("margin / bound, first order", lambda row: row["margin"] / row["first_order"]),
        ("margin / predicted deviation", lambda row: row["margin"] / row["predicted"]),
        ("frames over 5 sigma", at("five_sigma_share")),
        ("quantizers under (b)", at("covered_share")),
    )
    head = ("network", "test-a, %", "margin", *(name for name, _ in figures))
    table = [
        (
            label,
            percent(group, at("test_top1")),
            f"{mean(group, at('margin')):.3g}",
            *(f"{mean(group, figure):.3g}" for _, figure in figures),
        )
        for label, group in groups.items()
    ]
    panels = [
        Panel(
            "",
            name,
            "top-1 on test-a",
            {
                label: Line(
                    [mean(group, figure)], [mean(group, at("test_top1"))], _colour(groups, label)
                )
                for label, group in groups.items()
            },
        )
        for name, figure in figures[:3:2]
    ]
    return Section(
        "Accuracy against what is certified",
        "Medians over the certified frames, as shares or quotients; further right is better. "
        "`quantizers under (b)`: share of the quantizers, counted from the logits, that may round "
        "at will without changing the class, mean over frames.",
        head,
        table,
        {"frontier": ("Accuracy against certified figures", line_plot(panels))},
    )


def _gains(groups: Groups) -> Section:
    depth = max(len(group[0]["blocks"]) for group in groups.values())
    head = ("network", "stem", *(f"block {number}" for number in range(1, depth)))
    table, lines = [], {}
    for label, group in groups.items():
        gains = gains_of(group)
        cells = [f"{gain:.3g}" for gain in gains] + [""] * (depth - len(gains))
        table.append((label, *cells))
        relative = [gain / gains[-1] for gain in gains]
        lines[label] = Line(list(range(len(gains))), relative, _colour(groups, label))
    panel = Panel("", "blocks before", "noise gain over that after the last block", lines)
    return Section(
        "Noise gain against depth",
        "Frobenius norm of the derivative of all logits by the trunk, after the stem and after "
        "each block, mean over frames, in logits per unit of the trunk. The plot shows it over its "
        "value after the last block: what does not rise towards the left does not amplify. A step "
        "between stages holds the pooling besides.",
        head,
        table,
        {"gain": ("Noise gain against depth", line_plot([panel]))},
    )


def gains_of(group: Group) -> list[float]:
    """Return the noise gain after the stem and after each block, mean over seeds."""
    count = len(group[0]["blocks"])
    return [mean(group, at("blocks", number, "gain")) for number in range(count)]


def _constants(groups: Groups) -> Section:
    depth = max(len(group[0]["stages"]) for group in groups.values())
    table = []
    for label, group in groups.items():
        count = len(group[0]["stages"])
        products = [mean(group, at("stages", number, "lipschitz")) for number in range(count)]
        table.append((label, *(f"{p:.3g}" for p in products), *[""] * (depth - count)))
    return Section(
        "Lipschitz constants",
        "Product of the proven constants of the blocks of a stage. That of a symmetric block holds "
        "in the norm weighted by its own outer scales; what the change of weights between blocks "
        "costs is in the bound for every input only.",
        ("network", *(f"stage {number}" for number in range(depth))),
        table,
    )


def _limits(groups: Groups) -> Section:
    depth = max(len(group[0]["proven"]) for group in groups.values())
    table = []
    for label, group in groups.items():
        shares = {name: mean(group, at("limits", name)) for name in group[0]["limits"]}
        largest = sorted(shares, key=lambda name: -shares[name])[:LIMITS]
        named = ", ".join(f"{name} {100 * shares[name]:.0f} %" for name in largest)
        spread = mean(group, lambda row: row["first_order"] / row["predicted"])
        bounds = [
            mean(group, at("proven", number, "bound")) for number in range(len(group[0]["proven"]))
        ]
        table.append(
            (
                label,
                f"{mean(group, at('first_order')):.3g}",
                f"{spread:.3g}",
                *(f"{bound:.3g}" for bound in bounds),
                *[""] * (depth - len(bounds)),
                named,
            )
        )
    return Section(
        "What limits the local bound",
        "What roundings can take from the margin, medians: to first order; that over the predicted "
        "deviation, or how much worse the worst roundings are than random ones; proven, where the "
        "roundings of the trunk's quantizer after the stem or a block, and of all behind it, are "
        "free; and the quantizers that make up most of the first-order bound.",
        (
            *("network", "first order", "/ deviation", "proven from stem"),
            *(f"block {number}" for number in range(1, depth)),
            "largest shares",
        ),
        table,
    )


def _colour(groups: Groups, label: str) -> str:
    return (*PALETTE, "#0891b2", "#be185d", "#4d7c0f", "#1e293b", "#a16207", "#78716c")[
        list(groups).index(label) % (len(PALETTE) + 6)
    ]


def _effort(rows: Sequence[Row]) -> str:
    trained = [row for row in rows if row["kind"] == "network"]
    minutes = sum(row["measuring_minutes"] for row in rows)
    text = f"Certifying took {minutes} min of processor time on {rows[0]['machine']}."
    if trained:
        seeds = ", ".join(str(seed) for seed in sorted({row["seed"] for row in trained}))
        seconds = sum(row["training_seconds"] for row in trained)
        text = (
            f"{len(trained)} networks, seeds {seeds}, were trained on {trained[0]['trained_on']}, "
            f"with one image in {trained[0]['learned_every']} of the training set, in "
            f"{seconds:,.0f} s in all, beside other work. {text}"
        )
    return (
        f"{text} The figures are in [results.json](results.json), and this page is made from them."
    )
