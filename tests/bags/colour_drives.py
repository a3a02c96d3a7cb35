"""Drives of plain colours, and an engine that tells colours apart."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from mean_colour import MeanColourEngine, bundle

from qpde_perception.bags import McapWriter, open_drive
from qpde_perception.bags.cameras import cameras_of
from qpde_perception.bags.definitions import typestore
from qpde_perception.bags.messages import detections, header_of
from qpde_perception.bags.replay import Dropped, Published, replay
from qpde_perception.frames import Regions
from qpde_perception.monitoring import Accounting
from qpde_perception.perception import DEFAULT_LIMITS, Classifier, ExponentialFilter

START_NS = 1_600_000_000_000_000_000
STEP_NS = 100_000_000
TOPIC = "/camera/front/image/compressed"
REGIONS = "/camera/front/regions"
TRUTH = "/camera/front/ground_truth"
BOX = (4.0, 4.0, 24.0, 24.0)
COLOURS = {"red": (0, 0, 255), "green": (0, 255, 0), "blue": (255, 0, 0)}
ALONE = replace(DEFAULT_LIMITS, decoders=0)


def classifier(engine=None, observer=None):
    temporal = ExponentialFilter(time_constant_s=0.3, reset_after_s=1.0)
    return Classifier(bundle(), engine or MeanColourEngine(), temporal, observer)


def parts_of(drive, engine, observer=None):
    return {camera: classifier(engine, observer) for camera in cameras_of(drive.topics)}


def jpeg(colour=(0, 0, 255), size=32):
    picture = np.full((size, size, 3), colour, np.uint8)
    return cv2.imencode(".jpg", picture)[1].tobytes()


def image(stamp_ns, data):
    message = typestore().types["sensor_msgs/msg/CompressedImage"]
    header = header_of(stamp_ns, "front")
    return message(header=header, format="jpeg", data=np.frombuffer(data, np.uint8))


def regions(stamp_ns, classes=None):
    boxes = Regions(np.array([BOX], np.float32), ("sign",))
    return detections(stamp_ns, "front", boxes, classes)


def boxes(stamp_ns, count, classes=None):
    found = np.array([(2.0 * n, 2.0, 2.0 * n + 12, 14.0) for n in range(count)], np.float32)
    ids = tuple(f"sign {n}" for n in range(count))
    return detections(stamp_ns, "front", Regions(found.reshape(-1, 4), ids), classes)


def write_drive(path, messages):
    with McapWriter(path) as writer:
        for topic, message, log_time_ns in messages:
            writer.write(topic, message, log_time_ns)
    return path


def red_drive(path, count, *, changes=(), size=32):
    colours = dict(changes)
    messages = []
    for index in range(count):
        data = jpeg(colours.get(index, COLOURS["red"]), size)
        messages.append(
            (TOPIC, image(START_NS + index * STEP_NS, data), START_NS + index * STEP_NS)
        )
    return write_drive(path, messages)


def run(path, *, engine=None, accounting=None, stopped=lambda: False, **options):
    with open_drive(path) as drive:
        cameras = cameras_of(drive.topics, **options)
        parts = {camera: classifier(engine) for camera in cameras}
        accounting = accounting or Accounting()
        return list(replay(drive, parts, accounting, stopped=stopped))


def stamps(outcomes):
    return [
        outcome.perception.stamp_ns if isinstance(outcome, Published) else outcome.stamp_ns
        for outcome in outcomes
    ]


def told(outcome):
    if isinstance(outcome, Dropped):
        return (outcome.stamp_ns, outcome.reason, outcome.fault)
    return (outcome.perception.stamp_ns, outcome.perception.regions)
