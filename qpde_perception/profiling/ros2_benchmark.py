"""A run through ROS as ros2_benchmark writes it, and as rows of a profile."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from qpde_perception.profiling.histogram import NS_PER_MS, Histogram
from qpde_perception.profiling.schema import Paced, Round, Row, Summary
from qpde_perception.profiling.trials import (
    BASIC,
    basic_metrics,
    concluded,
    latency_metrics,
    resource_metrics,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from qpde_perception.profiling.sampling import Samples
    from qpde_perception.profiling.throughput import Search
    from qpde_perception.profiling.trials import Metrics, Trial

LEAST_TRIALS = 5
_LOOPING = 1  # its number of the mode in which frames are played over and over at a rate
_META = "BenchmarkMetadata."
# A fixed rate is one trial; compared are rounds.
_SLICES = 5
_COURSE_POINTS = 200


@dataclass(frozen=True, slots=True)
class Input:
    """The drive whose frames were sent.

    Attributes:
        path: Where it lies.
        size: Bytes of the file; of a folder, of its first data file.
        md5: MD5 of that file.
        width: Columns of its frames.
        height: Rows.
        encoding: `jpeg` or `raw`.
        regions: Regions of a frame, their mean; 1 where whole frames are classified.
    """

    path: str
    size: int
    md5: str
    width: int
    height: int
    encoding: str
    regions: int


@dataclass(frozen=True, slots=True)
class Subject:
    """What was measured, by name: the benchmark's, and the engine's with version and threads."""

    benchmark: str
    model: str
    engine: str
    engine_version: str
    threads: int


@dataclass(frozen=True, slots=True)
class Run:
    """All trials of a run.

    Attributes:
        subject: What was measured.
        played: What was sent.
        search: How the peak was searched.
        seconds: Length of a trial.
        peak: The trials at the peak.
        fixed: The trial at each fixed rate.
        idle_cpu_percent: Load of the machine before anything was started.
        began: When, UTC.
        program: What was started.
    """

    subject: Subject
    played: Input
    search: Search
    seconds: float
    peak: tuple[Trial, ...]
    fixed: tuple[Trial, ...]
    idle_cpu_percent: float
    began: datetime
    program: str

    @property
    def peak_hz(self) -> float:
        """The rate that the search found."""
        return self.peak[0].rate_hz


def report(run: Run, samples: Samples) -> dict[str, Any]:
    """Return the document that ros2_benchmark would write."""
    return {
        **_metrics(run.peak, samples),
        **{f"{trial.rate_hz:.1f}fps": _metrics([trial], samples) for trial in run.fixed},
        "custom": {
            "data_resolution": f"({run.played.width},{run.played.height})",
            **asdict(run.subject),
        },
        "metadata": {_META + name: value for name, value in _metadata(run).items()},
    }


def rows(run: Run, samples: Samples, start_s: float) -> tuple[Row, ...]:
    """Return the run as rows of a profile: the peak, and each fixed rate.

    Args:
        run: The trials.
        samples: Readings of the sensors meanwhile.
        start_s: The profile's start by the monotonic clock.
    """
    fixed = [
        _row(run, [trial], f"at {trial.rate_hz:g} Hz", samples, start_s) for trial in run.fixed
    ]
    return (_row(run, run.peak, "at peak", samples, start_s), *fixed)


def _metrics(trials: Sequence[Trial], samples: Samples) -> Metrics:
    basic = concluded([basic_metrics(trial) for trial in trials])
    resources = concluded([resource_metrics(samples, trial) for trial in trials])
    return {**basic, **latency_metrics(trials), **resources}


def _metadata(run: Run) -> dict[str, Any]:
    here = platform.uname()
    return {
        "NAME": run.subject.benchmark,
        "TEST_FILE_PATH": run.program,
        "TEST_DATETIME": run.began.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "DEVICE_HOSTNAME": here.node,
        "DEVICE_ARCH": here.machine,
        "DEVICE_OS": f"{here.system} {here.release} {here.version}",
        "IDLE_CPU_UTIL": run.idle_cpu_percent,
        "BENCHMARK_MODE": _LOOPING,
        "PEAK_THROUGHPUT_PREDICTION": run.peak_hz,
        "INPUT_DATA_PATH": run.played.path,
        "INPUT_DATA_SIZE": run.played.size,
        "INPUT_DATA_HASH": run.played.md5,
        "CONFIG": _config(run),
    }


def _config(run: Run) -> str:
    config = {
        "additional_fixed_publisher_rate_tests": [trial.rate_hz for trial in run.fixed],
        "benchmark_duration": run.seconds,
        "benchmark_mode": "BenchmarkMode.LOOPING",
        "benchmark_name": run.subject.benchmark,
        "enforce_publisher_rate": True,
        "input_data_path": run.played.path,
        "test_iterations": len(run.peak),
        **asdict(run.search),
    }
    return yaml.safe_dump({"ros2_benchmark_config": config}, sort_keys=True)


def _row(run: Run, trials: Sequence[Trial], name: str, samples: Samples, start_s: float) -> Row:
    rounds = [each for trial in trials for each in _rounds(trial, len(trials), start_s)]
    whole = Histogram.merged([each.stages["total"] for each in rounds])
    spans_s = [(trial.begin_s, trial.end_s) for trial in trials]
    power_w = samples.mean_power_w(spans_s)
    busy_s = sum(end - begin for begin, end in spans_s)
    sent = sum(len(trial.sent_ns) for trial in trials)
    rates = concluded([basic_metrics(trial) for trial in trials])
    return Row(
        engine=run.subject.engine,
        engine_version=run.subject.engine_version,
        threads=run.subject.threads,
        batch=run.played.regions,
        source=f"ROS {run.played.encoding} {run.played.width}x{run.played.height} {name}",
        sent_hz=trials[0].rate_hz,
        opening=None,
        after_idle_ms=(),
        stages={"total": Summary.of(whole)},
        frames_per_second=rates.get(f"{BASIC}MEAN_FRAME_RATE", 0.0),
        memory_mib=max(trial.memory_mib for trial in trials),
        power_w=power_w,
        energy_mj=None if power_w is None else power_w * busy_s / whole.count * 1e3,
        paced=Paced(frames=sent, misses=sum(trial.missed for trial in trials), latency=whole),
        rounds=tuple(rounds),
        course=tuple(point for trial in trials for point in _course(trial, start_s)),
    )


def _rounds(trial: Trial, trials: int, start_s: float) -> list[Round]:
    """Return a trial as a round; one that stands alone as a few."""
    count = min(_SLICES if trials == 1 else 1, len(trial.answered_ns))
    length_s = (trial.end_s - trial.begin_s) / count
    begin_s = trial.begin_s - start_s
    return [
        Round(
            begin_s=begin_s + number * length_s,
            end_s=begin_s + (number + 1) * length_s,
            yardstick_ms=trial.yardstick_ms,
            stages={"total": Histogram.of(part)},
        )
        for number, part in enumerate(np.array_split(trial.latencies_ns, count))
    ]


def _course(trial: Trial, start_s: float) -> list[tuple[float, float]]:
    """Return time and milliseconds of the slowest of every few frames."""
    latencies, stamps = trial.latencies_ns, np.array(trial.answered_ns, np.int64)
    count = min(len(latencies), _COURSE_POINTS)
    points = []
    for part in np.array_split(np.arange(len(latencies)), count):
        slowest = part[int(latencies[part].argmax())]
        since_s = trial.begin_s - start_s + (stamps[slowest] - trial.sent_ns[0]) / 1e9
        points.append((round(float(since_s), 3), round(float(latencies[slowest]) / NS_PER_MS, 4)))
    return points
