"""The page of the experiment `signs`: tables and plots, made from its rows alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qpde_perception.assessment.corruptions import CORRUPTIONS, SEVERITIES
from qpde_perception.assessment.figures import at, grouped_rows, known_mean, mean, share_of_sign
from qpde_perception.assessment.measuring import ROC_POINTS
from qpde_perception.assessment.reading import reading_of
from qpde_perception.learning.experiments.experiment import (
    Presentation,
    Section,
    deviation_of,
)
from qpde_perception.learning.experiments.plots import Line, Panel, line_plot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qpde_perception.assessment.figures import Figure, Group, Groups
    from qpde_perception.learning.experiments.experiment import Row

PALETTE = ("#2563eb", "#16a34a", "#dc2626", "#94a3b8", "#d97706", "#7c3aed")
GREY = "#cbd5e1"
MODEL = ("model", "precision")


def present(rows: Sequence[Row]) -> Presentation:
    """Return the tables, the plots and the reading.

    Args:
        rows: One for every model, seed and precision, as `measure` makes them.
    """
    groups = grouped_rows(rows)
    sections = (
        _tracks(groups),
        _robustness(groups),
        _country(groups),
        _unknown(groups),
        _calibration(groups),
        _agreement(groups),
    )
    head = (
        *MODEL,
        *("parameters", "val, %", "test-a, %", "tracks, filtered, %", "corrupted, %"),
        *("other country, %", "known from unknown, AUC", "calibration error"),
    )
    table = [
        (
            *key,
            f"{group[0]['parameters']:,}",
            percent(group, at("val_top1")),
            percent(group, at("test_top1")),
            percent(group, at("tracks", "filtered")),
            percent(group, at("robustness", "mean")),
            percent(group, at("boxes", "all")),
            plain(group, at("unknown", "auc")),
            plain(group, at("calibration", "test-a", "error")),
        )
        for key, group in groups.items()
    ]
    return Presentation(head, table, reading_of(groups), {}, sections, _effort(rows))


def percent(group: Group, figure: Figure) -> str:
    """Return the mean of a share over seeds in percent, with its deviation."""
    return _over_seeds(group, figure, 100.0, 1)


def plain(group: Group, figure: Figure) -> str:
    """Return the mean of a figure over seeds, with its deviation."""
    return _over_seeds(group, figure, 1.0, 3)


def _over_seeds(group: Group, figure: Figure, factor: float, digits: int) -> str:
    centre = known_mean(group, figure)
    if centre is None:
        return "-"
    text = f"{factor * centre:.{digits}f}"
    deviation = deviation_of([value for value in map(figure, group) if value is not None])
    return text if deviation is None else f"{text} ± {factor * deviation:.{digits}f}"


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
                    dashed=precision == "float",
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
            dashed=precision == "float",
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
            dashed=precision == "float",
        )
    lines["calibrated"] = Line([0, 1], [0, 1], GREY)
    return Panel(data, "confidence", "accuracy", lines)


def _agreement(groups: Groups) -> Section:
    sets = ("val", "test-a", "corrupted", "boxes")
    table = [
        (
            model,
            *(_over_seeds(group, at("agreement", part), 100.0, 2) for part in sets),
        )
        for (model, precision), group in groups.items()
        if precision == "int8"
    ]
    return Section(
        "Integers against float",
        "Share of images with the same answer in int8 and with the same integer weights but "
        "unquantized activations, in percent; the boxes of unknown signs are included.",
        ("model", *sets),
        table,
    )


def _counts(groups: Groups) -> dict[str, int]:
    counts: dict[str, int] = next(iter(groups.values()))[0]["counts"]
    return counts


def _colour(groups: Groups, model: str) -> str:
    models = list(dict.fromkeys(name for name, _ in groups))
    return PALETTE[models.index(model) % len(PALETTE)]


def _effort(rows: Sequence[Row]) -> str:
    one = [row for row in rows if row["precision"] == "int8"]
    seeds = sorted({row["seed"] for row in one if row["seed"] is not None})
    trained = sum(row["training_seconds"] or 0.0 for row in one)
    minutes = sum(row["measuring_minutes"] for row in one)
    training = (
        f"Networks were trained on {_machines(one, 'trained_on')} with the seeds "
        f"{', '.join(map(str, seeds))}: {trained:,.0f} s in all."
        if seeds
        else "No network was trained for it."
    )
    return (
        f"Measured {len(one)} model(s) on {_machines(one, 'machine')}, at most {minutes} min of "
        f"processor time in all. {training} The int8 graph and the float graph both ran in ONNX "
        "Runtime with one thread. The figures are in [results.json](results.json), and this page "
        "is made from them."
    )


def _machines(rows: Sequence[Row], key: str) -> str:
    return ", ".join(sorted({row[key] for row in rows if row[key] is not None}))
