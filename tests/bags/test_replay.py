"""Replay: frames find their regions, end exactly once, and equal input gives equal outcomes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import NamedTuple

import pytest
from colour_drives import (
    BOX,
    REGIONS,
    START_NS,
    STEP_NS,
    TOPIC,
    TRUTH,
    MeanColourEngine,
    image,
    jpeg,
    regions,
    run,
    stamps,
    told,
    write_drive,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from qpde_perception.bags import BagError, open_drive, pairing
from qpde_perception.bags.cameras import Camera, cameras_of
from qpde_perception.bags.pairing import MAX_UNCLAIMED, WAIT_NS
from qpde_perception.bags.replay import Dropped, Truth
from qpde_perception.monitoring import Accounting, DropReason


@pytest.mark.parametrize("delay_ns", [-2 * STEP_NS, -1, 0, 1, STEP_NS, WAIT_NS])
def test_regions_find_their_frame_whether_recorded_before_or_after_it(tmp_path, delay_ns):
    messages = []
    for index in range(6):
        stamp = START_NS + index * STEP_NS
        messages.append((TOPIC, image(stamp, jpeg()), stamp))
        messages.append((REGIONS, regions(stamp), stamp + delay_ns))
    drive = write_drive(tmp_path / "drive.mcap", sorted(messages, key=lambda message: message[2]))
    outcomes = run(drive)
    assert stamps(outcomes) == [START_NS + index * STEP_NS for index in range(6)]
    assert [len(outcome.perception.regions) for outcome in outcomes] == [1] * 6
    assert outcomes[0].perception.regions[0].box == BOX
    assert outcomes[0].perception.regions[0].label == "red"


def test_regions_of_another_stamp_are_never_used(tmp_path):
    drive = write_drive(
        tmp_path / "drive.mcap",
        [(TOPIC, image(START_NS, jpeg()), START_NS), (REGIONS, regions(START_NS + 1), START_NS)],
    )
    (outcome,) = run(drive)
    assert outcome.perception.regions == ()


def test_regions_that_come_too_late_do_not_hold_the_frames_up(tmp_path):
    late = START_NS + 2 * WAIT_NS
    times = [START_NS + index * STEP_NS for index in range(12)]
    messages = [(TOPIC, image(time, jpeg()), time) for time in times]
    messages.insert(11, (REGIONS, regions(START_NS), late))
    outcomes = run(write_drive(tmp_path / "drive.mcap", messages))
    assert stamps(outcomes) == times
    assert not any(outcome.perception.regions for outcome in outcomes)


def test_thousands_of_regions_without_a_frame_are_forgotten_but_frames_still_find_theirs(tmp_path):
    count = MAX_UNCLAIMED + 50
    messages = [(REGIONS, regions(START_NS + index), START_NS) for index in range(count)]
    messages += [(TOPIC, image(START_NS + index, jpeg()), START_NS + 1) for index in (0, count - 1)]
    first, last = run(write_drive(tmp_path / "drive.mcap", messages))
    assert len(first.perception.regions) == 0
    assert len(last.perception.regions) == 1


def test_without_a_region_topic_whole_frames_are_classified(tmp_path):
    drive = write_drive(
        tmp_path / "drive.mcap", [(TOPIC, image(START_NS, jpeg((255, 0, 0))), START_NS)]
    )
    (outcome,) = run(drive)
    assert [(region.box, region.label) for region in outcome.perception.regions] == [(None, "blue")]


def test_regions_none_classifies_whole_frames_of_a_drive_that_has_regions(tmp_path):
    messages = [(TOPIC, image(START_NS, jpeg()), START_NS), (REGIONS, regions(START_NS), START_NS)]
    (outcome,) = run(write_drive(tmp_path / "drive.mcap", messages), regions="none")
    assert outcome.perception.regions[0].box is None


def test_truncated_jpeg_is_dropped_as_malformed_and_the_replay_goes_on(tmp_path):
    good = jpeg()
    pictures = [good, good[: len(good) // 2], b"", b"no image at all", good]
    messages = [
        (TOPIC, image(START_NS + index, data), START_NS + index)
        for index, data in enumerate(pictures)
    ]
    accounting = Accounting()
    outcomes = run(write_drive(tmp_path / "drive.mcap", messages), accounting=accounting)
    assert [isinstance(outcome, Dropped) for outcome in outcomes] == [
        False,
        True,
        True,
        True,
        False,
    ]
    assert {outcome.reason for outcome in outcomes[1:4]} == {DropReason.MALFORMED}
    assert all(outcome.fault for outcome in outcomes[1:4])
    totals = accounting.totals
    assert (totals.received, totals.published, totals.dropped) == (5, 2, {DropReason.MALFORMED: 3})


def test_an_engine_that_fails_on_one_frame_costs_that_frame(tmp_path):
    colours = [(0, 0, 255), (255, 0, 0), (0, 0, 255)]
    messages = [
        (TOPIC, image(START_NS + index, jpeg(colour)), START_NS + index)
        for index, colour in enumerate(colours)
    ]
    accounting = Accounting()
    drive = write_drive(tmp_path / "drive.mcap", messages)
    outcomes = run(drive, engine=MeanColourEngine(refused=2), accounting=accounting)
    assert [isinstance(outcome, Dropped) for outcome in outcomes] == [False, True, False]
    assert accounting.totals.dropped == {DropReason.ENGINE_DOWN: 1}


def test_truth_comes_out_with_its_camera_and_classes(tmp_path):
    messages = [
        (TRUTH, regions(START_NS, [2]), START_NS),
        (TOPIC, image(START_NS, jpeg()), START_NS),
        (REGIONS, regions(START_NS), START_NS),
    ]
    truth, published = run(write_drive(tmp_path / "drive.mcap", messages))
    assert isinstance(truth, Truth)
    assert (truth.stamp_ns, truth.labels.class_indices) == (START_NS, (2,))
    assert truth.camera == published.camera
    assert tuple(truth.labels.regions.boxes[0].tolist()) == published.perception.regions[0].box


def test_stopping_ends_with_every_frame_read_accounted_for(tmp_path):
    messages = [(TOPIC, image(START_NS + index, jpeg()), START_NS + index) for index in range(50)]
    # A region topic without a partner makes every frame wait.
    messages.append((REGIONS, regions(0), START_NS + 50))
    accounting = Accounting()
    asked = iter([False] * 9 + [True] * 99)
    drive = write_drive(tmp_path / "drive.mcap", messages)
    outcomes = run(drive, accounting=accounting, stopped=lambda: next(asked))
    assert len(outcomes) == accounting.totals.received == 10
    assert accounting.balanced


def test_several_cameras_keep_their_own_regions_and_the_recorded_order(tmp_path):
    messages = []
    for index in range(5):
        stamp = START_NS + index * STEP_NS
        for side, colour in (("left", (0, 0, 255)), ("right", (255, 0, 0))):
            messages.append((f"/camera/{side}/image/compressed", image(stamp, jpeg(colour)), stamp))
            messages.append((f"/camera/{side}/regions", regions(stamp), stamp))
    outcomes = run(write_drive(tmp_path / "drive.mcap", messages))
    assert len(outcomes) == 10
    assert stamps(outcomes) == sorted(stamps(outcomes))
    for outcome in outcomes:
        side = outcome.camera.namespace.rsplit("/", 1)[1]
        expected = {"left": "red", "right": "blue"}[side]
        assert [region.label for region in outcome.perception.regions] == [expected]


@given(
    events=st.lists(
        st.tuples(
            st.sampled_from(["good", "cut", "empty"]),
            st.sampled_from(["none", "before", "after", "late"]),
            st.integers(0, 300_000_000),
        ),
        max_size=25,
    )
)
@settings(max_examples=25, deadline=None)
def test_received_is_published_and_dropped_and_equal_input_gives_equal_outcomes(
    tmp_path_factory, events
):
    delays = {"before": -1, "after": STEP_NS, "late": 3 * WAIT_NS}
    pictures = {"good": jpeg(), "cut": jpeg()[:200], "empty": b""}
    messages = [(REGIONS, regions(0), START_NS - 10), (TOPIC, image(0, b""), START_NS - 10)]
    time = START_NS
    for kind, when, gap in events:
        messages.append((TOPIC, image(time, pictures[kind]), time))
        if when in delays:
            messages.append((REGIONS, regions(time), time + delays[when]))
        time += gap + 1
    messages.sort(key=lambda message: message[2])
    drive = write_drive(tmp_path_factory.mktemp("drive") / "drive.mcap", messages)
    accounting = Accounting()
    outcomes = run(drive, accounting=accounting)
    assert accounting.balanced
    assert accounting.totals.received == len(events) + 1 == len(outcomes)
    assert [told(outcome) for outcome in outcomes] == [told(outcome) for outcome in run(drive)]


@pytest.mark.parametrize(
    ("topic", "namespace"),
    [
        ("/camera/front/image/compressed", "/camera/front"),
        ("/camera/front/image_raw", "/camera/front"),
        ("/camera/front/image_rect_color/compressed", "/camera/front"),
        ("/front_camera", "/front_camera"),
        ("/front_camera/compressed", "/front_camera"),
        ("/image", ""),
    ],
)
def test_the_namespace_of_a_camera_is_its_topic_without_the_image(tmp_path, topic, namespace):
    path = write_drive(tmp_path / "drive.mcap", [(topic, image(START_NS, jpeg()), START_NS)])
    with open_drive(path) as drive:
        assert cameras_of(drive.topics) == (Camera(topic, namespace, None, None),)


def test_two_topics_of_one_namespace_do_not_share_their_results(tmp_path):
    names = ["/camera/image/compressed", "/camera/image_rect/compressed"]
    messages = [(name, image(START_NS, jpeg()), START_NS) for name in names]
    messages.append(("/camera/regions", regions(START_NS), START_NS))
    path = write_drive(tmp_path / "drive.mcap", messages)
    with open_drive(path) as drive:
        cameras = cameras_of(drive.topics)
    assert len({camera.namespace for camera in cameras}) == 2
    assert [len(outcome.perception.regions) for outcome in run(path)] == [1, 1]


@pytest.mark.parametrize(
    "options",
    [
        {"wanted": ["/camera/rear/image"]},
        {"wanted": [REGIONS]},
        {"regions": "/nowhere"},
        {"regions": TOPIC},
    ],
)
def test_a_topic_that_does_not_fit_is_refused_with_the_topics_that_exist(tmp_path, options):
    messages = [(TOPIC, image(START_NS, jpeg()), START_NS), (REGIONS, regions(START_NS), START_NS)]
    path = write_drive(tmp_path / "drive.mcap", messages)
    with open_drive(path) as drive, pytest.raises(BagError) as caught:
        cameras_of(drive.topics, **options)
    assert TOPIC in str(caught.value)
    assert REGIONS in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_drive_without_a_camera_is_refused(tmp_path):
    path = write_drive(tmp_path / "drive.mcap", [(REGIONS, regions(START_NS), START_NS)])
    with open_drive(path) as drive, pytest.raises(BagError, match="no camera topic"):
        cameras_of(drive.topics)


class Sent(NamedTuple):
    topic: str
    log_time_ns: int
    data: bytes


def test_the_same_frames_give_the_same_outcomes_from_every_format(record, tmp_path):
    colours = [(0, 0, 255), (0, 255, 0), (255, 0, 0)] * 4
    frames = [Sent("/front/image", START_NS + i * STEP_NS, jpeg(c)) for i, c in enumerate(colours)]
    kinds = ["mcap", "mcap-zstd", "rosbag1-none", "rosbag1-bz2", "sqlite3", "mcapfolder-file"]
    told_by_kind = [
        [told(outcome) for outcome in run(record(tmp_path / kind, kind, frames))] for kind in kinds
    ]
    assert len(told_by_kind[0]) == len(frames)
    assert all(outcomes == told_by_kind[0] for outcomes in told_by_kind)


def test_frames_that_wait_for_regions_take_bounded_memory(monkeypatch):
    monkeypatch.setattr(pairing, "MAX_WAITING_BYTES", 1000)
    camera = Camera(TOPIC, "/camera/front", REGIONS, None)
    waiting, left = pairing.Pairing(), []
    for index in range(50):
        recorded = SimpleNamespace(raw=bytes(100), log_time_ns=START_NS)
        waiting.add_frame(camera, recorded, START_NS + index)
        left += [paired.stamp_ns for paired in waiting.ready(START_NS)]
    assert left == [START_NS + index for index in range(40)]
