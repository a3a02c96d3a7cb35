"""Latency of the stages of the road."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qpde_perception.monitoring import LatencyRecorder
from qpde_perception.monitoring.latency import RESOLUTION

DURATIONS = st.lists(st.floats(0.0, 1e6), min_size=1, max_size=300)


def test_quantiles_of_a_hundred_known_durations():
    recorder = LatencyRecorder()
    for duration_ms in range(100, 0, -1):
        recorder.add({"infer": float(duration_ms)})

    assert recorder.quantiles() == {
        "infer": {"p50": 50.0, "p90": 90.0, "p99": 99.0, "max": 100.0, "mean": 50.5}
    }


@given(DURATIONS)
@settings(deadline=None)
def test_a_quantile_is_a_duration_that_occurred_and_the_smallest_that_its_share_did_not_exceed(
    durations,
):
    recorder = LatencyRecorder()
    for duration_ms in durations:
        recorder.add({"total": duration_ms})
    row = recorder.quantiles()["total"]

    for name, percent in (("p50", 50), ("p90", 90), ("p99", 99)):
        exact = sorted(durations)[math.ceil(len(durations) * percent / 100) - 1]
        assert row[name] in durations
        assert exact <= row[name] <= max(exact * (1 + RESOLUTION), 1e-6)
    assert row["max"] == max(durations)
    assert row["mean"] == pytest.approx(sum(durations) / len(durations))


def test_many_durations_take_no_more_memory_than_their_range_asks_for():
    recorder = LatencyRecorder()
    for number in range(100_000):
        recorder.add({"total": 1.0 + (number * 7919 % 10_007) / 10_007})

    assert len(recorder._stages["total"].ranges) <= math.log(2) / math.log(1 + RESOLUTION) + 2
    assert recorder.quantiles()["total"]["p50"] == pytest.approx(1.5, rel=2 * RESOLUTION)


def test_a_stage_that_did_not_run_on_every_frame_counts_only_where_it_ran():
    recorder = LatencyRecorder()
    recorder.add({"decode": 4.0, "total": 4.0})
    recorder.add({"total": 1.0})

    assert recorder.quantiles()["decode"]["p50"] == 4.0
    assert recorder.quantiles()["total"]["p50"] == 1.0


def test_nothing_recorded_has_no_quantiles():
    assert LatencyRecorder().quantiles() == {}
