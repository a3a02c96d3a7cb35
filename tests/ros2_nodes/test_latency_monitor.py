"""Frames at a rate and the monitor of answers: real processes, heard over the middleware."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed (the extra `ros`)")
pytest.importorskip("vision_msgs.msg", reason="vision_msgs is not installed (the extra `ros`)")

from rclpy.qos import QoSProfile  # noqa: E402
from sensor_msgs.msg import CompressedImage  # noqa: E402
from vision_msgs.msg import Classification, Detection2DArray  # noqa: E402

from qpde_perception.bags.messages import stamp_of  # noqa: E402

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "samples" / "traffic_signs.mcap"
IMAGE, REGIONS = "/camera/front/image/compressed", "/camera/front/regions"
PLAYER = "ros2_nodes.bag_player_node"
EVERYTHING = QoSProfile(depth=1000)
HEARD = f"['{IMAGE}', '{REGIONS}']"


@pytest.fixture
def monitor():
    """Start a monitor; its lines, as they come, are in `heard`."""
    started = []

    def start(topic, kind):
        options = ["--ros-args", "-p", f"topic:={topic}", "-p", f"kind:={kind}"]
        process = subprocess.Popen(
            [sys.executable, "-m", "ros2_nodes.latency_monitor", *options],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        process.heard = []
        reader = threading.Thread(
            target=lambda: process.heard.extend(iter(process.stdout.readline, ""))
        )
        reader.start()
        started.append((process, reader))
        return process

    yield start
    for process, reader in started:
        process.kill()
        process.wait()
        reader.join()


def test_the_monitor_tells_the_stamp_and_the_publication_of_each_answer_and_ends_with_its_input(
    monitor, listener
):
    publisher = listener.node.create_publisher(Classification, "/answers", 10)
    process = monitor("/answers", "classification")
    heard = listener.collect("/answers", Classification, EVERYTHING)
    listener.wait_until(lambda: process.heard == ["ready\n"], "the monitor")
    listener.wait_until(lambda: publisher.get_subscription_count() == 2, "both subscriptions")
    stamps = [(1_780_000_000, 5), (1_780_000_001, 999_999_999), (7, 0)]
    for seconds, nanoseconds in stamps:
        message = Classification()
        message.header.stamp.sec, message.header.stamp.nanosec = seconds, nanoseconds
        publisher.publish(message)
    listener.wait_until(lambda: len(process.heard) == 4 and len(heard) == 3, "the answers")
    told = [tuple(map(int, line.split())) for line in process.heard[1:]]
    assert told == [(stamp_of(message), sent_ns) for sent_ns, message in heard]
    process.stdin.close()
    assert process.wait(timeout=20) == 0


def test_a_monitor_without_a_classifier_says_nothing(monitor, listener):
    process = monitor("/nobody", "detections")
    other = monitor("/somebody", "detections")
    listener.node.create_publisher(Detection2DArray, "/somebody", 1)
    listener.wait_until(lambda: other.heard, "the other monitor")
    assert process.heard == []
    assert process.poll() is None


@pytest.fixture
def send(start_node, tmp_path):
    """Send frames of the sample drive at a rate; returns the player and the stamps that it sent."""

    def run(rate_hz, count):
        player = start_node(
            PLAYER,
            drive=SAMPLE,
            topics=HEARD,
            wait_for_subscribers=HEARD,
            restamp="now",
            frame_rate_hz=rate_hz,
            frame_count=count,
            sent_file=tmp_path / "sent.json",
        )
        assert player.wait() == 0, player.output
        return player, json.loads((tmp_path / "sent.json").read_text())

    return run


def test_frames_are_sent_at_the_rate_each_with_its_boxes_under_one_stamp(send, listener):
    images = listener.collect(IMAGE, CompressedImage, EVERYTHING)
    boxes = listener.collect(REGIONS, Detection2DArray, EVERYTHING)
    player, sent = send(rate_hz=100.0, count=150)
    stamps = [stamp_of(message) for _, message in images]
    assert len(stamps) == len(set(stamps)) == 150  # more than are kept: it began again
    assert stamps == [stamp_of(message) for _, message in boxes]
    assert stamps == sent
    assert stamps[-1] - stamps[0] == pytest.approx(149 * 10_000_000, abs=1e8)
    assert all(
        0 <= sent_ns - stamp < 10**8 for (sent_ns, _), stamp in zip(images, stamps, strict=True)
    )
    assert bytes(images[0][1].data) == bytes(images[100][1].data) != bytes(images[50][1].data)
    assert f"sent 150 on {IMAGE}" in player.output


def test_a_rate_needs_exactly_one_camera_and_no_clock(start_node):
    for wrong, told in (
        ({"topics": f"['{REGIONS}']"}, "name one camera in topics, not 0"),
        ({"publish_clock": "true"}, "leave out publish_clock"),
    ):
        player = start_node(PLAYER, drive=SAMPLE, frame_rate_hz=10.0, **wrong)
        assert player.wait() == 2
        assert "parameter frame_rate_hz" in player.output
        assert told in player.output


def test_what_the_node_publishes_of_too_many_frames_is_what_the_monitor_hears(
    classifier, monitor, send, listener
):
    rig = classifier(
        f"~/input/image:={IMAGE.removesuffix('/compressed')}",
        f"~/input/regions:={REGIONS}",
        regions="topic",
        image_transport="compressed",
        image_depth=1,
        engine="onnxruntime",
    )
    process = monitor(f"{rig.name}/output/detections", "detections")
    listener.wait_until(lambda: process.heard == ["ready\n"], "the classifier", rig.process)
    _, sent = send(rate_hz=2000.0, count=400)
    accounts = rig.wait_accounts()
    listener.wait_until(lambda: len(process.heard) - 1 == accounts["published"], "the last answers")
    answered = {int(line.split()[0]) for line in process.heard[1:]}
    assert len(sent) == 400
    assert answered < set(sent)  # some were lost
    assert len(answered) == accounts["published"]
