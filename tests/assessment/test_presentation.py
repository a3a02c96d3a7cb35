"""The page of `signs`: made from rows alone, and saying what they say."""

from __future__ import annotations

import copy
import json

import pytest

from qpde_perception.assessment.corruptions import CORRUPTIONS
from qpde_perception.assessment.figures import grouped_rows
from qpde_perception.assessment.measuring import ROC_POINTS
from qpde_perception.assessment.presentation import present
from qpde_perception.assessment.reading import reading_of

COUNTS = {
    "val": 300,
    "tracks": 10,
    "test-a": 1000,
    "corrupted": 500,
    "known": 40,
    "shipped": 10,
    "unknown": 20,
}


def row(model="m", precision="int8", seed=None, top1=0.9):
    calibration = {
        "error": 0.05,
        "error_scaled": 0.01,
        "overconfidence": -0.04,
        "bins": [[3, 0.5, 0.4], [3, 0.9, 1.0]],
    }
    return {
        "model": model,
        "precision": precision,
        "seed": seed,
        "parameters": 1234,
        "val_top1": top1,
        "test_top1": top1,
        "tracks": {"majority": 0.8, "last": 0.7, "filtered": 0.9},
        "robustness": {
            "clean": top1,
            "mean": top1 - 0.2,
            "top1": {
                name: [top1 - 0.1 * severity - 0.01 * number for severity in range(5)]
                for number, name in enumerate(CORRUPTIONS)
            },
        },
        "temperature": 0.8,
        "unknown": {
            "auc": 0.75,
            "auc_scaled": 0.74,
            "confidence_known": 0.8,
            "confidence_unknown": 0.6,
            "passed_at_90": 0.5,
            "roc": [number / (ROC_POINTS - 1) for number in range(ROC_POINTS)],
        },
        "calibration": {"test-a": calibration, "boxes": {**calibration, "overconfidence": 0.2}},
        "boxes": {
            "all": 0.5,
            "shipped": 0.6,
            "others": 0.4,
            "signs": {"stop": {"right": 9, "boxes": 10}, "go": {"right": 11, "boxes": 30}},
        },
        "agreement": {"val": 0.99, "test-a": 0.98, "corrupted": 0.97, "boxes": 0.96},
        "counts": COUNTS,
        "training_seconds": None if seed is None else 60.0,
        "measuring_minutes": 2,
        "machine": "a CPU",
        "trained_on": None if seed is None else "a GPU",
    }


def both(**values):
    return [row(precision=precision, **values) for precision in ("int8", "float")]


def test_a_table_has_a_line_for_every_model_and_precision_with_the_deviation_over_seeds():
    rows = [
        *both(),
        *(
            each
            for seed, top1 in ((1, 0.8), (2, 0.9))
            for each in both(model="n", seed=seed, top1=top1)
        ),
    ]
    table = present(rows).table
    assert [line[:2] for line in table] == [
        *(("m", "int8"), ("m", "float"), ("n", "int8"), ("n", "float"))
    ]
    assert table[0][4] == "90.0"
    assert table[2][4] == "85.0 ± 7.1"


def test_every_section_has_as_many_cells_as_columns_and_pictures_where_they_help():
    shown = present(both())
    for section in shown.sections:
        assert all(len(line) == len(section.head) for line in section.table)
    assert all(len(line) == len(shown.head) for line in shown.table)
    plots = [name for section in shown.sections for name in section.plots]
    assert plots == ["robustness", "roc", "reliability"]


def test_the_same_rows_give_the_same_bytes_and_survive_json():
    rows = both()
    first, second = present(rows), present(json.loads(json.dumps(rows, sort_keys=True)))
    for one, other in zip(first.sections, second.sections, strict=True):
        assert one.plots == other.plots
    assert list(first.reading) == list(second.reading)


def test_parameters_of_every_corruption_stand_on_the_page():
    text = present(both()).sections[1].text
    for name, corruption in CORRUPTIONS.items():
        levels = ", ".join(f"{level:g}" for level in corruption.levels)
        assert f"{name}: {corruption.parameter}: {levels}" in text


def test_effort_names_seeds_and_time_and_counts_a_run_once():
    rows = [*both(), *(each for seed in (1, 2) for each in both(model="n", seed=seed))]
    effort = present(rows).effort
    assert effort.startswith(
        "Measured 3 model(s) on a CPU, at most 6 min of processor time in all."
    )
    assert "trained on a GPU with the seeds 1, 2: 120 s in all" in effort
    assert "No network was trained" in present(both()).effort


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "90.0 % of test-a right, +0.00 points"),
        ({}, "At severity 5, JPEG costs most (90.0 to 46.0 %) and Gaussian blur least (50.0 %)"),
        ({}, "50.0 % are right, 40.0 points less than on test-a; from 37 % (go) to 90 % (stop)"),
        ({}, "sample drive come out at 60.0 %, those that do not ship at 40.0 %"),
        ({}, "75 times in 100"),
        ({}, "must not be trusted to reject the unknown"),
        ({("unknown", "auc"): 0.95}, "confidence is a useful sign of the unknown"),
        ({}, "on test-a it is not sure enough by 4.0 points"),
        ({}, "on boxes it is too sure by 20.0 points"),
        ({("test_top1",): 0.88}, "-2.00 points against unquantized"),
    ],
)
def test_the_reading_follows_the_figures(change, said):
    rows = copy.deepcopy(both())
    for keys, value in change.items():
        target = rows[0]
        for key in keys[:-1]:
            target = target[key]
        target[keys[-1]] = value
    assert said in " ".join(reading_of(grouped_rows(rows)))


def test_a_lead_is_held_against_the_deviation_over_seeds():
    def said(tops):
        rows = [
            each
            for model, values in tops.items()
            for seed, top1 in enumerate(values)
            for each in both(model=model, seed=seed, top1=top1)
        ]
        return next(text for text in reading_of(grouped_rows(rows)) if text.startswith("On test-a"))

    clear = said({"a": (0.80, 0.81), "b": (0.90, 0.91)})
    assert "b leads a by 10.0 points, more than twice" in clear
    assert "no more than twice" in said({"a": (0.80, 0.90), "b": (0.81, 0.91)})
    assert "with one seed that says little" in said({"a": (0.8,), "b": (0.9,)})
