"""The classifier's topics and results: real nodes in processes of their own."""

import time
from pathlib import Path

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed (the extra `ros`)")
pytest.importorskip("vision_msgs.msg", reason="vision_msgs is not installed (the extra `ros`)")

from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy  # noqa: E402
from rclpy.serialization import deserialize_message  # noqa: E402
from sensor_msgs.msg import CompressedImage, Image  # noqa: E402
from std_msgs.msg import Float64  # noqa: E402
from vision_msgs.msg import (  # noqa: E402
    Classification,
    Detection2DArray,
    LabelInfo,
    VisionInfo,
)

from qpde_perception.bags import open_drive  # noqa: E402
from qpde_perception.bags.cameras import cameras_of  # noqa: E402
from qpde_perception.bags.replay import Published, replay  # noqa: E402
from qpde_perception.engines import open_engine  # noqa: E402
from qpde_perception.monitoring import Accounting  # noqa: E402
from qpde_perception.perception import Classifier, ExponentialFilter  # noqa: E402

SAMPLE = Path(__file__).parents[2] / "samples" / "traffic_signs.mcap"
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
STAMP_NS = 1_600_000_000_123_456_789
KINDS = {
    "sensor_msgs/msg/CompressedImage": CompressedImage,
    "vision_msgs/msg/Detection2DArray": Detection2DArray,
}


@pytest.fixture(scope="module")
def replayed(shipped_bundle):
    """What the replay makes of the sample drive with an exponential filter, frame by frame."""
    engine = open_engine(shipped_bundle, "onnxruntime", threads=1)
    with open_drive(SAMPLE) as drive:
        (camera,) = cameras_of(drive.topics)
        smooth = ExponentialFilter(time_constant_s=0.3, reset_after_s=1.0)
        classifiers = {camera: Classifier(shipped_bundle, engine, smooth)}
        outcomes = list(replay(drive, classifiers, Accounting()))
    engine.close()
    return {each.perception.stamp_ns: each.perception for each in outcomes if isinstance(each, Published)}


@pytest.fixture(scope="module")
def recorded():
    """Images and boxes of the sample drive as messages, in pairs."""
    found = {"sensor_msgs/msg/CompressedImage": [], "vision_msgs/msg/Detection2DArray": []}
    with open_drive(SAMPLE) as drive:
        for each in drive.messages(["/camera/front/image/compressed", "/camera/front/regions"]):
            found[each.type].append(deserialize_message(each.raw, KINDS[each.type]))
    return list(zip(*found.values(), strict=True))


def stamp_of(message):
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def test_a_live_drive_gets_the_results_of_its_replay(classifier, replayed, recorded, shipped_bundle):
    rig = classifier(
        image_transport="compressed",
        regions="topic",
        filter="exponential",
        engine="onnxruntime",
        top_k=3,
    )
    camera = rig.camera(compressed=True)
    before = rig.listener.collect(f"{camera.prefix}output/detections_raw", Detection2DArray, 1000)
    first = recorded[0][0]
    met = camera.meet(first, recorded[0][1])
    assert met["published"] == met["received"] == len(camera.results)
    camera.detections.clear()
    before.clear()
    print(time.time())
    for image, boxes in recorded[1:]:
        camera.answer(image, boxes)
    print(time.time())
    accounts = rig.finish()
    assert accounts["received"] - met["received"] == len(recorded) - 1
    assert accounts["published"] == accounts["received"]
    for result, raw, (image, boxes) in zip(camera.results, [m for _, m in before], recorded[1:], strict=True):
        assert result.header == image.header == raw.header
        expected = replayed[stamp_of(image)].regions
        assert [each.id for each in result.detections] == [each.track_id for each in expected]
        for each, seen, region in zip(result.detections, raw.detections, expected, strict=True):
            assert len(each.results) == 3
            best = each.results[0].hypothesis
            assert (best.class_id, best.score) == (str(region.filtered_class_index), region.filtered_probability)
            assert seen.results[0].hypothesis.class_id == str(region.class_index)
            scores = [one.hypothesis.score for one in seen.results]
            assert scores == sorted(region.probabilities, reverse=True)[:3]
        assert [each.bbox for each in result.detections] == [each.bbox for each in raw.detections]
