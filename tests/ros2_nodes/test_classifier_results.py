"""The classifier's topics and results: real nodes in processes of their own."""

import copy
import time
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed (the extra `ros`)")
pytest.importorskip("vision_msgs.msg", reason="vision_msgs is not installed (the extra `ros`)")

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
from qpde_perception.bags.messages import frame_in  # noqa: E402
from qpde_perception.bags.replay import Published, replay  # noqa: E402
from qpde_perception.engines import open_engine  # noqa: E402
from qpde_perception.frames import Regions  # noqa: E402
from qpde_perception.monitoring import Accounting  # noqa: E402
from qpde_perception.perception import (  # noqa: E402
    Classifier,
    ExponentialFilter,
    HysteresisFilter,
    NoFilter,
)

SAMPLE = Path(__file__).parents[2] / "samples" / "traffic_signs.mcap"
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
STAMP_NS = 1_600_000_000_123_456_789
CORE = {"engine": "onnxruntime", "threads": 1}
PIXELS = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
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
    return {
        each.perception.stamp_ns: each.perception
        for each in outcomes
        if isinstance(each, Published)
    }


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


def test_a_live_drive_gets_the_results_of_its_replay(classifier, replayed, recorded):
    rig = classifier(
        image_transport="compressed", regions="topic", filter="exponential", top_k=3, **CORE
    )
    camera = rig.camera(compressed=True)
    raw = rig.listener.collect(f"{camera.prefix}output/detections_raw", Detection2DArray, 1000)
    met = camera.meet(*recorded[0])
    camera.detections.clear()
    raw.clear()
    for image, boxes in recorded:
        camera.answer(image, boxes)
    accounts = rig.finish()
    for name in ("received", "published"):
        assert accounts[name] - met[name] == len(recorded)
    seen = [message for _, message in raw]
    for result, before, (image, _) in zip(camera.results, seen, recorded, strict=True):
        assert result.header == before.header == image.header
        assert_alike(result, before, replayed[stamp_of(image)].regions, top_k=3)


def test_every_topic_has_its_type_and_quality_and_the_labels_join(
    classifier, listener, messages, shipped_bundle
):
    rig = classifier(**CORE)
    camera = rig.camera()
    overlays = listener.collect(f"{camera.prefix}output/annotations", Image, 10)
    raw = listener.collect(f"{camera.prefix}output/classification_raw", Classification, 10)
    names = [
        *("processing_time", "cyclic_time", "pipeline_latency"),
        *(f"processing_time/{stage}" for stage in ("preprocess", "inference", "postprocess")),
    ]
    times = {
        name: listener.collect(f"{camera.prefix}debug/{name}_ms", Float64, 100) for name in names
    }
    camera.meet(messages.raw(PIXELS, STAMP_NS))
    asked = time.monotonic_ns()
    now_ns = listener.node.get_clock().now().nanoseconds
    result = camera.answer(messages.raw(PIXELS, now_ns - 10**9, "front/camera"))
    assert (stamp_of(result), result.header.frame_id) == (now_ns - 10**9, "front/camera")

    own = ("/parameter_events", "/rosout", f"{rig.name}/transition_event")
    offered = listener.node.get_publisher_names_and_types_by_node("classifier", rig.space)
    wanted = {
        "/diagnostics": "diagnostic_msgs/msg/DiagnosticArray",
        f"{rig.name}/label_info": "vision_msgs/msg/LabelInfo",
        f"{rig.name}/vision_info": "vision_msgs/msg/VisionInfo",
        f"{rig.name}/output/classification": "vision_msgs/msg/Classification",
        f"{rig.name}/output/classification_raw": "vision_msgs/msg/Classification",
        f"{rig.name}/output/annotations": "sensor_msgs/msg/Image",
        **{f"{rig.name}/debug/{name}_ms": "std_msgs/msg/Float64" for name in names},
        **{
            f"{rig.name}/debug/drift/{name}": "std_msgs/msg/Float64"
            for name in ("noise_ratio", "disagreement", "saturation", "evidence")
        },
    }
    assert {name: kind for name, (kind,) in offered if name not in own} == wanted
    taken = listener.node.get_subscriber_names_and_types_by_node("classifier", rig.space)
    assert [each for each in taken if each[0] != "/parameter_events"] == [
        (camera.topic, ["sensor_msgs/msg/Image"])
    ]
    for topic in set(wanted) - {"/diagnostics"}:
        (info,) = listener.node.get_publishers_info_by_topic(topic)
        latched = topic.endswith("_info")
        assert info.qos_profile.reliability == ReliabilityPolicy.RELIABLE
        assert (info.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL) == latched
    (info,) = listener.node.get_subscriptions_info_by_topic(camera.topic)
    assert info.qos_profile.reliability == ReliabilityPolicy.RELIABLE

    labels = listener.collect(f"{rig.name}/label_info", LabelInfo, LATCHED)
    methods = listener.collect(f"{rig.name}/vision_info", VisionInfo, LATCHED)
    listener.wait_until(lambda: labels and methods, "the latched messages")
    manifest = shipped_bundle.manifest
    (_, info), (_, method) = labels[0], methods[0]
    assert [(each.class_id, each.class_name) for each in info.class_map] == list(
        enumerate(manifest.labels)
    )
    assert {each.class_id for each in result.results} < {
        str(each.class_id) for each in info.class_map
    }
    node, _, parameter = method.database_location.rpartition("/")
    assert node == rig.name
    refused = rig.set(parameter, ["other", "names"])
    assert "cannot be set" in refused
    assert rig.get(parameter) == list(manifest.labels)
    assert method.method == manifest.network

    listener.wait_until(
        lambda: overlays and all(times.values()), "what is only made when asked for"
    )
    overlay = overlays[-1][1]
    assert (overlay.height, overlay.width, overlay.encoding) == (*PIXELS.shape[:2], "bgr8")
    assert overlay.header.frame_id in ("front", "front/camera")
    assert [each.class_id for each in raw[-1][1].results] == [
        each.class_id for each in result.results
    ]
    listener.wait_until(lambda: times["pipeline_latency"][-1][1].data < 1e4, "the last latency")
    came, latency = times["pipeline_latency"][-1]
    took_ms = (came - asked) / 1e6
    assert 1000 < latency.data < 1000 + took_ms
    parts = sum(
        times[f"processing_time/{name}"][-1][1].data
        for name in ("preprocess", "inference", "postprocess")
    )
    assert 0 < parts <= times["processing_time"][-1][1].data < took_ms
    rig.finish()


BOXES = ((4.0, 4.0, 40.0, 40.0), (30.0, 10.0, 90.0, 70.0))
CASES = {
    "whole frame, one class": ({"top_k": 1}, ["bgr8"], None),
    "whole frame, hysteresis": ({"filter": "hysteresis", "filter_hold_s": 0.25}, ["rgb8"], None),
    "fixed regions, a threshold": (
        {
            "regions": "fixed",
            "fixed_regions": [side for box in BOXES for side in box],
            "filter": "exponential",
            "confidence_threshold": 0.05,
        },
        ["bgr8"],
        BOXES,
    ),
    "regions within the slop": (
        {"regions": "topic", "regions_slop_ms": 20.0, "top_k": 2},
        ["mono8"],
        BOXES,
    ),
    "two cameras": (
        {"cameras": ["left", "right"], "filter": "exponential"},
        ["bgr8", "rgb8"],
        None,
    ),
}


def test_every_way_of_settings_gives_what_the_core_gives(classifier, messages, shipped_bundle):
    rig = classifier(autostart="false", **CORE)
    engine = open_engine(shipped_bundle, "onnxruntime", threads=1)
    for case, (settings, encodings, boxes) in CASES.items():
        defaults = {
            "cameras": ["camera"],
            "regions": "whole_frame",
            "filter": "none",
            "top_k": 5,
            "confidence_threshold": 0.0,
        }
        for name, value in {**defaults, **settings}.items():
            assert rig.set(name, value) == ""
        assert rig.change("configure"), rig.process.output
        assert rig.change("activate")
        names = settings.get("cameras", [""])
        cameras = [rig.camera(name) for name in names]
        smooth = {
            "exponential": ExponentialFilter(time_constant_s=0.3, reset_after_s=1.0),
            "hysteresis": HysteresisFilter(hold_s=0.25, reset_after_s=1.0),
        }
        classifiers = [
            Classifier(
                shipped_bundle,
                engine,
                copy.deepcopy(smooth.get(settings.get("filter"), NoFilter())),
            )
            for _ in cameras
        ]
        topic = settings.get("regions") == "topic"
        for camera, encoding in zip(cameras, encodings, strict=True):
            image = messages.raw(pixels_of(0, encoding), STAMP_NS, encoding=encoding)
            met = camera.meet(image, messages.boxes(BOXES, STAMP_NS) if topic else None)[
                "published"
            ]
        regions = boxes and Regions(np.array(boxes, np.float32), ("0", "1"))
        for number in range(1, 6):
            # Far from the frames before: every filter starts anew.
            stamp_ns = STAMP_NS + 10**10 + number * 10**8
            for camera, encoding, one in zip(cameras, encodings, classifiers, strict=True):
                image = messages.raw(pixels_of(number // 3, encoding), stamp_ns, encoding=encoding)
                late = messages.boxes(BOXES, stamp_ns + 10**7) if topic else None
                result = camera.answer(image, late)
                expected = one.classify(frame_in(image, compressed=False), regions)
                assert result.header == image.header, case
                assert_alike(
                    result,
                    None,
                    expected.regions,
                    top_k=settings.get("top_k", 5),
                    threshold=settings.get("confidence_threshold", 0.0),
                )
        accounts = rig.finish()
        assert accounts["published"] - met == 5 * len(cameras), (case, accounts)
        assert rig.change("cleanup")
    engine.close()


def pixels_of(number, encoding):
    """A picture of a sign-like disc, of one of two colours."""
    pixels = np.full((96, 128, 3), 90, np.uint8)
    cv2.circle(pixels, (50, 40), 30, ((40, 40, 200), (200, 60, 40))[number], -1)
    cv2.circle(pixels, (50, 40), 20, (240, 240, 240), -1)
    return pixels[..., 0] if encoding == "mono8" else pixels


def assert_alike(result, before, expected, *, top_k, threshold=0.0):
    """Hold a result, and what was before the filter, against regions of a replay."""
    if isinstance(result, Classification):
        (region,) = expected
        assert_classes(result.results, region, top_k, threshold)
        return
    assert [each.id for each in result.detections] == [each.track_id for each in expected]
    for index, (each, region) in enumerate(zip(result.detections, expected, strict=True)):
        hypotheses = [one.hypothesis for one in each.results]
        assert_classes(hypotheses, region, top_k, threshold)
        center, size = each.bbox.center.position, (each.bbox.size_x, each.bbox.size_y)
        x_min, y_min, x_max, y_max = region.box
        assert (center.x, center.y) == ((x_min + x_max) / 2, (y_min + y_max) / 2)
        assert size == (x_max - x_min, y_max - y_min)
        if before is not None:
            unfiltered = before.detections[index]
            assert unfiltered.bbox == each.bbox
            best = unfiltered.results[0].hypothesis
            assert (best.class_id, best.score) == (str(region.class_index), region.probability)


def assert_classes(hypotheses, region, top_k, threshold):
    scores = region.filtered_probabilities
    chosen = region.filtered_class_index
    order = [chosen, *(index for index in np.argsort(-scores, kind="stable") if index != chosen)]
    assert [(each.class_id, each.score) for each in hypotheses] == [
        (str(index), scores[index]) for index in order[:top_k] if scores[index] >= threshold
    ]


@pytest.mark.parametrize("encoding", ["bgr8", "rgb8", "mono8"])
def test_a_raw_image_is_not_copied_on_its_way_to_the_network(messages, shipped_bundle, encoding):
    pixels = np.zeros((720, 1280) if encoding == "mono8" else (720, 1280, 3), np.uint8)
    image = messages.raw(pixels, STAMP_NS, encoding=encoding)
    engine = open_engine(shipped_bundle, "onnxruntime", threads=1)
    classifier = Classifier(shipped_bundle, engine, NoFilter())
    classifier.classify(frame_in(image, compressed=False))
    tracemalloc.start()
    try:
        classifier.classify(frame_in(image, compressed=False))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        engine.close()
    assert peak < pixels.nbytes / 8
