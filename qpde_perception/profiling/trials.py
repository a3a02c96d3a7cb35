"""Trials through ROS: what was sent and answered, and figures of it in ros2_benchmark's terms.

What each figure means and how trials are concluded is ros2_benchmark's
(github.com/NVIDIA-ISAAC-ROS/ros2_benchmark, its BasicPerformanceCalculator and ResourceMetrics).
Here a frame begins with the stamp of its header and ends when the middleware takes its answer from
the node. Percentiles, which ros2_benchmark does not have, carry a name of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qpde_perception.profiling.errors import ProfilingError
from qpde_perception.profiling.histogram import NS_PER_MS, Histogram

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qpde_perception.profiling.jetson import Readings
    from qpde_perception.profiling.sampling import Samples

    Metrics = dict[str, float]

BASIC, RESOURCE = "BasicPerformanceMetrics.", "ResourceMetrics."
LATENCY, NODE = "StampToPublishMetrics.", "NodeMetrics."
_PERCENTILES = {"P50": 0.5, "P90": 0.9, "P99": 0.99, "P99_9": 0.999}
_MEANS_OF_MAXIMA = ("MEAN_JITTER",)  # concluded as a maximum over there, too
_LEAST_TO_DROP = 3


@dataclass(frozen=True, slots=True)
class Trial:
    """Frames that were sent at one rate, and their answers.

    Attributes:
        rate_hz: The rate that was asked of the player.
        sent_ns: Stamps of the frames that were sent, in order, nanoseconds.
        published_ns: When the answer to a stamp was published, by stamp; none where it was lost.
        begin_s: When it began, by the monotonic clock.
        end_s: When it ended.
        cpu_s: What the node's process took of a processor meanwhile, seconds.
        memory_mib: The node's resident memory at its end.
        yardstick_ms: What a fixed piece of work took around it: how fast the machine was.
    """

    rate_hz: float
    sent_ns: tuple[int, ...]
    published_ns: dict[int, int]
    begin_s: float = 0.0
    end_s: float = 0.0
    cpu_s: float = 0.0
    memory_mib: float = 0.0
    yardstick_ms: float = 1.0

    @property
    def answered_ns(self) -> tuple[int, ...]:
        """Stamps of the frames that were answered, in the order in which they were sent."""
        return tuple(stamp for stamp in self.sent_ns if stamp in self.published_ns)

    @property
    def missed(self) -> int:
        """Number of frames without an answer."""
        return len(self.sent_ns) - len(self.answered_ns)

    @property
    def latencies_ns(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """From stamp to publication of each answered frame, int64 (n,).

        Raises:
            ProfilingError: If an answer is older than its frame.
        """
        answered = np.array(self.answered_ns, np.int64)
        published = np.array([self.published_ns[stamp] for stamp in self.answered_ns], np.int64)
        latencies = published - answered
        if (latencies < 0).any():
            msg = "the machine's clock was set back during the run; run again"
            raise ProfilingError(msg)
        return latencies


def basic_metrics(trial: Trial) -> Metrics:
    """Return the figures of one trial, times in milliseconds; what has no value is left out."""
    latencies_ms = trial.latencies_ns / NS_PER_MS
    # Since the first frame: nanoseconds since 1970 have more digits than a float.
    sent_ms = _since(trial.sent_ns, trial)
    ends_ms = np.sort(_since([trial.published_ns[each] for each in trial.answered_ns], trial))
    found: Metrics = {
        "NUM_MISSED_FRAMES": trial.missed,
        "NUM_FRAMES_SENT": len(trial.sent_ns),
    }
    if len(sent_ms) > 1:
        found["MEAN_PLAYBACK_FRAME_RATE"] = len(sent_ms) * 1e3 / float(sent_ms[-1] - sent_ms[0])
    if len(ends_ms):
        duration_ms = float(ends_ms[-1] - ends_ms[0])
        found |= {
            "RECEIVED_DURATION": duration_ms,
            "FIRST_SENT_RECEIVED_LATENCY": float(ends_ms[0] - sent_ms[0]),
            "LAST_SENT_RECEIVED_LATENCY": float(ends_ms[-1] - sent_ms[-1]),
            "FIRST_INPUT_LATENCY": float(latencies_ms[0]),
            "LAST_INPUT_LATENCY": float(latencies_ms[-1]),
            "MAX_LATENCY": float(latencies_ms.max()),
            "MIN_LATENCY": float(latencies_ms.min()),
            "MEAN_LATENCY": float(latencies_ms.mean()),
        }
        if duration_ms > 0:
            found["MEAN_FRAME_RATE"] = len(ends_ms) * 1e3 / duration_ms
    if len(ends_ms) > 2:
        # How much the time between two answers differs from that between the two before.
        jitters_ms = np.abs(np.diff(ends_ms, n=2))
        found |= {
            "MAX_JITTER": float(jitters_ms.max()),
            "MIN_JITTER": float(jitters_ms.min()),
            "MEAN_JITTER": float(jitters_ms.mean()),
            "STD_DEV_JITTER": float(jitters_ms.std()),
        }
    return {BASIC + name: value for name, value in found.items()}


def latency_metrics(trials: Sequence[Trial]) -> Metrics:
    """Return percentiles over the frames of all trials, and what the node took for them."""
    found: Metrics = {}
    histogram = Histogram.merged([Histogram.of(trial.latencies_ns) for trial in trials])
    if histogram.count:
        found |= {
            f"{LATENCY}{name}_LATENCY": histogram.quantile_ms(share)
            for name, share in _PERCENTILES.items()
        }
        cpu_s = sum(trial.cpu_s for trial in trials)
        found[f"{NODE}CPU_MS_PER_FRAME"] = cpu_s * 1e3 / histogram.count
    found[f"{NODE}MAX_MEMORY_MIB"] = max(trial.memory_mib for trial in trials)
    return found


def resource_metrics(samples: Samples, trial: Trial) -> Metrics:
    """Return what the machine's sensors told during a trial; empty where nothing was read."""
    readings = [
        reading for time_s, reading in samples.taken if trial.begin_s <= time_s <= trial.end_s
    ]
    found: Metrics = {}
    for name, part in (
        ("OVERALL_CPU_UTILIZATION", lambda each: _mean_load(each, "load_percent.cpu")),
        ("HOST_MEMORY_UTILIZATION", _memory_percent),
        ("DEVICE_UTILIZATION", lambda each: _mean_load(each, "load_percent.gpu")),
    ):
        found |= _spread(name, readings, part)
    events = [name for name in (readings[-1] if readings else {}) if name.startswith("events.")]
    if events:
        counts = [sum(reading.get(name) or 0.0 for name in events) for reading in readings]
        found[f"{RESOURCE}OC_EVENT_COUNT"] = counts[-1] - counts[0]
    return found


def concluded(trials: Sequence[Metrics]) -> Metrics:
    """Return one figure for several trials: without the best and the worst, the mean.

    Of what is a maximum in a trial it is the maximum, of a minimum the minimum. A figure that one
    of the trials lacks is left out; of fewer than three trials all count.
    """
    if len(trials) == 1:
        return trials[0]
    found: Metrics = {}
    for name in trials[0]:
        values = sorted(trial[name] for trial in trials if name in trial)
        if len(values) < len(trials):
            continue
        kept = values[1:-1] if len(values) >= _LEAST_TO_DROP else values
        last = name.rpartition(".")[2]
        if last.startswith("MAX_") or last in _MEANS_OF_MAXIMA:
            found[name] = kept[-1]
        elif last.startswith("MIN_"):
            found[name] = kept[0]
        else:
            found[name] = sum(kept) / len(kept)
    return found


def _since(times_ns: Sequence[int], trial: Trial) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return (np.array(times_ns, np.int64) - trial.sent_ns[0]) / NS_PER_MS


def _spread(
    name: str, readings: Sequence[Readings], part: Callable[[Readings], float | None]
) -> Metrics:
    values = [value for value in map(part, readings) if value is not None]
    if not values:
        return {}
    return {
        f"{RESOURCE}BASELINE_{name}": values[0],
        f"{RESOURCE}MAX_{name}": max(values),
        f"{RESOURCE}MIN_{name}": min(values),
        f"{RESOURCE}MEAN_{name}": float(np.mean(values)),
        f"{RESOURCE}STDDEV_{name}": float(np.std(values)),
    }


def _mean_load(reading: Readings, prefix: str) -> float | None:
    loads = [
        value for name, value in reading.items() if name.startswith(prefix) and value is not None
    ]
    return sum(loads) / len(loads) if loads else None


def _memory_percent(reading: Readings) -> float | None:
    used, total = (reading.get(f"memory_mib.{name}") for name in ("ram", "ram_total"))
    return None if used is None or not total else 100.0 * used / total
