"""`qpde profile` and `qpde profile compare`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from qpde_perception.profiling import Budget, Profile, read_profile

DOCS = Path(__file__).parents[2] / "docs" / "profiling.md"
SHORT = (
    *("--frames", "60", "--rounds", "6", "--warm-up", "5", "--idle", "0"),
    *("--engine", "openvino", "--source", "raw:320x240", "--sensor-interval", "0.1"),
)


@pytest.fixture
def measure(qpde, tmp_path):
    """Profile shortly, into a folder of that name."""
    return lambda name, *options: qpde("profile", *SHORT, "--out", tmp_path / name, *options)


def test_a_profile_leaves_its_files_and_shows_a_table(measure, tmp_path):
    call = measure("one")
    assert call.code == 0
    assert "openvino, 1 thread, batch 1, raw 320x240" in call.out
    assert re.search(r"infer +│ +\d+\.\d\d", call.out)
    assert re.search(r"energy (-|\d)", call.out)
    assert read_profile(tmp_path / "one" / "profile.json").rows[0].histogram.count == 60
    assert (tmp_path / "one" / "profile.html").read_text().startswith("<!DOCTYPE html>")


def test_the_json_is_the_file_and_a_kept_budget_has_no_breaches(measure, tmp_path):
    budgets = tmp_path / "budgets.yaml"
    budgets.write_text("budgets:\n- p50_ms: 10000\n")
    call = measure("one", "--budget", budgets, "--json")
    assert call.code == 0
    document = call.document
    assert document.pop("breaches") == []
    assert document == json.loads((tmp_path / "one" / "profile.json").read_text())


def test_every_combination_is_measured_once(measure):
    options = ("--batch", "2", "--batch", "1", "--batch", "2", "--threads", "2")
    rows = measure("one", *options, "--json").document["rows"]
    assert [(row["threads"], row["batch"]) for row in rows] == [(2, 2), (2, 1)]


def test_a_broken_budget_is_exit_code_1_and_names_the_row(measure, tmp_path):
    budgets = tmp_path / "budgets.yaml"
    budgets.write_text("budgets:\n- engine: openvino\n  p50_ms: 0.001\n")
    call = measure("one", "--budget", budgets)
    assert call.code == 1
    assert "openvino, 1 thread, batch 1, raw 320x240: p50_ms" in call.err
    assert (tmp_path / "one" / "profile.json").exists()


def test_a_faulty_budget_is_found_before_anything_is_measured(measure, tmp_path):
    budgets = tmp_path / "budgets.yaml"
    budgets.write_text("budgets:\n- p50: 3\n")
    call = measure("one", "--budget", budgets)
    assert call.code == 2
    assert "p50" in call.err
    assert not (tmp_path / "one").exists()


def test_a_deadline_without_a_rate_is_wrong_use(measure):
    call = measure("one", "--deadline-ms", "20")
    assert call.code == 2
    assert "--rate" in call.err


def test_missed_deadlines_are_counted(measure):
    (row,) = measure("one", "--rate", "200", "--deadline-ms", "0.01", "--json").document["rows"]
    assert row["paced"]["misses"] == row["paced"]["frames"] == 60


def test_two_runs_of_the_same_are_no_difference_and_another_machine_is_said_first(
    measure, qpde, tmp_path
):
    measure("one")
    measure("two")
    one, two = (tmp_path / name / "profile.json" for name in ("one", "two"))
    call = qpde("profile", "compare", one, two, "--json")
    assert call.code == 0
    assert call.document["verdict"] == "no difference"
    assert call.err == ""
    document = json.loads(two.read_text())
    document["machine"]["board"] = "another board"
    two.write_text(json.dumps(document))
    call = qpde("profile", "compare", one, two)
    assert call.code == 0
    assert "not the same machine: board" in call.err
    assert "no difference" in call.out


def test_a_file_that_is_no_profile_is_named(qpde, tmp_path):
    path = tmp_path / "x.json"
    path.write_text("{}")
    call = qpde("profile", "compare", path, path)
    assert call.code == 2
    assert str(path) in call.err


def test_the_page_explains_every_field_of_the_schema_and_of_budgets():
    text = DOCS.read_text()
    schema = Profile.model_json_schema()
    parts = [schema, *schema["$defs"].values(), Budget.model_json_schema()]
    fields = {name for part in parts for name in part["properties"]}
    assert not {name for name in fields if f"`{name}`" not in text}
