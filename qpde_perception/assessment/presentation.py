"""The page of the experiment `signs`: tables and plots, made from its rows alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qpde_perception.assessment import quantizing
from qpde_perception.assessment.candidates import Role
from qpde_perception.assessment.corruptions import CORRUPTIONS, SEVERITIES
from qpde_perception.assessment.figures import (
    at,
    grouped_rows,
    mean,
    of_role,
    over_seeds,
    percent,
    plain,
    share_of_sign,
)
from qpde_perception.assessment.measuring import ROC_POINTS
from qpde_perception.assessment.reading import reading_of
from qpde_perception.learning.experiments.experiment import (
    Presentation,
    Section,
)
from qpde_perception.learning.experiments.plots import Line, Panel, line_plot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qpde_perception.assessment.figures import Groups
    from qpde_perception.learning.experiments.experiment import Row

PALETTE = (
    *("#2563eb", "#16a34a", "#dc2626", "#94a3b8", "#d97706", "#7c3aed"),
    *("#0891b2", "#be185d", "#4d7c0f", "#1e293b"),
)
GREY = "#cbd5e1"
MODEL = ("model", "precision")


def present(rows: Sequence[Row]) -> Presentation:
    """Return the tables, the plots and the reading.

    Args:
        rows: One for every model, seed and execution, as `measure` makes them.
    """
    groups = grouped_rows(rows)
    deployed, costs = of_role(groups, Role.DEPLOYED), quantizing.section_of(groups)
    sections = (
        *([] if costs is None else [costs]),
        _tracks(deployed),
        _robustness(deployed),
        _country(deployed),
        _unknown(deployed),
        _calibration(deployed),
        _agreement(deployed),
    )
    head = (
        *MODEL,
        *("parameters", "multiply-adds", "val, %", "test-a, %", "tracks, filtered, %"),
        *("corrupted, %", "other country, %"),
    )
    table = [
        (
            *key,
            f"{group[0]['parameters']:,}",
            f"{group[0]['multiply_adds'] / 1e6:.1f} M",
            percent(group, at("val_top1"), 2),
            percent(group, at("test_top1"), 2),
            percent(group, at("tracks", "filtered")),
            percent(group, at("robustness", "mean")),
            percent(group, at("boxes", "all")),
        )
        for key, group in groups.items()
    ]
    return Presentation(head, table, reading_of(groups), {}, sections, _effort(rows))


def _tracks(groups: Groups) -> Section:
    count = _counts(groups)
    table = [
        (
            *key,
            percent(group, at("val_top1")),
            percent(group, at("tracks", "majority")),
            percent(group, at("tracks", "last")),
            percent(group, at("tracks", "filtered")),
        )
        for key, group in groups.items()
    ]
    return Section(
        "Whole tracks",
        f"The {count['tracks']} tracks of val ({count['val']:,} frames): a sign is right if most "
        "of its frames are; if the last, nearest frame is; and if the exponential filter is right "
        "at the last frame. The frame rate is assumed: the data have no times.",
        (*MODEL, "frames, %", "majority, %", "last frame, %", "last frame, filtered, %"),
        table,
    )


def _robustness(groups: Groups) -> Section:
    count = _counts(groups)
    parameters = "; ".join(
        f"{name}: {each.parameter}: {', '.join(f'{level:g}' for level in each.levels)}"
        for name, each in CORRUPTIONS.items()
    )
    table = [
        (
            *key,
            name,
            percent(group, at("robustness", "clean")),
            *(
                percent(group, at("robustness", "top1", name, number))
                for number in range(len(SEVERITIES))
            ),
        )
        for key, group in groups.items()
        for name in CORRUPTIONS
    ]
    panels = [
        Panel(
            name,
            "severity",
            "top-1",
            {
                f"{model}, {precision}": Line(
                    [0, *SEVERITIES],
                    [
                        mean(group, at("robustness", "clean")),
                        *(
                            mean(group, at("robustness", "top1", name, number))
                            for number in range(len(SEVERITIES))
                        ),
                    ],
                    _colour(groups, model),
                    dashed=precision != quantizing.FULL_PRECISION,
                )
                for (model, precision), group in groups.items()
            },
        )
        for name in CORRUPTIONS
    ]
    return Section(
        "Bad weather, bad optics, bad links",
        f"Top-1 in percent on {count['corrupted']:,} images of test-a, evenly spaced, corrupted at "
        f"their own resolution before the vehicle's resize. Severities 1 to 5: {parameters}.",
        (*MODEL, "corruption", "clean", *map(str, SEVERITIES)),
        table,
        {"robustness": ("Top-1 against severity", line_plot(panels))},
    )


def _country(groups: Groups) -> Section:
    count = _counts(groups)
    signs = next(iter(groups.values()))[0]["boxes"]["signs"]
    head = (*MODEL, "all, %", "in the sample drive, %", "the others, %")
    table = [
        (
            *key,
            *(percent(group, at("boxes", part)) for part in ("all", "shipped", "others")),
            *(percent(group, share_of_sign(sign)) for sign in signs),
        )
        for key, group in groups.items()
    ]
    return Section(
        "Another country",
        f"The network learned German signs; these {count['known']} boxes are Belarusian ones, cut "
        "out of whole frames with the vehicle's margin. "
        f"{count['shipped']} of them are in the sample drive that ships.",
        (*head, *(f"{sign} ({each['boxes']}), %" for sign, each in signs.items())),
        table,
    )


def _unknown(groups: Groups) -> Section:
    count = _counts(groups)
    table = [
        (
            *key,
            plain(group, at("unknown", "auc")),
            plain(group, at("temperature")),
            plain(group, at("unknown", "auc_scaled")),
            plain(group, at("unknown", "confidence_known")),
            plain(group, at("unknown", "confidence_unknown")),
            percent(group, at("unknown", "passed_at_90")),
        )
        for key, group in groups.items()
    ]
    grid = np.linspace(0, 1, ROC_POINTS).tolist()
    lines = {
        f"{model}, {precision}": Line(
            grid,
            [mean(group, at("unknown", "roc", point)) for point in range(ROC_POINTS)],
            _colour(groups, model),
            dashed=precision != quantizing.FULL_PRECISION,
        )
        for (model, precision), group in groups.items()
    }
    lines["chance"] = Line([0, 1], [0, 1], GREY)
    panel = Panel("Confidence as a detector", "unknown taken for known", "known kept", lines)
    return Section(
        "Knowing what it does not know",
        f"Confidence (the largest probability) of the {count['known']} boxes of known signs "
        f"against that of {count['unknown']} boxes of signs that no class stands for. The "
        "temperature is the likeliest one on val.",
        (
            *(*MODEL, "AUC", "temperature", "AUC at it", "confidence, known"),
            *("confidence, unknown", "unknown that pass where 90 % of the known do, %"),
        ),
        table,
        {"roc": ("Receiver operating characteristic", line_plot([panel]))},
    )


def _calibration(groups: Groups) -> Section:
    sets = ("test-a", "boxes")
    table = [
        (
            *key,
            *(
                plain(group, at("calibration", data, name))
                for data in sets
                for name in ("error", "error_scaled", "overconfidence")
            ),
        )
        for key, group in groups.items()
    ]
    panels = [_reliability(groups, data) for data in sets]
    return Section(
        "Calibration",
        "Expected calibration error over 15 bins of equal mass, on test-a and on the boxes of "
        "known signs, as it is and at the temperature of val; and mean confidence minus accuracy "
        "(above 0: too sure). The diagram shows the first seed.",
        (
            *MODEL,
            *(f"{data}: {name}" for data in sets for name in ("error", "at temperature", "excess")),
        ),
        table,
        {"reliability": ("Reliability diagram", line_plot(panels))},
    )


def _reliability(groups: Groups, data: str) -> Panel:
    lines = {}
    for (model, precision), group in groups.items():
        bins = group[0]["calibration"][data]["bins"]
        lines[f"{model}, {precision}"] = Line(
            [confidence for _, confidence, _ in bins],
            [accuracy for _, _, accuracy in bins],
            _colour(groups, model),
            dashed=precision != quantizing.FULL_PRECISION,
        )
    lines["calibrated"] = Line([0, 1], [0, 1], GREY)
    return Panel(data, "confidence", "accuracy", lines)


def _agreement(groups: Groups) -> Section:
    sets = ("val", "test-a", "corrupted", "boxes")
    table = [
        (*key, *(over_seeds(group, at("agreement", part), 100.0, 2) for part in sets))
        for key, group in groups.items()
    ]
    return Section(
        "What rounding the activations changes",
        "Share of images with the same answer on the integers and with the same integer weights "
        "but unquantized activations, in percent; the boxes of unknown signs are included.",
        (*MODEL, *sets),
        table,
    )


def _counts(groups: Groups) -> dict[str, int]:
    counts: dict[str, int] = next(iter(groups.values()))[0]["counts"]
    return counts


def _colour(groups: Groups, model: str) -> str:
    models = list(dict.fromkeys(name for name, _ in groups))
    return PALETTE[models.index(model) % len(PALETTE)]


def _effort(rows: Sequence[Row]) -> str:
    one = [row for row in rows if row["role"] == Role.DEPLOYED.value]
    trained = [row for row in one if row["trained_on"] is not None]
    given = [row for row in one if row["seed"] is not None and row["trained_on"] is None]
    minutes = sum(row["measuring_minutes"] for row in one)
    training = []
    if trained:
        seconds = sum(row["training_seconds"] or 0.0 for row in trained)
        training.append(
            f"Networks were trained on {_machines(trained, 'trained_on')} with the seeds "
            f"{_seeds(trained)}: {seconds:,.0f} s in all."
        )
    if given:
        training.append(
            f"{len(given)} finished run(s) with the seeds {_seeds(given)} were measured as they "
            "are; a run does not say on what it was trained."
        )
    if not training:
        training.append("No network was trained for it.")
    measured = (
        f"Measured {len(one)} model(s) on {_machines(one, 'machine')}, at most {minutes} min of "
        "processor time in all."
    )
    where = (
        "All graphs ran in ONNX Runtime with one thread. The figures are in "
        "[results.json](results.json), and this page is made from them."
    )
    return " ".join([measured, *training, *_recipes(one), where])


def _recipes(rows: Sequence[Row]) -> list[str]:
    """Say how runs were trained, and whether all alike."""
    recipes: dict[str, list[str]] = {}
    for row in rows:
        if row["recipe"] is not None:
            rest = {k: v for k, v in row["recipe"].items() if k not in ("network", "seed")}
            text = ", ".join(f"{name} {value}" for name, value in sorted(rest.items()))
            models = recipes.setdefault(text, [])
            if row["model"] not in models:
                models.append(row["model"])
    if len(recipes) == 1 and len(next(iter(recipes.values()))) > 1:
        return [f"All were trained alike: {next(iter(recipes))}."]
    return [f"Recipe of {', '.join(models)}: {text}." for text, models in recipes.items()]


def _seeds(rows: Sequence[Row]) -> str:
    return ", ".join(map(str, sorted({row["seed"] for row in rows})))


def _machines(rows: Sequence[Row], key: str) -> str:
    return ", ".join(sorted({row[key] for row in rows}))
