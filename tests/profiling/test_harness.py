"""Measuring a real model with a real engine."""

from __future__ import annotations

import subprocess
import time

import numpy as np
import pytest

from qpde_perception.bundles import find_model, load_bundle
from qpde_perception.engines import EngineError
from qpde_perception.frames import decode
from qpde_perception.profiling import Configuration, ProfilingError, Settings, Source, profile
from qpde_perception.profiling.computer import NvidiaCards, read_computer
from qpde_perception.profiling.sampling import Reader, Samples, sampled
from qpde_perception.profiling.sources import frames_of, regions_of

SMALL = Source("jpeg", 320, 240)


@pytest.fixture(scope="module")
def bundle():
    return load_bundle(find_model(None))


@pytest.fixture(scope="module")
def measured(bundle):
    """A short profile of two configurations, with a rate that no engine holds."""
    settings = Settings(
        frames=40,
        warm_up=3,
        rounds=4,
        idle_s=0.01,
        rate_hz=200.0,
        deadline_ms=0.001,
        sensor_interval_s=0.1,
    )
    configurations = [Configuration("openvino", 1, batch, SMALL) for batch in (1, 3)]
    return profile(bundle, configurations, settings, "1")


def test_every_measured_frame_is_in_the_distribution_and_no_warm_up_is(measured):
    for row in measured.rows:
        assert [each.stages["total"].count for each in row.rounds] == [10] * 4
        assert row.histogram.count == 40
        assert {"decode", "prepare", "infer", "postprocess", "total"} == row.stages.keys()


def test_the_stages_lie_within_the_whole_and_the_frames_within_the_rounds(measured):
    for row in measured.rows:
        parts_ms = sum(times.mean_ms for stage, times in row.stages.items() if stage != "total")
        assert 0.8 * row.stages["total"].mean_ms < parts_ms <= row.stages["total"].mean_ms
        busy_s = sum(each.end_s - each.begin_s for each in row.rounds)
        assert row.histogram.sum_ns / 1e9 <= busy_s
        assert row.frames_per_second == pytest.approx(40 / busy_s)


def test_configurations_take_turns(measured):
    first, second = ([each.begin_s for each in row.rounds] for row in measured.rows)
    merged = sorted([*first, *second])
    assert merged[::2] == first
    assert merged[1::2] == second


def test_the_first_frame_and_those_after_idle_stand_apart(measured):
    for row in measured.rows:
        assert row.opening.build_ms > 0
        assert row.opening.first_ms >= row.opening.first_infer_ms > 0
        assert len(row.after_idle_ms) == 5


def test_a_deadline_that_no_frame_holds_is_missed_by_all(measured):
    for row in measured.rows:
        assert row.paced.frames == 40
        assert row.paced.misses == 40


def test_a_frame_that_waits_for_another_counts_its_waiting(bundle):
    """At ten times the rate that the engine holds, the last frame waits for nearly all others."""
    settings = Settings(
        frames=50, warm_up=5, rounds=1, idle_s=0.0, rate_hz=5000.0, sensor_interval_s=1.0
    )
    (row,) = profile(bundle, [Configuration("openvino", 1, 1, SMALL)], settings, "1").rows
    assert row.paced.latency.max_ms > 10 * row.stages["infer"].p50_ms
    assert row.paced.misses > 40


def test_sensors_are_read_while_frames_are_measured(measured):
    assert measured.sensors.times_s
    assert measured.sensors.series["load_percent.cpu0"]
    assert all(len(v) == len(measured.sensors.times_s) for v in measured.sensors.series.values())


def test_more_rounds_than_frames_are_refused(bundle):
    settings = Settings(frames=3, warm_up=0, rounds=4, idle_s=0, sensor_interval_s=1.0)
    with pytest.raises(ProfilingError, match="3 frames in 4 rounds"):
        profile(bundle, [Configuration("openvino", 1, 1, SMALL)], settings, "1")


def test_an_engine_that_does_not_exist_is_refused(bundle):
    settings = Settings(frames=4, warm_up=0, rounds=4, idle_s=0, sensor_interval_s=1.0)
    with pytest.raises(EngineError, match="no engine 'nonesuch'"):
        profile(bundle, [Configuration("nonesuch", 1, 1, SMALL)], settings, "1")


def test_a_size_may_have_a_name():
    assert Source.parsed("jpeg:1080p") == Source("jpeg", 1920, 1080)
    assert Source.parsed("raw:640x360").name == "raw 640x360"


@pytest.mark.parametrize("text", ["jpeg", "png:720p", "raw:12x1000", "raw:9999x100", "jpeg:721p"])
def test_a_source_of_another_form_is_refused_with_the_form(text):
    with pytest.raises(ProfilingError, match=r"give (raw:WIDTHxHEIGHT|sizes from 64)"):
        Source.parsed(text)


@pytest.mark.parametrize("encoding", ["jpeg", "bgr8"])
def test_frames_are_different_and_the_same_in_every_run(encoding):
    source = Source(encoding, 320, 240)
    first, second, third = frames_of(source, 3)
    assert bytes(first.data) != bytes(second.data) != bytes(third.data)
    assert bytes(first.data) == bytes(frames_of(source, 1)[0].data)
    assert decode(first).pixels.shape[:2] == (240, 320)


def test_regions_lie_in_the_frame():
    boxes = regions_of(SMALL, 50).boxes
    assert boxes.dtype == np.float32
    assert (boxes >= 0).all()
    assert (boxes[:, 2] <= 320).all()
    assert (boxes[:, 3] <= 240).all()


def test_an_ordinary_computer_tells_load_and_memory():
    readings = read_computer()
    assert 0 < readings["memory_mib.ram"] < readings["memory_mib.ram_total"]
    assert "load_percent.cpu0" in readings


def test_without_a_card_nvml_tells_nothing_and_does_not_fail():
    cards = NvidiaCards()
    assert len(cards.names()) == len(
        {name.rpartition(".")[2] for name in cards.read() if "power" in name}
    )


def test_the_sensors_process_ends_with_the_block():
    with sampled(0.1) as samples:
        time.sleep(2.0)
    count = len(samples.taken)
    times_s = [time_s for time_s, _ in samples.taken]
    assert count >= 2
    assert times_s == sorted(times_s)
    assert abs(times_s[-1] - time.monotonic()) < 5.0
    time.sleep(0.3)
    assert len(samples.taken) == count


def test_energy_is_the_mean_power_of_the_rounds_alone():
    samples = Samples(
        [(t, {"power_w.VDD_IN": w}) for t, w in ((1, 5.0), (2, 7.0), (3, 9.0), (9, 99.0))]
    )
    assert samples.mean_power_w([(0.5, 1.5), (2.5, 3.5)]) == 7.0
    assert samples.mean_power_w([(20.0, 30.0)]) is None
    assert samples.power_source == "VDD_IN"


def test_a_board_is_read_with_its_tegrastats(make_board, tegrastats_of, tmp_path, monkeypatch):
    """The program's lines fill what sysfs does not tell; sysfs wins where both do."""
    program = tmp_path / "bin" / "tegrastats"
    program.parent.mkdir()
    program.write_text(
        f"#!/bin/sh\nwhile :; do echo '{tegrastats_of('orin nano')}'; sleep 0.1; done\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    reader = Reader(0.1, make_board("orin nano"))
    try:
        deadline = time.monotonic() + 10.0
        while reader.read()["clock_mhz.emc"] is None and time.monotonic() < deadline:
            time.sleep(0.05)
        readings = reader.read()
    finally:
        reader.close()
    assert readings["clock_mhz.emc"] == 2133
    assert readings["clock_mhz.cpu0"] == 1728
    assert readings["load_percent.gpu"] == pytest.approx(43.7)
    assert isinstance(reader._tegrastats, subprocess.Popen)
    assert reader._tegrastats.poll() is not None
