"""The classifier under cameras, clocks, engines and peers that fail, in processes of their own."""

import hashlib
import json
import shutil
import signal
import threading
import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed (the extra `ros`)")
pytest.importorskip("vision_msgs.msg", reason="vision_msgs is not installed (the extra `ros`)")

from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock

from qpde_perception.bundles import golden_of
from qpde_perception.engines.registry import CPU_GRAPH

STAMP_NS = 1_600_000_000_000_000_000
CORE = {"engine": "onnxruntime", "threads": 1}
PIXELS = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
OK, WARN, ERROR, STALE = range(4)


def now_of(listener):
    return listener.node.get_clock().now().nanoseconds


def stream(camera, messages, frames, rate_hz):
    """Send frames at a rate, stamped with the time of day."""
    begin = time.monotonic()
    for number in range(frames):
        camera.send(messages.raw(PIXELS, now_of(camera.rig.listener)))
        time.sleep(max(begin + (number + 1) / rate_hz - time.monotonic(), 0.0))


def value_of(status, key):
    (value,) = (pair.value for pair in status.values if pair.key == key)
    return float(value)


def test_a_camera_that_stalls_bursts_or_lies_about_time_is_reported_and_recovers(
    classifier, listener, messages
):
    rig = classifier(autostart="false", input_timeout_ms=600.0, **CORE)
    camera = rig.camera()
    task = f"camera_input {camera.topic}"
    assert rig.change("configure")
    rig.wait_level("engine", OK)
    assert rig.change("activate")
    assert "No first frame" in rig.wait_level(task, ERROR).message
    assert ord(rig.statuses(task)[0].level) == STALE
    camera.meet(messages.raw(PIXELS, now_of(listener)))
    for _ in range(2):
        stream(camera, messages, 15, rate_hz=20)
        rig.wait_level("processing_time_status", OK)
        rig.wait_level(task, OK)
        # Nothing is sent any more: the camera has stalled.
        rig.wait_level("processing_time_status", ERROR)
        assert f"No frame from {camera.topic}" in rig.wait_level(task, ERROR).message
    for name in ("processing_time_status", task):
        for status in rig.statuses(name):
            stopped = value_of(status, "input_age_ms") > 600.0
            assert (ord(status.level) == ERROR) == stopped, status

    met = rig.wait_accounts()
    lost = int(rig.values(task)["total_dropped_frames"])
    stream(camera, messages, 100, rate_hz=200)
    time.sleep(0.2)
    camera.answer(messages.raw(PIXELS, now_of(listener)))
    accounts = rig.wait_accounts()
    listener.wait_until(lambda: rig.values(task)["received"] == str(accounts["received"]), task)
    lost = int(rig.values(task)["total_dropped_frames"]) - lost
    assert accounts["received"] - met["received"] + lost == 101
    assert accounts["published"] - met["published"] >= 10

    for stamp_ns, said in (
        (0, "1 frames without a stamp."),
        (now_of(listener) + 10**9, "ahead of"),
    ):
        camera.answer(messages.raw(PIXELS, stamp_ns))
        listener.wait_until(
            lambda: any(said in each.message for each in rig.statuses(task)[-5:]),  # noqa: B023
            said,
        )
    assert rig.values(task)["num_unstamped"] == "1"
    accounts = rig.finish()
    assert accounts["received"] == int(rig.values(task)["received"])


def test_frames_that_take_too_long_warn_and_then_are_an_error(classifier, messages):
    limits = {
        "diagnostic_updater.period": 60.0,  # only what deactivate says is said in time
        "input_timeout_ms": 60_000.0,
        "diagnostics.max_allowed_processing_time_ms": 0.001,
        "diagnostics.max_acceptable_consecutive_delay_ms": 400.0,
    }
    rig = classifier(**limits, **CORE)
    camera = rig.camera()
    rig.wait_level("processing_time_status", OK)
    camera.greet(messages.raw(PIXELS, STAMP_NS))
    stream(camera, messages, 20, rate_hz=20)
    rig.wait_level("processing_time_status", ERROR)
    levels = [ord(status.level) for status in rig.statuses("processing_time_status")]
    assert sorted(set(levels)) == [OK, WARN, ERROR]
    assert levels == sorted(levels)
    for status in rig.statuses("processing_time_status")[levels.index(WARN) :]:
        late = value_of(status, "consecutive_processing_delay_ms") > 400.0
        assert (ord(status.level) == ERROR) == late
    camera.answer(messages.raw(PIXELS, STAMP_NS))
    assert rig.finish()["published"] == len(camera.results)


def test_regions_that_never_come_are_over_capacity_and_later_ones_are_served(classifier, messages):
    # Queues that hold them all: none is lost on its way, however busy the machine.
    rig = classifier(regions="topic", image_depth=30, **CORE)
    camera = rig.camera(depth=30)
    met = camera.meet(messages.raw(PIXELS, STAMP_NS), messages.boxes([(0, 0, 40, 40)], STAMP_NS))
    stamps = [STAMP_NS + number * 10**8 for number in range(1, 21)]
    for stamp_ns in stamps:
        camera.send(messages.raw(PIXELS, stamp_ns))
        time.sleep(0.01)
    rig.listener.wait_until(
        lambda: rig.accounts()["dropped_over_capacity"] == 12, "twelve of twenty to be dropped"
    )
    assert rig.accounts()["waiting"] == 8
    rig.wait_level("frame_accounting", OK)
    assert WARN in {ord(status.level) for status in rig.statuses("frame_accounting")}
    seen = len(camera.results)
    camera.regions.publish(messages.boxes([(0, 0, 40, 40)], stamps[14]))
    rig.listener.wait_until(lambda: len(camera.results) > seen, "the result of the fifteenth")
    accounts = rig.finish()
    assert accounts["published"] - met["published"] == 1
    assert accounts["dropped_superseded"] - met["dropped_superseded"] == 2 + 5
    assert accounts["dropped_over_capacity"] == 12


def test_a_clock_that_jumps_back_loses_what_waited_and_nothing_else(classifier, listener, messages):
    rig = classifier(
        regions="topic",
        filter="hysteresis",
        max_age_ms=500.0,
        use_sim_time="true",
        **CORE,
    )
    camera = rig.camera()
    clock = listener.node.create_publisher(Clock, "/clock", 10)
    boxes = [(0, 0, 40, 40)]

    def tick(time_s):
        message = Clock()
        message.clock.sec = time_s
        clock.publish(message)

    def said_at(time_s):
        return any(array.header.stamp.sec == time_s for _, array in list(rig.said)[-5:])

    def at(time_s):
        listener.wait_until(
            lambda: tick(time_s) or time.sleep(0.02) or said_at(time_s), "the clock"
        )

    rig.wait_level("engine", OK)
    at(1000)
    stamp_ns = 1000 * 10**9
    met = camera.meet(
        messages.raw(PIXELS, stamp_ns), messages.boxes(boxes, stamp_ns), lead_ns=10**8
    )
    camera.send(messages.raw(PIXELS, stamp_ns + 10**8))
    listener.wait_until(lambda: rig.accounts()["waiting"] == 1, "a frame that waits for its boxes")
    # Diagnostics, on a clock of their own, go on while the simulated one stands still.
    at(400)
    listener.wait_until(lambda: rig.accounts()["dropped_superseded"] == 1, "the frame that waited")
    assert "the clock jumped" in rig.process.output
    for step in range(3):
        stamp_ns = 400 * 10**9 + step * 10**8
        result = camera.answer(messages.raw(PIXELS, stamp_ns), messages.boxes(boxes, stamp_ns))
        assert result.header.stamp.sec == 400
    assert rig.values(f"camera_input {camera.topic}")["frame_rate_node"] == "N/A"
    old_ns = 399 * 10**9
    camera.send(messages.raw(PIXELS, old_ns), messages.boxes(boxes, old_ns))
    listener.wait_until(lambda: rig.accounts()["dropped_too_old"] == 1, "the frame that is too old")
    accounts = rig.finish()
    assert accounts["published"] - met["published"] == 3
    assert accounts["received"] - met["received"] == 5


def test_a_killed_node_that_is_started_again_goes_on_under_load(classifier, listener, messages):
    rig = classifier(space="/vehicle", **CORE)
    camera = rig.camera()
    camera.meet(messages.raw(PIXELS, STAMP_NS))
    done = threading.Event()

    def send():
        while not done.wait(0.01):
            camera.send(messages.raw(PIXELS, now_of(listener)))

    sender = threading.Thread(target=send)
    sender.start()
    try:
        listener.wait_until(lambda: len(camera.results) > 10, "results under load")
        rig.process.interrupt(signal.SIGKILL)
        time.sleep(0.2)
        camera.classes.clear()
        again = classifier(space="/vehicle", **CORE)
        listener.wait_until(lambda: len(camera.results) > 10, "results of the second node")
    finally:
        done.set()
        sender.join()
    accounts = again.wait_accounts()
    assert accounts["published"] >= 10
    assert again.process.interrupt(signal.SIGTERM) == 0
    listener.wait_until(lambda: again.accounts()["received"] >= accounts["received"], "the last")
    assert "Traceback" not in again.process.output


@pytest.fixture
def bundle_with(shipped_bundle, tmp_path):
    """Copy the model that ships, with other engines, or with another graph for them."""

    def make(name, engines, graph=None):
        folder = tmp_path / name
        shutil.copytree(shipped_bundle.path, folder)
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        manifest["engines"] = engines
        if graph is not None:
            (folder / CPU_GRAPH).write_bytes(graph)
            manifest["files"][CPU_GRAPH] = hashlib.sha256(graph).hexdigest()
        (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        return str(folder)

    return make


def test_an_engine_that_is_missing_or_fails_is_replaced_or_reported(
    classifier, messages, bundle_with, shipped_bundle
):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed (the extra `learning`)")
    rig = classifier(autostart="false", model=bundle_with("first", ["abacus", "onnxruntime"]))
    camera = rig.camera()
    image = messages.raw(PIXELS, STAMP_NS)
    assert rig.change("configure"), rig.process.output
    status = rig.wait_level("engine", WARN)
    assert status.message.startswith("onnxruntime serves in place of abacus. abacus: no engine")
    assert "passed over: no engine 'abacus'" in rig.process.output
    assert rig.change("activate")
    camera.meet(image)
    rig.finish()
    assert rig.change("cleanup")

    # A graph for batches of one size passes the self-test and fails on every frame.
    graph = onnx.load_from_string(shipped_bundle.read(CPU_GRAPH))
    for each in (*graph.graph.input, *graph.graph.output):
        each.type.tensor_type.shape.dim[0].dim_value = len(golden_of(shipped_bundle).pixels)
    engines = ["onnxruntime", "openvino"]
    assert rig.set("model", bundle_with("second", engines, graph.SerializeToString())) == ""
    assert rig.change("configure"), rig.process.output
    rig.wait_level("engine", OK)
    rig.said.clear()
    assert rig.change("activate")
    camera.meet_silent(image)
    rig.listener.wait_until(
        lambda: "openvino cannot run" in rig.statuses("engine")[-1].message, "both to fail"
    )
    status = rig.statuses("engine")[-1]
    assert status.message.startswith(
        "No engine serves traffic_signs. onnxruntime: onnxruntime cannot"
    )
    assert ord(status.level) == ERROR
    for _ in range(4):
        camera.send(image)
        time.sleep(0.05)
    accounts = rig.wait_accounts(published=0)
    assert accounts["dropped_engine_down"] >= 2
    assert ERROR in {ord(each.level) for each in rig.statuses("frame_accounting")}
    assert rig.state() == "active"
    assert rig.change("deactivate")
    assert rig.change("cleanup")
    assert rig.set("model", "") == ""
    assert rig.change("configure")
    assert rig.change("activate")
    camera.meet(image)
    rig.wait_level("engine", OK)
    rig.finish()


@pytest.mark.parametrize("asked", ["auto", "reliable"])
def test_a_best_effort_camera_is_heard_unless_reliable_images_are_demanded(
    classifier, listener, messages, asked
):
    rig = classifier(image_reliability=asked, **CORE)
    camera = rig.camera(depth=QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT))
    if asked == "auto":
        camera.meet(messages.raw(PIXELS, STAMP_NS))
        assert rig.level("transport") == OK
        rig.finish()
    else:
        status = rig.wait_level("transport", WARN)
        assert f"{camera.topic}: 1 publishers with incompatible quality" in status.message
        assert "RELIABILITY" in status.message
