"""Budgets hold a profile to limits."""

from __future__ import annotations

import numpy as np
import pytest

from qpde_perception.profiling import Budget, ProfilingError, breaches, read_budgets, read_profile
from qpde_perception.profiling.histogram import Histogram
from qpde_perception.profiling.schema import Paced


@pytest.fixture
def measured(make_profile):
    """Every frame took 5 ms."""
    return make_profile([np.full(100, 5.0)] * 5)


@pytest.mark.parametrize(
    ("limit", "kept", "broken"),
    [
        ("p50_ms", 5.1, 4.9),
        ("p999_ms", 5.1, 4.9),
        ("max_ms", 5.0, 4.9),
        ("first_ms", 20.0, 19.0),
        ("after_idle_ms", 9.0, 8.9),
        ("memory_mib", 50.0, 49.0),
        ("frames_per_second", 100.0, 101.0),
    ],
)
def test_a_limit_is_kept_or_broken(measured, limit, kept, broken):
    assert breaches((Budget(**{limit: kept}),), measured) == []
    (breach,) = breaches((Budget(**{limit: broken}),), measured)
    assert breach.limit == limit
    assert measured.rows[0].name in breach.told
    assert f"{broken:g}" in breach.told


def test_the_share_of_missed_deadlines_has_a_limit(make_profile):
    paced = Paced(frames=100, misses=3, latency=Histogram.of(np.full(100, 5)))
    measured = make_profile([np.full(100, 5.0)] * 5, paced=paced)
    assert breaches((Budget(missed_share=0.03),), measured) == []
    assert breaches((Budget(missed_share=0.02),), measured)[0].measured == 0.03


def test_what_was_not_measured_breaks_its_budget(measured):
    (breach,) = breaches((Budget(energy_mj=5.0),), measured)
    assert "not measured on this machine" in breach.told


def test_a_stage_has_a_budget_of_its_own(measured):
    (breach,) = breaches((Budget(stage="infer", p99_ms=1.0),), measured)
    assert breach.limit == "infer p99_ms"
    with pytest.raises(ProfilingError, match="no stage 'infr'; there are infer, total"):
        breaches((Budget(stage="infr", p99_ms=1.0),), measured)


def test_a_budget_is_about_the_rows_that_it_names(measured):
    assert breaches((Budget(engine="openvino", threads=1, p50_ms=6.0),), measured) == []
    with pytest.raises(ProfilingError, match=r"budget 1 is about no row.*tensorrt"):
        breaches((Budget(engine="tensorrt", p50_ms=6.0),), measured)


def test_a_budget_without_a_limit_is_refused(measured):
    with pytest.raises(ProfilingError, match="budget 1 sets no limit"):
        breaches((Budget(engine="openvino"),), measured)


def test_a_file_of_budgets_is_read(tmp_path):
    path = tmp_path / "budgets.yaml"
    path.write_text(
        "budgets:\n- {engine: openvino, p99_ms: 12}\n- {source: raw 1280x720, max_ms: 40}\n"
    )
    assert read_budgets(path) == (
        Budget(engine="openvino", p99_ms=12.0),
        Budget(source="raw 1280x720", max_ms=40.0),
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("budgets:\n- p98_ms: 3\n", "p98_ms: Extra inputs"),
        ("budgets:\n- p99_ms: -3\n", "p99_ms: Input should be greater than 0"),
        ("budgets: []\n", "budgets: "),
        ("", "the file: "),
        ("a: [\n", "no YAML"),
    ],
)
def test_a_faulty_file_is_refused_with_the_place(tmp_path, text, told):
    path = tmp_path / "budgets.yaml"
    path.write_text(text)
    with pytest.raises(ProfilingError, match=told) as caught:
        read_budgets(path)
    assert str(path) in str(caught.value)


def test_a_profile_survives_its_file(tmp_path, measured):
    path = tmp_path / "profile.json"
    path.write_text(measured.model_dump_json())
    assert read_profile(path) == measured


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ('"schema_version":1', '"schema_version":2', "schema_version"),
        ('"package_version"', '"unknown":1,"package_version"', "unknown"),
        ('"frames_per_second"', '"fps"', "rows.0.frames_per_second"),
    ],
)
def test_another_schema_is_refused(tmp_path, measured, old, new, place):
    path = tmp_path / "profile.json"
    path.write_text(measured.model_dump_json().replace(old, new, 1))
    with pytest.raises(ProfilingError, match=rf"no profile of schema 1 \({place}"):
        read_profile(path)
