"""The file that ros2_benchmark would write, and the profile of a run through ROS."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timezone

import numpy as np
import pytest
import yaml

from qpde_perception.profiling import Budget, Profile, ProfilingError, breaches, compare
from qpde_perception.profiling.ros2_benchmark import Input, Run, Subject, report, rows
from qpde_perception.profiling.sampling import Samples
from qpde_perception.profiling.schema import Model, RosSettings, Sensors
from qpde_perception.profiling.throughput import Search
from qpde_perception.profiling.trials import Trial
from qpde_perception.reports.profile_report import profile_html

# Keys of results/apriltag_ros_apriltag_node-agx_thor.json in ros2_benchmark's repository, and the
# latencies that its calculator adds where messages are matched by their keys.
THEIR_BASIC = {
    *("RECEIVED_DURATION", "MEAN_PLAYBACK_FRAME_RATE", "MEAN_FRAME_RATE", "NUM_MISSED_FRAMES"),
    *("NUM_FRAMES_SENT", "FIRST_SENT_RECEIVED_LATENCY", "LAST_SENT_RECEIVED_LATENCY"),
    *("MAX_JITTER", "MIN_JITTER", "MEAN_JITTER", "STD_DEV_JITTER"),
    *("FIRST_INPUT_LATENCY", "LAST_INPUT_LATENCY", "MAX_LATENCY", "MIN_LATENCY", "MEAN_LATENCY"),
}
THEIR_RESOURCES = {
    *("BASELINE_OVERALL_CPU_UTILIZATION", "MAX_OVERALL_CPU_UTILIZATION"),
    *("MIN_OVERALL_CPU_UTILIZATION", "MEAN_OVERALL_CPU_UTILIZATION"),
    "STDDEV_OVERALL_CPU_UTILIZATION",
}
THEIR_METADATA = {
    *("NAME", "TEST_FILE_PATH", "TEST_DATETIME", "DEVICE_HOSTNAME", "DEVICE_ARCH", "DEVICE_OS"),
    *("IDLE_CPU_UTIL", "BENCHMARK_MODE", "PEAK_THROUGHPUT_PREDICTION", "INPUT_DATA_PATH"),
    *("INPUT_DATA_SIZE", "INPUT_DATA_HASH", "CONFIG"),
}
SAMPLES = Samples([(t / 2, {"load_percent.cpu0": 50.0}) for t in range(40)])
BEGAN = datetime(2026, 11, 27, 12, 0, tzinfo=timezone.utc)


def trial(rate_hz, number, latency_ms=5.0, lost=0):
    rng = np.random.default_rng(number)
    count = round(2 * rate_hz)
    sent = tuple(10**18 + number * 10**12 + round(k * 1e9 / rate_hz) for k in range(count))
    late_ns = (latency_ms * 1e6 * rng.uniform(0.98, 1.02, count)).astype(int).tolist()
    answers = {stamp: stamp + late for stamp, late in zip(sent, late_ns, strict=True)}
    for stamp in sent[1 : 1 + lost]:
        del answers[stamp]
    return Trial(rate_hz, sent, answers, begin_s=2.0 * number, end_s=2.0 * number + 2.0)


@pytest.fixture
def run():
    """Five trials at a peak of 80 Hz, each with four frames lost, then one at 10 and at 30 Hz."""
    return Run(
        subject=Subject("qpde Benchmark", "signs", "openvino", "1.0", 1),
        played=Input("/d.mcap", 1234, "ab" * 16, 1280, 720, "jpeg", 2),
        search=Search(),
        seconds=2.0,
        peak=tuple(trial(80.0, number, 9.0, lost=4) for number in range(5)),
        fixed=(trial(10.0, 5), trial(30.0, 6)),
        idle_cpu_percent=1.5,
        began=BEGAN,
        program="/usr/bin/qpde",
    )


@pytest.fixture
def profiled(make_profile):
    """A profile of a run."""
    machine = make_profile([np.full(10, 5.0)] * 5).machine

    def make(of, **settings):
        given = {"drive_md5": of.played.md5, "seconds": 2.0, "trials": 5, "highest_hz": 600.0}
        return Profile(
            package_version="1",
            began="2026-11-27T12:00:00+00:00",
            machine=machine,
            model=Model(name="signs", sha256="0" * 64),
            settings=RosSettings(
                **given | settings, rates_hz=(10.0, 30.0, 60.0), sensor_interval_s=0.5
            ),
            rows=rows(of, SAMPLES, 0.0),
            sensors=Sensors(times_s=(), series={}, power_source=""),
        )

    return make


def names(part, kind):
    return {name.removeprefix(kind) for name in part if name.startswith(kind)}


def test_the_document_has_every_key_of_a_published_result_and_its_nesting(run):
    document = json.loads(json.dumps(report(run, SAMPLES), allow_nan=False))
    assert [name for name, part in document.items() if isinstance(part, dict)] == [
        *("10.0fps", "30.0fps"),
        *("custom", "metadata"),
    ]
    for part in (document, document["10.0fps"], document["30.0fps"]):
        assert names(part, "BasicPerformanceMetrics.") == THEIR_BASIC
        assert names(part, "ResourceMetrics.") >= THEIR_RESOURCES
        assert names(part, "StampToPublishMetrics.") == {
            f"{p}_LATENCY" for p in ("P50", "P90", "P99", "P99_9")
        }
    assert names(document["metadata"], "BenchmarkMetadata.") == THEIR_METADATA


def test_the_metadata_says_what_was_sent_when_and_how(run):
    meta = report(run, SAMPLES)["metadata"]
    assert meta["BenchmarkMetadata.TEST_DATETIME"] == "2026-11-27T12:00:00Z"
    assert meta["BenchmarkMetadata.INPUT_DATA_HASH"] == "ab" * 16
    assert meta["BenchmarkMetadata.INPUT_DATA_SIZE"] == 1234
    assert meta["BenchmarkMetadata.BENCHMARK_MODE"] == 1
    assert meta["BenchmarkMetadata.PEAK_THROUGHPUT_PREDICTION"] == 80.0
    config = yaml.safe_load(meta["BenchmarkMetadata.CONFIG"])["ros2_benchmark_config"]
    assert config["test_iterations"] == 5
    assert config["benchmark_duration"] == 2.0
    assert config["additional_fixed_publisher_rate_tests"] == [10.0, 30.0]
    assert config["binary_search_acceptable_frame_loss_fraction"] == 0.05
    assert config["publisher_upper_frequency"] == 600.0


def test_the_figures_at_the_top_are_of_the_peak_and_those_below_of_their_rate(run):
    document = report(run, SAMPLES)
    missed, sent, mean = (
        f"BasicPerformanceMetrics.{name}"
        for name in ("NUM_MISSED_FRAMES", "NUM_FRAMES_SENT", "MEAN_LATENCY")
    )
    assert (document[missed], document[sent]) == (4, 160)
    assert document[mean] == pytest.approx(9.0, rel=0.01)
    assert (document["30.0fps"][missed], document["30.0fps"][sent]) == (0, 60)
    assert document["30.0fps"][mean] == pytest.approx(5.0, rel=0.01)


def test_the_rows_are_a_profile_that_reads_back_and_has_a_page(run, profiled):
    profile = profiled(run)
    assert Profile.model_validate_json(json.dumps(profile.document())) == profile
    peak, ten, thirty = profile.rows
    assert peak.name == "openvino, 1 thread, batch 2, ROS jpeg 1280x720 at peak"
    assert (peak.sent_hz, ten.sent_hz, thirty.sent_hz) == (80.0, 10.0, 30.0)
    assert (peak.paced.frames, peak.paced.misses) == (800, 20)
    assert thirty.name.endswith("at 30 Hz")
    assert (thirty.paced.frames, thirty.paced.misses, thirty.histogram.count) == (60, 0, 60)
    page = profile_html(profile)
    assert "at 30 Hz" in page
    assert "5 trials of 2 s at the peak" in page


def test_budgets_hold_for_the_rows_they_name(run, profiled):
    profile = profiled(run)
    thirty = {"source": "ROS jpeg 1280x720 at 30 Hz"}
    peak = {"source": "ROS jpeg 1280x720 at peak"}
    kept = (Budget(**thirty, p99_ms=6.0, missed_share=0.0), Budget(**peak, frames_per_second=60.0))
    assert breaches(kept, profile) == []
    broken = (Budget(**thirty, p50_ms=4.0), Budget(**peak, missed_share=0.02, first_ms=1.0))
    told = [each.told for each in breaches(broken, profile)]
    assert len(told) == 3
    assert "at 30 Hz: p50_ms 4.99, at most 4" in told[0]
    assert "at peak: first_ms not measured" in told[1]
    assert "at peak: missed_share 0.025, at most 0.02" in told[2]


def test_equal_rates_are_compared_and_peaks_at_two_rates_only_told(run, profiled):
    slower = replace(
        run,
        peak=tuple(trial(70.0, number, 9.0) for number in range(5)),
        fixed=(trial(10.0, 5, 9.0), trial(30.0, 6)),
    )
    found = compare(profiled(run), profiled(slower, drive_md5="cd" * 16))
    verdicts = {change.row.rpartition(" at ")[2]: change.verdict for change in found.changes}
    assert verdicts == {"10 Hz": "slower", "30 Hz": "no difference"}
    assert [each.rpartition(" at ")[2] for each in found.only_before] == ["peak (80 Hz)"]
    assert [each.rpartition(" at ")[2] for each in found.only_after] == ["peak (70 Hz)"]
    assert f"settings: drive_md5 {'ab' * 16} -> {'cd' * 16}" in found.differences


def test_a_run_through_ros_does_not_compare_with_one_on_the_road(run, profiled, make_profile):
    with pytest.raises(ProfilingError, match="no configuration in common"):
        compare(profiled(run), make_profile([np.full(10, 5.0)] * 5))
