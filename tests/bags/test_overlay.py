"""The bag for Foxglove: read back with nothing of ours but the file."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from qpde_perception.bags.cameras import Camera
from qpde_perception.bags.definitions import typestore
from qpde_perception.bags.messages import header_of
from qpde_perception.bags.overlay import PerceptionBag
from qpde_perception.bags.replay import Dropped, Published
from qpde_perception.monitoring import Accounting, DropReason
from qpde_perception.perception import Perception, RegionResult

STAMP_NS = 1_600_000_000_123_456_789
LABELS = ("stop", "yield")
BOX = (10.0, 20.0, 30.0, 60.0)
WITH_REGIONS = Camera("/front/image", "/front", "/front/regions", None)
WHOLE_FRAMES = Camera("/front/image", "/front", None, None)


def region(box):
    return RegionResult(
        box=box,
        track_id="track 7",
        class_index=1,
        label="yield",
        probability=0.972,
        filtered_class_index=1,
        filtered_probability=0.9,
        probabilities=np.array([0.028, 0.972]),
        filtered_probabilities=np.array([0.1, 0.9]),
    )


def recorded(log_time_ns):
    message = typestore().types["sensor_msgs/msg/CompressedImage"](
        header=header_of(STAMP_NS, "front"), format="jpeg", data=np.arange(9, dtype=np.uint8)
    )
    return SimpleNamespace(log_time_ns=log_time_ns, message=message)


def published(camera, *regions, log_time_ns=STAMP_NS):
    perception = Perception(STAMP_NS, "front", regions, {"total": 1.0})
    return Published(camera, recorded(log_time_ns), SimpleNamespace(), perception)


def read(path):
    with AnyReader([path], default_typestore=get_typestore(Stores.EMPTY)) as reader:
        return [
            (link.topic, stamp, reader.deserialize(raw, link.msgtype))
            for link, stamp, raw in reader.messages()
        ]


def write(path, *outcomes, accounting=None):
    with PerceptionBag(path, LABELS, accounting or Accounting()) as bag:
        for outcome in outcomes:
            bag.add(outcome)
    found = {}
    for topic, _, message in read(path):
        found.setdefault(topic, []).append(message)
    return found


def test_a_region_becomes_a_detection_that_joins_with_the_label_info(tmp_path):
    found = write(tmp_path / "p.mcap", published(WITH_REGIONS, region(BOX)))
    (array,) = found["/front/classification"]
    (detection,) = array.detections
    (result,) = detection.results
    (info,) = found["/front/label_info"]
    names = {entry.class_id: entry.class_name for entry in info.class_map}
    assert names[int(result.hypothesis.class_id)] == "yield"
    assert result.hypothesis.score == pytest.approx(0.972)
    assert detection.id == "track 7"
    center, box = detection.bbox.center.position, detection.bbox
    assert (center.x, center.y, box.size_x, box.size_y) == (20.0, 40.0, 20.0, 40.0)


def test_a_whole_frame_becomes_a_classification(tmp_path):
    found = write(tmp_path / "p.mcap", published(WHOLE_FRAMES, region(None)))
    (message,) = found["/front/classification"]
    assert message.__msgtype__ == "vision_msgs/msg/Classification"
    assert [(one.class_id, one.score) for one in message.results] == [("1", 0.972)]


def test_results_carry_stamp_and_frame_of_the_image(tmp_path):
    found = write(tmp_path / "p.mcap", published(WITH_REGIONS, region(BOX)))
    for topic in ("/front/image", "/front/classification", "/front/label_info"):
        header = found[topic][0].header
        assert header.stamp.sec * 10**9 + header.stamp.nanosec == STAMP_NS
        assert header.frame_id == "front"


def test_the_overlay_shows_box_and_label(tmp_path):
    found = write(tmp_path / "p.mcap", published(WITH_REGIONS, region(BOX)))
    (overlay,) = found["/front/annotations"]
    (outline,), (text,) = overlay.points, overlay.texts
    assert outline.type == outline.LINE_LOOP
    corners = [(point.x, point.y) for point in outline.points]
    assert corners == [(10.0, 20.0), (30.0, 20.0), (30.0, 60.0), (10.0, 60.0)]
    assert text.text == "yield 97%"
    for time in (outline.timestamp, text.timestamp):
        assert time.sec * 10**9 + time.nanosec == STAMP_NS


def test_the_overlay_of_a_whole_frame_is_a_label_without_a_box(tmp_path):
    found = write(tmp_path / "p.mcap", published(WHOLE_FRAMES, region(None)))
    (overlay,) = found["/front/annotations"]
    assert (len(overlay.points), len(overlay.texts)) == (0, 1)


def test_a_dropped_frame_is_there_as_recorded_without_a_result(tmp_path):
    accounting = Accounting()
    accounting.received("/front/image")
    accounting.dropped("/front/image", DropReason.MALFORMED)
    dropped = Dropped(WITH_REGIONS, recorded(STAMP_NS), STAMP_NS, DropReason.MALFORMED, "cut")
    found = write(tmp_path / "p.mcap", dropped, accounting=accounting)
    assert found.keys() == {"/front/image", "/diagnostics"}
    (status,) = found["/diagnostics"][0].status
    assert status.level == status.WARN
    assert {one.key: one.value for one in status.values} == {
        "received": "1",
        "published": "0",
        "dropped_malformed": "1",
    }


def test_diagnostics_come_once_a_second_of_the_drive(tmp_path):
    times = [STAMP_NS + step * 250_000_000 for step in range(9)]
    outcomes = [published(WHOLE_FRAMES, region(None), log_time_ns=time) for time in times]
    found = write(tmp_path / "p.mcap", *outcomes)
    assert len(found["/diagnostics"]) == 3
    assert len(found["/front/label_info"]) == 1


def test_the_bag_is_readable_when_the_replay_fails_in_the_middle(tmp_path):
    def fail():
        with PerceptionBag(tmp_path / "p.mcap", LABELS, Accounting()) as bag:
            bag.add(published(WITH_REGIONS, region(BOX)))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert "/front/classification" in {topic for topic, *_ in read(tmp_path / "p.mcap")}
