"""Replay ahead: whatever the batches and threads, the outcomes are those of one frame at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from colour_drives import (
    ALONE,
    COLOURS,
    REGIONS,
    START_NS,
    STEP_NS,
    TOPIC,
    TRUTH,
    MeanColourEngine,
    boxes,
    image,
    jpeg,
    parts_of,
    red_drive,
    told,
    write_drive,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from qpde_perception.bags import BagError, open_drive
from qpde_perception.bags.cameras import cameras_of
from qpde_perception.bags.drift import DriveWatch
from qpde_perception.bags.messages import camera_frame, regions_of, stamp_of
from qpde_perception.bags.overlay import PerceptionBag
from qpde_perception.bags.pairing import WAIT_NS, Pairing
from qpde_perception.bags.replay import Dropped, Published, Truth, replay
from qpde_perception.bags.results import ResultFiles
from qpde_perception.bundles import find_model, load_bundle
from qpde_perception.engines import CPU_ENGINES, EngineError, open_engine
from qpde_perception.frames import FrameError
from qpde_perception.monitoring import Accounting, DropReason
from qpde_perception.perception import (
    DEFAULT_LIMITS,
    Classifier,
    ExponentialFilter,
    Limits,
)

SAMPLE = Path(__file__).resolve().parents[2] / "samples" / "traffic_signs.mcap"
SIDE = "/camera/side/image/compressed"
SIDE_REGIONS = "/camera/side/regions"

LIMITS = st.builds(
    Limits,
    frames=st.integers(1, 40),
    size_bytes=st.sampled_from([1, 2_000, 2**27]),
    batch=st.integers(1, 9),
    decoders=st.integers(1, 3),
)


def one_at_a_time(drive, classifiers, accounting):
    """Classify frame after frame: what the pipeline must equal."""
    pairing = Pairing()
    topics = {
        topic
        for each in classifiers
        for topic in (each.topic, each.regions_topic, each.truth_topic)
        if topic
    }

    def outcome(paired):
        camera, recorded = paired.camera, paired.recorded
        try:
            frame = camera_frame(recorded)
            found = classifiers[camera].classify(frame, paired.regions)
        except (FrameError, EngineError) as error:
            reason = DropReason.MALFORMED
            if isinstance(error, EngineError):
                reason = DropReason.ENGINE_DOWN
            accounting.dropped(camera.topic, reason)
            return Dropped(camera, recorded, paired.stamp_ns, reason, str(error))
        accounting.published(camera.topic)
        return Published(camera, recorded, frame, found)

    for recorded in drive.messages(topics):
        for camera in classifiers:
            if recorded.topic == camera.topic:
                accounting.received(camera.topic)
                pairing.add_frame(camera, recorded, stamp_of(recorded.message))
            if recorded.topic == camera.regions_topic:
                pairing.add_regions(camera, *regions_of(recorded))
        for paired in pairing.ready(recorded.log_time_ns):
            yield outcome(paired)
    for paired in pairing.rest():
        yield outcome(paired)


def course(outcomes, accounting):
    """Return each outcome with the counts at its time."""
    return [
        (each.camera.topic, told(each), accounting.topics)
        for each in outcomes
        if not isinstance(each, Truth)
    ]


@given(
    events=st.lists(
        st.tuples(
            st.sampled_from([TOPIC, SIDE]),
            st.sampled_from(["red", "green", "blue", "cut", "empty"]),
            st.integers(0, 4),
            st.sampled_from([None, -1, STEP_NS, 3 * WAIT_NS]),
            st.integers(0, 300_000_000),
        ),
        max_size=40,
    ),
    refused=st.sampled_from([None, 2]),
    limits=LIMITS,
)
@settings(max_examples=60, deadline=None)
def test_outcomes_and_counts_are_those_of_one_frame_at_a_time(
    tmp_path_factory, events, refused, limits
):
    pictures = {name: jpeg(colour) for name, colour in COLOURS.items()}
    pictures |= {"cut": jpeg()[:200], "empty": b""}
    messages = [(topic, image(0, b""), START_NS - 10) for topic in (TOPIC, SIDE)]
    messages += [(topic, boxes(0, 1), START_NS - 10) for topic in (REGIONS, SIDE_REGIONS)]
    time_ns = START_NS
    for topic, kind, count, delay_ns, gap_ns in events:
        messages.append((topic, image(time_ns, pictures[kind]), time_ns))
        if delay_ns is not None:
            where = REGIONS if topic == TOPIC else SIDE_REGIONS
            messages.append((where, boxes(time_ns, count), time_ns + delay_ns))
        time_ns += gap_ns + 1
    messages.sort(key=lambda message: message[2])
    path = write_drive(tmp_path_factory.mktemp("drive") / "drive.mcap", messages)
    seen, expected_seen = [], []

    with open_drive(path) as drive:
        accounting = Accounting()
        parts = parts_of(
            drive, MeanColourEngine(refused), lambda batch, _: expected_seen.append(batch.tolist())
        )
        expected = course(one_at_a_time(drive, parts, accounting), accounting)
    with open_drive(path) as drive:
        accounting = Accounting()
        engine = MeanColourEngine(refused)
        parts = parts_of(drive, engine, lambda batch, _: seen.append(batch.tolist()))
        assert course(replay(drive, parts, accounting, limits=limits), accounting) == expected
    assert seen == expected_seen
    assert max(map(len, engine.batches), default=0) <= max(limits.batch, 4)
    assert accounting.balanced
    assert accounting.totals.received == len(expected) == len(events) + 2


def damaged_sample(path):
    """Write the sample, every tenth frame cut off."""
    with open_drive(SAMPLE) as drive:
        messages = list(drive.messages([topic.name for topic in drive.topics]))
    frames = 0
    for index, each in enumerate(messages):
        if each.topic == TOPIC:
            frames += 1
            if frames % 10 == 0:
                message = replace(each.message, data=each.message.data[:5000])
                messages[index] = replace(each, message=message)
    sent = [(each.topic, each.message, each.log_time_ns) for each in messages]
    return write_drive(path, sent)


def written(path, out, engine_name, limits):
    """Return what a replay writes, but for the times."""
    out.mkdir()
    model = load_bundle(find_model(None))
    engine = open_engine(model, engine_name)
    watch, accounting = DriveWatch(model, share=0.1), Accounting()
    with open_drive(path) as drive:
        temporal = {"time_constant_s": 0.3, "reset_after_s": 1.0}
        parts = {
            camera: Classifier(model, engine, ExponentialFilter(**temporal), watch.observe)
            for camera in cameras_of(drive.topics)
        }
        (some,) = parts.values()
        watch.begin(some)
        labels = model.manifest.labels
        bag = PerceptionBag(out / "bag.mcap", labels, accounting, lambda: [watch.task()])
        with ResultFiles(out) as files, bag:
            for outcome in replay(drive, parts, accounting, limits=limits):
                if not isinstance(outcome, Truth):
                    watch.after(outcome, some)
                    files.add(outcome)
                    bag.add(outcome)
            watch.end(some)
            bag.end()
    engine.close()
    names = ("results.jsonl", "dropped.jsonl", "bag.mcap")
    return [(out / name).read_bytes() for name in names], watch.document()


def test_files_and_drift_of_the_sample_are_the_same_for_every_engine_batch_and_thread(tmp_path):
    path = damaged_sample(tmp_path / "drive.mcap")
    first, *others = [
        written(path, tmp_path / f"{engine}{frames}", engine, Limits(frames, 2**27, batch, threads))
        for engine in CPU_ENGINES
        for frames, batch, threads in (
            (6, 1, 1),
            (61, 8, 3),
            (256, DEFAULT_LIMITS.batch, 2),
            (40, 8, 0),
        )
    ]
    assert first[0][0].count(b"\n") == 124
    assert first[0][1].count(b"\n") == 13
    assert first[1]["sampled"] > 5
    assert all(other[0][:2] == first[0][:2] for other in others)
    # How far the engines are from the float reference is said in the bag, and depends on the bits.
    assert [other for other in others if other != first] == []


@pytest.mark.parametrize("limits", [DEFAULT_LIMITS, ALONE], ids=["threads", "alone"])
def test_frames_are_inferred_together_and_no_batch_is_larger_than_wanted(tmp_path, limits):
    engine = MeanColourEngine()
    with open_drive(red_drive(tmp_path / "drive.mcap", 100)) as drive:
        parts = parts_of(drive, engine)
        list(replay(drive, parts, Accounting(), limits=replace(limits, batch=16)))
    assert list(map(len, engine.batches)) == [16, 16, 16, 16, 16, 16, 4]


@pytest.mark.parametrize("limits", [DEFAULT_LIMITS, ALONE], ids=["threads", "alone"])
def test_of_a_batch_only_the_frame_that_the_engine_fails_on_is_lost(tmp_path, limits):
    path = red_drive(tmp_path / "drive.mcap", 32, changes=[(7, COLOURS["blue"])])
    engine = MeanColourEngine(refused=2)
    with open_drive(path) as drive:
        outcomes = list(replay(drive, parts_of(drive, engine), Accounting(), limits=limits))
    lost = [index for index, each in enumerate(outcomes) if isinstance(each, Dropped)]
    assert lost == [7]
    assert outcomes[7].reason is DropReason.ENGINE_DOWN
    assert outcomes[7].fault == "mean-colour: a colour that it does not like"
    assert list(map(len, engine.batches)) == [32] + [1] * 32


@pytest.mark.parametrize("limits", [DEFAULT_LIMITS, ALONE], ids=["threads", "alone"])
def test_what_nobody_expected_of_an_engine_is_raised_after_the_frames_before(tmp_path, limits):
    path = red_drive(tmp_path / "drive.mcap", 50, changes=[(20, COLOURS["blue"])])
    engine = MeanColourEngine(refused=2, error=ZeroDivisionError)
    with open_drive(path) as drive:
        accounting = Accounting()
        outcomes = replay(drive, parts_of(drive, engine), accounting, limits=limits)
        seen = [next(outcomes) for _ in range(20)]
        with pytest.raises(ZeroDivisionError):
            next(outcomes)
    assert accounting.totals.published == len(seen)


def test_what_reading_raises_comes_after_the_frames_before(tmp_path):
    messages = [(TOPIC, image(START_NS + index, jpeg()), START_NS + index) for index in range(30)]
    messages.append((TRUTH, boxes(START_NS, 1, ["no number"]), START_NS + 40))
    messages.append((TOPIC, image(START_NS + 50, jpeg()), START_NS + 50))
    seen, accounting = [], Accounting()
    with open_drive(write_drive(tmp_path / "drive.mcap", messages)) as drive:
        outcomes = replay(drive, parts_of(drive, MeanColourEngine()), accounting)
        with pytest.raises(BagError, match="label"):
            seen.extend(outcomes)
    assert len(seen) == accounting.totals.published == accounting.totals.received == 30


@pytest.mark.parametrize("messages_used", [0, 1, 17, 40])
@pytest.mark.parametrize("limits", [DEFAULT_LIMITS, ALONE], ids=["threads", "alone"])
def test_a_replay_that_is_stopped_gives_the_beginning_of_the_whole_one(
    tmp_path, messages_used, limits
):
    messages = []
    for index in range(30):
        stamp_ns = START_NS + index * STEP_NS
        messages.append((TOPIC, image(stamp_ns, jpeg()), stamp_ns))
        messages.append((REGIONS, boxes(stamp_ns, index % 4), stamp_ns + 2 * STEP_NS))
    messages.sort(key=lambda message: (message[2], message[0]))
    path = write_drive(tmp_path / "drive.mcap", messages)
    with open_drive(path) as drive:
        whole = list(replay(drive, parts_of(drive, MeanColourEngine()), Accounting()))
    asked = iter([False] * messages_used + [True] * 99)
    accounting = Accounting()
    with open_drive(path) as drive:
        parts = parts_of(drive, MeanColourEngine())
        stopping = replay(drive, parts, accounting, stopped=lambda: next(asked), limits=limits)
        some = list(stopping)
    read = sum(topic == TOPIC for topic, *_ in messages[: messages_used + 1])
    assert accounting.balanced
    assert accounting.totals.received == len(some) == read
    assert [told(each) for each in some] == [told(each) for each in whole[:read]]
