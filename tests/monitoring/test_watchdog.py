"""The watchdog: frames that take too long, and cameras that stopped."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpde_perception.monitoring import MonitoringError, ProcessingTimeWatchdog, WatchdogLimits

MS = 1_000_000
START = 77_000 * MS
STAGES = {"decode": 1.0, "prepare": 2.0, "infer": 3.0, "postprocess": 4.0}


def watching(*cameras, **limits):
    return ProcessingTimeWatchdog(cameras or ("/front",), START, WatchdogLimits(**limits))


def process(watchdog, at_ms, total_ms=10.0, camera="/front"):
    """Let a frame arrive, and be done `total_ms` later."""
    watchdog.arrived(camera, START + at_ms * MS)
    watchdog.started(camera, START + at_ms * MS)
    finished_ns = START + round((at_ms + total_ms) * MS)
    watchdog.finished(camera, {**STAGES, "total": total_ms}, finished_ns)


def test_before_the_first_inference_nothing_is_late_and_nothing_is_known():
    report = watching().report(START + 500 * MS)

    assert report.processing_time_ms is None
    assert report.consecutive_delay_ms is None
    assert report.in_expected_range
    assert report.delay_in_range
    assert report.stopped == ()


def test_the_stages_are_those_of_the_frame_whose_time_is_reported():
    watchdog = watching()
    process(watchdog, 0, 12.5)
    report = watchdog.report(START + 20 * MS)

    assert report.processing_time_ms == 12.5
    assert report.stages_ms == STAGES


@pytest.mark.parametrize(("total_ms", "in_time"), [(200.0, True), (200.001, False)])
def test_a_frame_is_late_beyond_the_allowed_time(total_ms, in_time):
    watchdog = watching()
    process(watchdog, 0, total_ms)

    assert watchdog.report(START + 300 * MS).in_expected_range == in_time


def test_frames_that_stay_late_are_out_of_range_once_the_acceptable_delay_is_over():
    watchdog = watching()
    for at_ms in range(0, 1300, 300):
        process(watchdog, at_ms, 250.0)

    assert watchdog.report(START + 1250 * MS).consecutive_delay_ms == 1000.0
    assert watchdog.report(START + 1250 * MS).delay_in_range
    assert not watchdog.report(START + 1251 * MS).delay_in_range


def test_one_frame_in_time_ends_the_delay():
    watchdog = watching()
    process(watchdog, 0, 250.0)
    process(watchdog, 900, 10.0)
    process(watchdog, 1000, 250.0)
    report = watchdog.report(START + 1500 * MS)

    assert report.consecutive_delay_ms == 250.0
    assert report.delay_in_range


@given(st.lists(st.floats(0.0, 400.0), min_size=1, max_size=20))
def test_the_delay_runs_from_the_first_of_the_late_frames_at_the_end(totals):
    watchdog = watching()
    for index, total_ms in enumerate(totals):
        process(watchdog, 500 * index, total_ms)
    late = 0
    while late < len(totals) and totals[-1 - late] > 200.0:
        late += 1
    report = watchdog.report(START + 500 * len(totals) * MS)

    expected = 500 * late - totals[-late] if late else 0.0
    assert report.consecutive_delay_ms == pytest.approx(expected, abs=1e-5)


def test_a_camera_that_stops_is_found_out_by_its_timeout_though_its_last_frame_was_in_time():
    watchdog = watching(input_timeout_ms=300.0)
    process(watchdog, 0)

    assert watchdog.report(START + 300 * MS).stopped == ()
    report = watchdog.report(START + 301 * MS)
    assert report.in_expected_range
    assert report.stopped == ("/front",)
    assert report.inputs["/front"].age_ms == 301.0


def test_a_camera_that_never_sent_is_found_out_too():
    report = watching().report(START + 1001 * MS)

    assert report.stopped == ("/front",)
    assert not report.inputs["/front"].seen


@given(st.sets(st.sampled_from(["/front", "/left", "/rear", "/right"])))
def test_exactly_the_cameras_that_stall_are_named(stalled):
    cameras = ("/front", "/left", "/rear", "/right")
    watchdog = watching(*cameras)
    for camera in cameras:
        process(watchdog, 0, camera=camera)
        if camera not in stalled:
            process(watchdog, 1500, camera=camera)

    assert set(watchdog.report(START + 2000 * MS).stopped) == stalled


def test_a_camera_that_sends_again_is_no_longer_named():
    watchdog = watching()
    process(watchdog, 0)
    assert watchdog.report(START + 5000 * MS).stopped
    process(watchdog, 5000)

    assert not watchdog.report(START + 5100 * MS).stopped


def test_a_slow_camera_is_reported_though_a_fast_one_finished_last():
    watchdog = watching("/slow", "/fast")
    for at_ms in range(0, 2000, 500):
        process(watchdog, at_ms, 250.0, "/slow")
        process(watchdog, at_ms + 300, 10.0, "/fast")
    report = watchdog.report(START + 2000 * MS)

    assert (report.slowest, report.processing_time_ms) == ("/slow", 250.0)
    assert report.consecutive_delay_ms == 1750.0


def test_a_frame_that_never_ends_is_late_while_it_is_worked_on():
    watchdog = watching()
    process(watchdog, 0)
    watchdog.started("/front", START + 100 * MS)

    assert watchdog.report(START + 300 * MS).processing_time_ms == 10.0
    report = watchdog.report(START + 1301 * MS)
    assert report.processing_time_ms == 1201.0
    assert report.stages_ms == {}
    assert report.consecutive_delay_ms == 1001.0
    assert not report.delay_in_range


def test_the_very_first_frame_that_never_ends_is_late_too():
    watchdog = watching()
    watchdog.started("/front", START)

    assert watchdog.report(START + 200 * MS).processing_time_ms is None
    assert watchdog.report(START + 201 * MS).processing_time_ms == 201.0


def test_a_frame_that_was_dropped_is_not_waited_for():
    watchdog = watching()
    process(watchdog, 0)
    watchdog.started("/front", START + 100 * MS)
    watchdog.abandoned("/front")

    assert watchdog.report(START + 900 * MS).processing_time_ms == 10.0
    assert watchdog.report(START + 900 * MS).consecutive_delay_ms == 0.0


def test_no_age_and_no_delay_is_negative():
    watchdog = watching()
    process(watchdog, 500, 250.0)
    report = watchdog.report(START)

    assert report.inputs["/front"].age_ms == 0.0
    assert report.consecutive_delay_ms == 0.0


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize(
    "name",
    ["max_allowed_processing_time_ms", "max_acceptable_consecutive_delay_ms", "input_timeout_ms"],
)
def test_an_impossible_limit_is_refused_by_name(name, value):
    with pytest.raises(MonitoringError, match=name):
        WatchdogLimits(**{name: value})
