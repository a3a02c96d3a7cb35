"""The tasks of the diagnostics, held against docs/diagnostics.md."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpde_perception.monitoring import (
    CameraReport,
    Counts,
    DriftMonitor,
    DropReason,
    EngineReport,
    ExpectedRate,
    Level,
    ProcessingTimeWatchdog,
    StreamStatistics,
    TransportReport,
    UpstreamLosses,
    WatchdogLimits,
    camera_input_task,
    drift_task,
    engine_task,
    frame_accounting_task,
    processing_time_task,
    transport_task,
)

MS = 1_000_000
START = 1_700_000_000_000 * MS
STAGES = {"decode": 1.0, "prepare": 2.5, "infer": 3.25, "postprocess": 0.125}
ENGINE = EngineReport("signs", "openvino", "2025.3", rms_over_noise=0.05, max_over_noise=0.4)


def watched(*totals_ms, cameras=("/front",), at_ms=500):
    watchdog = ProcessingTimeWatchdog(cameras, START)
    for index, total_ms in enumerate(totals_ms):
        for camera in cameras:
            watchdog.arrived(camera, START + index * 100 * MS)
            finished_ns = START + index * 100 * MS
            watchdog.finished(camera, {**STAGES, "total": total_ms}, finished_ns)
    return watchdog.report(START + at_ms * MS)


def camera(
    frames, *, expected=None, age_ms=0, seen=True, topic="/front", numbers=None, counts=None
):
    """Report a camera whose frames are (stamp_ms, arrival_ms) after the start."""
    statistics = StreamStatistics(expected)
    losses = UpstreamLosses(expected.period_ns if expected else None)
    watchdog = ProcessingTimeWatchdog((topic,), START)
    for index, (stamp_ms, arrival_ms) in enumerate(frames):
        stamp_ns = 0 if stamp_ms is None else START + stamp_ms * MS
        statistics.add(stamp_ns, START + arrival_ms * MS)
        losses.add(stamp_ns, numbers[index] if numbers else None)
    if seen:
        watchdog.arrived(topic, START)
    age = watchdog.report(START + age_ms * MS).inputs[topic]
    counts = counts or Counts(received=len(frames), published=len(frames), dropped={})
    return CameraReport(topic, statistics.snapshot(), losses.snapshot(), counts, age)


def every(period_ms, count=20, delay_ms=5, first_ms=0):
    stamps = range(first_ms, first_ms + count * period_ms, period_ms)
    return [(stamp_ms, stamp_ms + delay_ms) for stamp_ms in stamps]


def counted(received, published, **dropped):
    return Counts(
        received, published, {DropReason(name): frames for name, frames in dropped.items()}
    )


def drift(*, lost="", **golden):
    monitor = DriftMonitor(None, global_bound=None, alpha=0.001)
    if golden:
        monitor.golden(rms_over_noise=0.0, max_over_noise=0.0, within_budget=True, **golden)
    if lost:
        monitor.lose_reference(lost)
    return monitor.report


TEN_HZ = ExpectedRate(10.0)
PROCESSING = {
    "waiting": watched(),
    "in time": watched(10.0),
    "late": watched(250.0),
    "late for long": watched(250.0, at_ms=1500),
    "stopped": watched(10.0, at_ms=1500),
}
CAMERAS = {
    "fine": camera(every(100), expected=TEN_HZ, age_ms=100),
    "fine without expectation": camera(every(100)),
    "no frame yet": camera([], seen=False, age_ms=500),
    "never a frame": camera([], seen=False, age_ms=1500),
    "stopped": camera(every(100), age_ms=1500),
    "slow": camera(every(110), expected=TEN_HZ),
    "unstamped": camera([(None, 0), (None, 100)]),
    "future": camera(every(100, delay_ms=-50)),
    "frozen": camera([(0, 0), (0, 100)]),
    "lossy": camera(every(100, count=2), numbers=[3, 6]),
}
ACCOUNTS = {
    "nothing": counted(0, 0),
    "all published": counted(10, 10),
    **{f"dropped {reason.value}": counted(10, 9, **{reason.value: 1}) for reason in DropReason},
    "mostly superseded": counted(10, 4, superseded=6),
    "ended twice": counted(10, 11),
}
ENGINES = {
    "fine": ENGINE,
    "built": dataclasses.replace(
        ENGINE, cache="miss", cache_reason="the driver changed", build_ms=61000.5
    ),
    "being chosen": EngineReport("", "", "", waiting="Building tensorrt."),
    "fallen back": dataclasses.replace(ENGINE, refused={"tensorrt": "no library"}),
    "none serves": EngineReport("signs", "", "", refused={"openvino": "strays"}),
    "never tried": EngineReport("signs", "", "", fault="parameter cameras: give names"),
}
SUBSCRIPTIONS = {
    "fine": (TransportReport("/front", 0, (), 0),),
    "no events": (TransportReport("/front", None, (), None),),
    "incompatible": (TransportReport("/front", 1, ("RELIABILITY",), 0),),
    "losing": (TransportReport("/front", 0, (), 3), TransportReport("/left", 0, (), 0)),
}
DRIFT = {
    "nothing yet": drift(),
    "as at first": drift(identical=True),
    "answered otherwise": drift(identical=False),
    "without reference": drift(lost="no such file"),
}
STATUSES = [
    *((f"processing, {name}", processing_time_task(case)) for name, case in PROCESSING.items()),
    *((f"camera, {name}", camera_input_task(case)) for name, case in CAMERAS.items()),
    *((f"accounting, {name}", frame_accounting_task(case)) for name, case in ACCOUNTS.items()),
    *((f"engine, {name}", engine_task(case)) for name, case in ENGINES.items()),
    *((f"transport, {name}", transport_task(case)) for name, case in SUBSCRIPTIONS.items()),
    *((f"drift, {name}", drift_task(case)) for name, case in DRIFT.items()),
]


@pytest.mark.parametrize("status", [s for _, s in STATUSES], ids=[name for name, _ in STATUSES])
def test_a_status_has_the_keys_and_units_of_the_contract(status, diagnostics_contract):
    diagnostics_contract.check(status.name, status.values)
    assert status.message


def test_every_task_of_the_contract_reaches_exactly_the_levels_that_its_rules_name(
    diagnostics_contract,
):
    reached: dict[str, set[str]] = {}
    for _, status in STATUSES:
        reached.setdefault(status.name.split()[0], set()).add(status.level.name)

    assert reached == {
        task: diagnostics_contract.levels(task) for task in diagnostics_contract.tasks
    }


def test_every_row_of_the_contract_is_filled(diagnostics_contract):
    for keys in diagnostics_contract.tasks.values():
        for key in keys.values():
            assert key.meaning
            assert key.readers


def test_the_defaults_of_the_contract_are_those_of_the_code(diagnostics_contract):
    limits = {
        **dataclasses.asdict(WatchdogLimits()),
        "tolerance": ExpectedRate(1.0).tolerance_percent,
    }
    documented = dict(diagnostics_contract.defaults)
    assert documented.pop("expected_frequency") == "none"
    assert {name: float(value) for name, value in documented.items()} == limits


def test_autowares_and_greenwaves_keys_are_kept_to_the_letter(diagnostics_contract):
    assert {
        "is_processing_time_ms_in_expected_range",
        "processing_time_ms",
        "is_consecutive_processing_delay_in_range",
        "consecutive_processing_delay_ms",
        "preprocess_time_ms",
        "inference_time_ms",
        "postprocess_time_ms",
    } <= set(diagnostics_contract.tasks["processing_time_status"])
    assert {
        *("frame_rate_node", "frame_rate_msg", "current_delay_from_realtime_ms"),
        *("expected_frequency", "tolerance", "total_dropped_frames", "num_non_increasing_msg"),
        *(f"num_jitter_outliers_{clock}" for clock in ("msg", "node")),
        *(f"mean_abs_jitter_{clock}" for clock in ("msg", "node")),
        *(f"max_abs_jitter_{clock}" for clock in ("msg", "node")),
    } <= set(diagnostics_contract.tasks["camera_input"])


def test_before_the_first_inference_the_node_waits_and_no_time_is_invented():
    status = processing_time_task(PROCESSING["waiting"])

    assert status.level is Level.OK
    assert status.message == "Waiting for the node to perform inference."
    assert status.values["processing_time_ms"] == "n/a"
    assert status.values["consecutive_processing_delay_ms"] == "n/a"
    assert status.values["is_processing_time_ms_in_expected_range"] == "True"


def test_the_stages_of_the_road_become_the_three_of_autoware():
    values = processing_time_task(PROCESSING["in time"]).values

    assert values["preprocess_time_ms"] == "3.500"
    assert values["inference_time_ms"] == "3.250"
    assert values["postprocess_time_ms"] == "0.125"


@pytest.mark.parametrize(
    ("case", "level"),
    [("in time", Level.OK), ("late", Level.WARN), ("late for long", Level.ERROR)],
)
def test_late_frames_warn_and_go_on_to_an_error(case, level):
    assert processing_time_task(PROCESSING[case]).level is level


def test_a_stopped_camera_among_several_is_named_though_frames_are_in_time():
    watchdog = ProcessingTimeWatchdog(("/front", "/left"), START)
    for name, at_ms in (("/front", 0), ("/left", 0), ("/left", 1900)):
        watchdog.arrived(name, START + at_ms * MS)
        watchdog.finished(name, {"total": 10.0}, START + at_ms * MS)
    status = processing_time_task(watchdog.report(START + 2000 * MS))

    assert status.level is Level.ERROR
    assert status.message == "No frame from /front for 2000.000 ms."
    assert status.values["stopped_cameras"] == "/front"
    assert status.values["is_processing_time_ms_in_expected_range"] == "True"


def test_the_late_camera_is_named_where_there_are_several():
    assert "/front" not in processing_time_task(watched(250.0)).message
    assert "/front" in processing_time_task(watched(250.0, cameras=("/front", "/left"))).message


@pytest.mark.parametrize(
    ("case", "level", "said"),
    [
        ("fine", Level.OK, "OK"),
        ("no frame yet", Level.STALE, "first frame of /front"),
        ("never a frame", Level.ERROR, "No first frame from /front"),
        ("stopped", Level.ERROR, "No frame from /front"),
        ("slow", Level.WARN, "expected 10.000 Hz"),
        ("unstamped", Level.WARN, "without a stamp"),
        ("future", Level.WARN, "50.000 ms ahead"),
        ("frozen", Level.WARN, "not above"),
        ("lossy", Level.WARN, "2 frames lost"),
    ],
)
def test_a_camera_says_what_is_wrong_with_it(case, level, said):
    status = camera_input_task(CAMERAS[case])

    assert status.level is level
    assert said in status.message


@pytest.mark.parametrize("case", ["unstamped", "frozen", "lossy"])
def test_what_happened_to_a_camera_before_the_last_report_is_over(case):
    assert camera_input_task(CAMERAS[case], before=CAMERAS[case]).level is Level.OK


def test_a_camera_task_is_named_so_that_the_dashboard_finds_the_topic():
    name = "classifier: " + camera_input_task(camera(every(100), topic="/ns/front/image")).name

    assert name[name.find("/") :] == "/ns/front/image"


@given(
    st.integers(0, 50),
    st.dictionaries(st.sampled_from(DropReason), st.integers(0, 50)),
    st.integers(0, 5),
)
def test_received_is_the_sum_of_the_other_accounts(published, dropped, waiting):
    totals = Counts(published + sum(dropped.values()) + waiting, published, dropped)
    values = {key: int(value) for key, value in frame_accounting_task(totals).values.items()}

    assert values.pop("received") == sum(values.values())
    assert values["waiting"] == waiting


@pytest.mark.parametrize(
    ("case", "level"),
    [
        ("nothing", Level.OK),
        ("all published", Level.OK),
        ("dropped superseded", Level.OK),
        ("dropped malformed", Level.WARN),
        ("dropped too_old", Level.WARN),
        ("dropped over_capacity", Level.WARN),
        ("dropped engine_down", Level.ERROR),
        ("mostly superseded", Level.WARN),
        ("ended twice", Level.ERROR),
    ],
)
def test_an_account_is_as_bad_as_its_worst_drop(case, level):
    assert frame_accounting_task(ACCOUNTS[case]).level is level


@pytest.mark.parametrize("case", sorted(set(ACCOUNTS) - {"ended twice"}))
def test_drops_before_the_last_report_are_over(case):
    assert frame_accounting_task(ACCOUNTS[case], before=ACCOUNTS[case]).level is Level.OK


def test_an_engine_that_takes_the_place_of_another_says_why():
    status = engine_task(ENGINES["fallen back"])

    assert status.level is Level.WARN
    assert "openvino serves in place of tensorrt" in status.message
    assert status.values["refused"] == "tensorrt: no library"


def test_an_engine_says_whether_it_was_built_and_why():
    assert engine_task(ENGINES["fine"]).values["cache"] == "none"
    values = engine_task(ENGINES["built"]).values
    assert (values["cache"], values["cache_reason"]) == ("miss", "the driver changed")
    assert values["build_ms"] == "61000.500"


def test_an_engine_shows_the_figures_of_its_self_test():
    values = engine_task(ENGINES["fine"]).values

    assert (values["rms_over_noise"], values["max_over_noise"]) == ("0.050", "0.400")


def test_while_the_engine_is_chosen_the_task_is_stale_and_says_what_it_waits_for():
    status = engine_task(ENGINES["being chosen"])

    assert status.level is Level.STALE
    assert status.message == "Building tensorrt."


def test_without_an_engine_the_task_is_an_error_with_every_reason():
    status = engine_task(ENGINES["none serves"])

    assert status.level is Level.ERROR
    assert status.message == "No engine serves signs. openvino: strays"


def test_where_no_engine_was_tried_the_task_is_an_error_that_says_why():
    status = engine_task(ENGINES["never tried"])

    assert status.level is Level.ERROR
    assert status.message == "No engine serves signs. parameter cameras: give names"


def test_an_incompatible_publisher_names_topic_and_policy_and_stays():
    case = SUBSCRIPTIONS["incompatible"]
    for status in (transport_task(case), transport_task(case, before=case)):
        assert status.level is Level.WARN
        assert "/front" in status.message
        assert "RELIABILITY" in status.message


def test_lost_messages_warn_in_the_period_in_which_they_were_lost():
    case = SUBSCRIPTIONS["losing"]
    assert transport_task(case).level is Level.WARN
    assert transport_task(case).values["messages_lost"] == "3"
    assert transport_task(case, before=case).level is Level.OK


def test_events_that_the_middleware_does_not_report_are_unknown_and_not_zero():
    values = transport_task(SUBSCRIPTIONS["no events"]).values

    assert values["incompatible_qos"] == "N/A"
    assert values["messages_lost"] == "N/A"
