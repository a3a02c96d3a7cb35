"""The simulated camera: a real node in a process of its own, heard over the middleware."""

import re
import signal
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed (the extra `ros`)")

from rclpy.qos import QoSProfile  # noqa: E402
from sensor_msgs.msg import CompressedImage, Image  # noqa: E402

from qpde_perception.bags import simulated_camera  # noqa: E402

SAMPLE = Path(__file__).parents[2] / "samples" / "traffic_signs.mcap"
CAMERA = "ros2_nodes.camera_sim"
EVERYTHING = QoSProfile(depth=1000)


def stamp_ns(message):
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def test_two_cameras_send_their_patterns_at_the_rate_with_one_stamp_of_now(start_node, listener):
    topics = [f"/camera_{camera}/image_raw" for camera in range(2)]
    got = [listener.collect(topic, Image, EVERYTHING) for topic in topics]
    node = start_node(
        CAMERA, camera_count=2, rate_hz=50.0, width=64, height=48, encoding="rgb8", delay_ms=80.0
    )
    listener.wait_until(lambda: all(len(each) > 50 for each in got), "fifty frames of both", node)
    assert node.interrupt() == 0, node.output
    assert "Traceback" not in node.output
    for camera, frames in enumerate(got):
        assert f"on /camera_{camera}/image_raw, dropped 0" in node.output
        assert {message.header.frame_id for _, message in frames} == {f"camera_{camera}"}
        sent = [sent_ns for sent_ns, _ in frames]
        # Single frames come late on a busy machine; the rate holds all the same.
        assert (sent[50] - sent[0]) / 50 == pytest.approx(20e6, rel=0.2)
        # The node first makes the pictures of the next frame, then waits for the next moment.
        ages = [sent_ns - stamp_ns(message) for sent_ns, message in frames]
        assert np.median(ages) == pytest.approx(80e6, abs=20e6)
        pattern = simulated_camera(None, "rgb8", camera=camera, size=(48, 64))
        bytes_of = [bytes(frame.data) for frame in islice(pattern, 500)]
        first = bytes_of.index(bytes(frames[0][1].data))
        assert [bytes(message.data) for _, message in frames[:20]] == bytes_of[first : first + 20]
        assert (frames[0][1].width, frames[0][1].height, frames[0][1].step) == (64, 48, 192)
    ends = [{stamp_ns(message) for _, message in frames} for frames in got]
    assert len(ends[0] & ends[1]) >= 50


def test_the_camera_of_a_drive_is_sent_as_jpeg_with_faults(start_node, listener):
    got = listener.collect("/camera_0/image_raw/compressed", CompressedImage, EVERYTHING)
    node = start_node(
        CAMERA,
        source=SAMPLE,
        transport="compressed",
        rate_hz=40.0,
        drop_share=0.3,
        corrupt_share=0.3,
        seed=3,
    )
    listener.wait_until(lambda: len(got) >= 40, "forty frames", node)
    assert node.interrupt(signal.SIGTERM) == 0, node.output
    counted = re.search(r"sent (\d+) on /camera_0/image_raw/compressed, dropped (\d+)", node.output)
    sent, dropped = map(int, counted.groups())
    assert sent >= len(got)
    assert 0.15 < dropped / (dropped + sent) < 0.45
    shown = [message for _, message in got]
    assert {message.format for message in shown} == {"jpeg"}
    whole = [bytes(message.data[-2:]) == b"\xff\xd9" for message in shown]
    assert 0.5 < np.mean(whole) < 0.9
    picture = cv2.imdecode(np.asarray(shown[whole.index(True)].data), cv2.IMREAD_COLOR)
    assert picture.shape == (400, 300, 3)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"source": "/no/such/film.mp4"}, "/no/such/film.mp4 does not exist"),
        ({"transport": "compressed", "encoding": "bgr8"}, "bgr8 does not go with transport"),
    ],
)
def test_what_cannot_be_shown_ends_with_code_2_and_one_line(start_node, parameters, words):
    node = start_node(CAMERA, **parameters)
    assert node.wait() == 2
    (line,) = node.output.splitlines()
    assert line.startswith("camera_sim: error: ")
    assert words in line
