"""The classifier's life cycle: real nodes in processes of their own."""

import threading

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed (the extra `ros`)")
pytest.importorskip("vision_msgs.msg", reason="vision_msgs is not installed (the extra `ros`)")

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState

STAMP_NS = 1_600_000_000_000_000_000
PIXELS = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
OK, ERROR, STALE = 0, 2, 3


def test_fifty_cycles_under_load_leave_nothing_behind(classifier, listener, messages):
    rig = classifier(autostart="false", engine="onnxruntime")
    camera = rig.camera()
    image = messages.raw(PIXELS, STAMP_NS)
    done = threading.Event()

    def send():
        while not done.wait(0.005):
            camera.send(image)

    def topics():
        return listener.node.get_publisher_names_and_types_by_node("classifier", rig.space)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        assert rig.state() == "unconfigured"
        here = ("classifier", rig.space)
        listener.wait_until(
            lambda: here in listener.node.get_node_names_and_namespaces(), "the node's name"
        )
        before, usages = topics(), []
        for cycle in range(50):
            again = [("activate", "active"), ("deactivate", "inactive")] * (1 + cycle % 2)
            steps = [("configure", "inactive"), *again, ("cleanup", "unconfigured")]
            for transition, state in steps:
                assert rig.change(transition), (cycle, transition, rig.process.output)
                assert rig.state() == state
            usages.append(rig.usage())
        accounts = rig.accounts()
        assert accounts["waiting"] == 0
        assert accounts["received"] == sum(accounts.values()) - accounts["received"]
        listener.wait_until(lambda: topics() == before, "the topics of before to be all there are")
    finally:
        done.set()
        sender.join()
    memory, files, threads = zip(*usages, strict=True)
    assert np.median(memory[40:]) < np.median(memory[5:15]) * 1.15, memory
    assert files[-1] <= files[1], files
    assert threads[-1] <= threads[1], threads
    assert rig.change("unconfigured_shutdown")
    assert rig.state() == "finalized"
    assert rig.process.interrupt() == 0
    for noise in ("Traceback", "never retrieved", "ERROR"):
        assert noise not in rig.process.output, rig.process.output


def test_configure_answers_others_meanwhile_and_names_what_it_does(
    classifier, listener, diagnostics_contract
):
    rig = classifier(autostart="false", engine="openvino")
    assert rig.state() == "unconfigured"
    client = listener.node.create_client(ChangeState, f"{rig.name}/change_state")
    assert client.wait_for_service(10.0)
    request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE))
    future = client.call_async(request)
    states, engines = [], []
    while not future.done():
        states.append(rig.state())
        engines.append(rig.get("engine"))
    assert future.result().success, rig.process.output
    assert states.count("configuring") > 3, states
    assert set(engines) == {"openvino"}
    statuses = rig.statuses("engine")
    assert {ord(status.level) for status in statuses} <= {OK, STALE}
    assert any("verifying model" in status.message for status in statuses)
    assert any("opening" in status.message for status in statuses)
    for status in statuses:
        diagnostics_contract.check("engine", {pair.key: pair.value for pair in status.values})
    assert rig.wait_level("engine", OK).message.startswith("openvino ")
    # A transition that there is not changes nothing.
    assert not rig.change("configure")
    assert rig.state() == "inactive"
    assert rig.change("activate")
    assert rig.state() == "active"
    assert rig.change("active_shutdown")
    assert rig.state() == "finalized"
    assert rig.process.interrupt() == 0


def test_wrong_parameters_are_refused_at_configure_and_can_be_set_right(classifier, messages):
    rig = classifier(top_k=0, filter="kalman", image_depth="many")
    assert rig.state() == "unconfigured"
    for said in (
        "parameter top_k: give a whole number, such as 2, 1 to 65535",
        "parameter filter: give a text, one of: none, exponential, hysteresis",
        "parameter image_depth: give a whole number",
    ):
        assert said in rig.process.output, rig.process.output
    assert not rig.change("configure")
    assert "parameter top_k" in rig.wait_level("engine", ERROR).message
    assert rig.set("top_k", 0)
    for name, value in (("top_k", 2), ("filter", "none"), ("image_depth", 5)):
        assert rig.set(name, value) == ""
    for name, wrong, right, said in (
        ("cameras", ["a", "a"], ["camera"], "parameter cameras: give names that differ"),
        ("cameras", ["front left"], ["camera"], "'front left' is no name of a topic"),
        ("model", "no_such_model", "", "no model 'no_such_model'"),
        ("engine", "abacus", "", "no engine 'abacus'"),
        ("regions", "fixed", "whole_frame", "parameter fixed_regions: 1 numbers"),
    ):
        assert rig.set(name, wrong) == ""
        assert not rig.change("configure")
        assert rig.state() == "unconfigured"
        assert said in rig.process.output, rig.process.output
        rig.listener.wait_until(
            lambda: said in rig.statuses("engine")[-1].message,  # noqa: B023
            said,
        )
        assert rig.level("engine") == ERROR
        assert rig.set(name, right) == ""
    assert rig.change("configure"), rig.process.output
    assert rig.set("top_k", 3) == "top_k is taken over at configure; clean the node up first"
    assert rig.change("activate")
    assert "clean the node up first" in rig.set("filter", "hysteresis")
    assert rig.get("filter") == "none"
    camera = rig.camera()
    camera.meet(messages.raw(PIXELS, STAMP_NS))
    assert len(camera.results[-1].results) == 2
    assert rig.change("deactivate")
    assert rig.change("cleanup")
    assert rig.set("top_k", 3) == ""
    assert "Traceback" not in rig.process.output
