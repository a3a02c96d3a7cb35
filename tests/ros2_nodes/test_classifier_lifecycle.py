"""The classifier's life cycle: real nodes in processes of their own."""

import threading
import time

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed (the extra `ros`)")
pytest.importorskip("vision_msgs.msg", reason="vision_msgs is not installed (the extra `ros`)")

from rclpy.executors import ExternalShutdownException  # noqa: E402

STAMP_NS = 1_600_000_000_000_000_000
PIXELS = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


def test_fifty_cycles_under_load_leave_nothing_behind(classifier, listener, messages):
    rig = classifier(autostart="false", engine="onnxruntime")
    camera = rig.camera()
    image = messages.raw(PIXELS, STAMP_NS)
    done = threading.Event()

    def send():
        while not done.wait(0.002):
            camera.send(image)

    sender = threading.Thread(target=send)
    sender.start()
    usages = []
    try:
        listener.wait_until(lambda: rig.listener.node.count_subscribers(camera.topic) == 0, "")
        start = time.monotonic()
        for cycle in range(50):
            steps = [("configure", "inactive"), ("activate", "active"), ("deactivate", "inactive")]
            for transition, state in (
                *steps,
                *steps[1:] * (cycle % 2),
                ("cleanup", "unconfigured"),
            ):
                assert rig.change(transition), (cycle, transition, rig.process.output)
                assert rig.state() == state
            usages.append(rig.usage())
        print(time.monotonic() - start, usages[::7], usages[-1])
        print(listener.node.get_topic_names_and_types())
        print(listener.node.get_publisher_names_and_types_by_node("classifier", rig.space))
        print(rig.process.output[-3000:])
    finally:
        done.set()
        sender.join()
    assert rig.change("unconfigured_shutdown")
    assert "Traceback" not in rig.process.output
    assert "never" not in rig.process.output
    print(rig.process.interrupt())
