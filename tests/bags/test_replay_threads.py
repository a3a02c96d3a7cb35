"""What running ahead takes: threads, time that is told of a frame, and memory."""

from __future__ import annotations

import sys
import threading
import time
import tracemalloc
from pathlib import Path

import pytest
from colour_drives import (
    ALONE,
    REGIONS,
    START_NS,
    TOPIC,
    MeanColourEngine,
    boxes,
    bundle,
    image,
    jpeg,
    parts_of,
    red_drive,
    write_drive,
)

from qpde_perception.bags import open_drive
from qpde_perception.bags.overlay import PerceptionBag
from qpde_perception.bags.replay import Published, Truth, replay
from qpde_perception.bags.results import ResultFiles
from qpde_perception.monitoring import Accounting, LatencyRecorder
from qpde_perception.perception import Limits
from qpde_perception.reports import ReplayReport

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from endless_drive import endless_drive

SAMPLE = Path(__file__).resolve().parents[2] / "samples" / "traffic_signs.mcap"


def test_who_leaves_in_the_middle_leaves_no_thread_behind(tmp_path):
    before = threading.active_count()
    with open_drive(red_drive(tmp_path / "drive.mcap", 300)) as drive:
        outcomes = replay(drive, parts_of(drive, MeanColourEngine()), Accounting())
        assert isinstance(next(outcomes), Published)
        assert threading.active_count() > before
        outcomes.close()
    assert threading.active_count() == before


def test_who_does_all_the_work_starts_no_thread(tmp_path):
    before = threading.active_count()
    with open_drive(red_drive(tmp_path / "drive.mcap", 300)) as drive:
        parts = parts_of(drive, MeanColourEngine())
        for outcome in replay(drive, parts, Accounting(), limits=ALONE):
            assert isinstance(outcome, Published)
            assert threading.active_count() == before


def test_threads_take_turns_in_the_interpreter_quickly_until_the_replay_ends(tmp_path):
    before_s = sys.getswitchinterval()
    with open_drive(red_drive(tmp_path / "drive.mcap", 300)) as drive:
        outcomes = replay(drive, parts_of(drive, MeanColourEngine()), Accounting())
        next(outcomes)
        # The engine and the decoders wait for it far shorter than a frame takes.
        assert sys.getswitchinterval() < before_s / 10
        outcomes.close()
        assert sys.getswitchinterval() == before_s
        alone = replay(drive, parts_of(drive, MeanColourEngine()), Accounting(), limits=ALONE)
        next(alone)
        assert sys.getswitchinterval() == before_s


class Slow(MeanColourEngine):
    """An engine that takes 4 ms for an item."""

    def infer(self, batch):
        time.sleep(0.004 * len(batch))
        return super().infer(batch)


def test_the_time_of_a_frame_is_its_share_of_the_batch_and_leaves_out_waiting(tmp_path):
    messages = [(REGIONS, boxes(0, 0), START_NS)]
    for index in range(24):
        messages.append((REGIONS, boxes(START_NS + index, index % 3), START_NS))
        messages.append((TOPIC, image(START_NS + index, jpeg()), START_NS + 1))
    with open_drive(write_drive(tmp_path / "drive.mcap", messages)) as drive:
        outcomes = list(replay(drive, parts_of(drive, Slow()), Accounting()))
    for outcome in outcomes:
        stages_ms = dict(outcome.perception.stages_ms)
        items = len(outcome.perception.regions)
        assert ("infer" in stages_ms) == (items > 0)
        if items:
            assert 4.0 * items <= stages_ms["infer"] < 4.0 * items + 3.0
        assert stages_ms["postprocess"] < 40.0  # and the engine took 96 for all of them
        total_ms = stages_ms.pop("total")
        assert sum(stages_ms.values()) <= total_ms < sum(stages_ms.values()) + 3.0


class Counted:
    """A drive that notes how many bytes of messages were asked of it."""

    def __init__(self, drive):
        self._drive, self.frames, self.bytes = drive, 0, 0

    def messages(self, topics, **span):
        for recorded in self._drive.messages(topics, **span):
            self.frames += 1
            self.bytes += len(recorded.raw)
            yield recorded


@pytest.mark.parametrize(
    "limits",
    [
        Limits(frames=10),
        Limits(size_bytes=40_000),
        Limits(size_bytes=1),
        Limits(frames=10, decoders=0),
    ],
)
def test_no_more_is_read_ahead_than_the_limits_say(tmp_path, limits):
    path = red_drive(tmp_path / "drive.mcap", 120, size=256)
    with open_drive(path) as drive:
        parts = parts_of(drive, MeanColourEngine())
        counted, taken, taken_bytes, most = Counted(drive), 0, 0, 0
        for outcome in replay(counted, parts, Accounting(), limits=limits):
            ahead, ahead_bytes = counted.frames - taken, counted.bytes - taken_bytes
            assert ahead <= limits.frames
            assert ahead_bytes <= limits.size_bytes + len(outcome.recorded.raw)
            most = max(most, ahead)
            taken += 1
            taken_bytes += len(outcome.recorded.raw)
    assert taken == 120
    assert (most > 1) == (limits.size_bytes > 1)


def test_memory_does_not_grow_with_the_length_of_the_drive(tmp_path):
    with open_drive(SAMPLE) as sample:
        drive, part = endless_drive(sample, padded_bytes=400_000)
    parts = parts_of(drive, MeanColourEngine())
    labels = bundle().manifest.labels
    report, latency, accounting = ReplayReport(labels), LatencyRecorder(), Accounting()
    peaks = []
    tracemalloc.start()
    try:
        with (
            ResultFiles(tmp_path) as files,
            PerceptionBag(tmp_path / "perception.mcap", labels, accounting) as bag,
        ):
            for outcome in replay(drive, parts, accounting, limits=Limits(frames=40)):
                if isinstance(outcome, Truth):
                    continue
                files.add(outcome)
                bag.add(outcome)
                report.add(outcome.perception)
                latency.add(outcome.perception.stages_ms)
                if accounting.totals.published % 200 == 0:
                    peaks.append(tracemalloc.get_traced_memory()[1])
                    tracemalloc.reset_peak()
                if len(peaks) == 4:
                    break
    finally:
        tracemalloc.stop()
    assert part.bytes_read > 320e6
    assert max(peaks) < 60e6
    # Between two of them 80 MB went through.
    assert max(peaks[1:]) < peaks[0] + 12e6
