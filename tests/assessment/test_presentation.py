"""The page of `signs`: made from rows alone, and saying what they say."""

from __future__ import annotations

import copy
import json

import pytest

from qpde_perception.assessment.corruptions import CORRUPTIONS
from qpde_perception.assessment.figures import grouped_rows
from qpde_perception.assessment.measuring import ROC_POINTS
from qpde_perception.assessment.presentation import _effort, present
from qpde_perception.assessment.quantizing import section_of
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


def row(model="m", role="deployed", seed=None, top1=0.9, bits=8):
    calibration = {
        "error": 0.05,
        "error_scaled": 0.01,
        "overconfidence": -0.04,
        "bins": [[3, 0.5, 0.4], [3, 0.9, 1.0]],
    }
    words = {
        "deployed": f"W{bits}A8",
        "unquantized": f"W{bits}, activations float",
        "float": "float",
        "post-training": "W8A8, post-training",
    }
    found = {
        "model": model,
        "role": role,
        "precision": words[role],
        "seed": seed,
        "recipe": None if seed is None else {"network": model, "seed": seed, "batch": 128},
        "parameters": 1234,
        "multiply_adds": 5_600_000,
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
    if role in ("float", "post-training"):
        for name in ("temperature", "unknown", "calibration", "agreement"):
            del found[name]
    return found


def both(**values):
    return [row(role=role, **values) for role in ("deployed", "unquantized")]


def all_four(top1, model="n", seed=1):
    """Rows of one run, with the accuracy of each execution."""
    return [row(model, role, seed, share) for role, share in top1.items()]


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
        *(("m", "W8A8"), ("m", "W8, activations float")),
        *(("n", "W8A8"), ("n", "W8, activations float")),
    ]
    assert table[0][2:4] == ("1,234", "5.6 M")
    assert table[0][5] == "90.00"
    assert table[2][5] == "85.00 ± 7.07"


EXECUTIONS = {"deployed": 0.9, "unquantized": 0.9, "float": 0.9008, "post-training": 0.88}


def test_what_quantizing_costs_is_shown_against_the_goal():
    section = section_of(grouped_rows([*both(), *all_four(EXECUTIONS)]))
    assert all(len(line) == len(section.head) for line in section.table)
    assert [line[:3] for line in section.table] == [
        ("n", "W8A8", "90.08"),
        ("n", "W8A8, post-training", "90.08"),
    ]
    assert [line[4] for line in section.table] == ["-0.08", "-2.08"]
    assert [line[-2:] for line in section.table] == [("0.1", "yes"), ("0.1", "no")]


def test_what_quantizing_costs_is_taken_seed_by_seed():
    rows = [
        each
        for seed, shift in ((1, 0.0), (2, -0.05))
        for each in all_four({role: share + shift for role, share in EXECUTIONS.items()}, seed=seed)
    ]
    section = section_of(grouped_rows(rows))
    assert [line[4] for line in section.table] == ["-0.08 ± 0.00", "-2.08 ± 0.00"]


def test_a_model_without_its_float_network_has_no_such_section():
    assert section_of(grouped_rows(both())) is None


def test_four_bits_may_cost_more_than_eight():
    rows = [row("n", "deployed", 1, 0.898, bits=4), row("n", "unquantized", 1, 0.898, bits=4)]
    shown = present([*rows, row("n", "float", 1, 0.9)])
    assert shown.table[0][1] == "W4A8"
    assert shown.sections[0].table[0][-2:] == ("0.3", "yes")
    assert any("accuracy alone" in text for text in shown.reading)


def test_executions_that_are_not_deployed_stand_in_the_result_alone():
    shown = present(all_four(EXECUTIONS))
    assert len(shown.table) == 4
    assert all(line[1] == "W8A8" for section in shown.sections[1:] for line in section.table)


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
    text = next(s for s in present(both()).sections if "robustness" in s.plots).text
    for name, corruption in CORRUPTIONS.items():
        levels = ", ".join(f"{level:g}" for level in corruption.levels)
        assert f"{name}: {corruption.parameter}: {levels}" in text


def test_effort_says_whether_all_were_trained_alike():
    rows = [*both(model="a", seed=1), *both(model="b", seed=1)]
    assert "All were trained alike: batch 128." in _effort(rows)
    rows[0]["recipe"]["batch"] = 64
    effort = _effort(rows)
    assert "Recipe of a: batch 64. Recipe of b: batch 128." in effort
    assert "alike" not in effort


def test_effort_says_which_runs_were_trained_elsewhere():
    rows = both(model="a", seed=3)
    for each in rows:
        each["trained_on"] = each["training_seconds"] = None
    effort = _effort(rows)
    assert "1 finished run(s) with the seeds 3 were measured as they are" in effort


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


def test_the_reading_says_of_each_way_to_quantize_whether_it_reaches_the_goal():
    rows = [*all_four(EXECUTIONS, "a"), *all_four({**EXECUTIONS, "deployed": 0.8}, "b")]
    text = " ".join(reading_of(grouped_rows(rows)))
    assert "test-a, a: deployed -0.08 points (within the 0.1 aimed at), post-training -2.08" in text
    assert "test-a, b: deployed -10.08 points (beyond the 0.1 aimed at)" in text
    assert "1 of 2 deployed network(s) reach the goal; 0 of 2 post-training" in text
    assert "may outweigh what the bits cost. One image of test-a is 0.100 points." in text


def test_a_lead_is_held_against_the_deviation_over_seeds():
    def said(tops):
        rows = [
            each
            for model, values in tops.items()
            for seed, top1 in enumerate(values)
            for each in both(model=model, seed=seed, top1=top1)
        ]
        lines = reading_of(grouped_rows(rows))
        return next(text for text in lines if text.startswith("On test-a"))

    clear = said({"a": (0.80, 0.81), "b": (0.90, 0.91)})
    assert clear.startswith("On test-a, in W8A8: b 90.50 %, a 80.50 %.")
    assert "b leads a by 10.00 points, more than twice" in clear
    assert "no more than twice" in said({"a": (0.80, 0.90), "b": (0.81, 0.91)})
    assert "with one seed that says little" in said({"a": (0.8,), "b": (0.9,)})


def test_only_networks_of_the_same_bits_are_compared():
    rows = [
        *both(),
        *(each for model in "ab" for each in both(model=model, seed=1)),
        *both(model="c", seed=1, bits=4, top1=0.99),
    ]
    compared = [text for text in reading_of(grouped_rows(rows)) if text.startswith("On ")]
    assert len(compared) == 3
    for text in compared:
        models = text.partition(": ")[2].partition(". ")[0].split(", ")
        assert sorted(model[0] for model in models) == ["a", "b"]
