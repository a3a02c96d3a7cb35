"""Measuring how long frames take on the road, configuration by configuration."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np
import psutil

from qpde_perception.engines import EngineError
from qpde_perception.engines.registry import build_engine
from qpde_perception.engines.self_test import self_test
from qpde_perception.perception import Classifier, NoFilter
from qpde_perception.profiling.errors import ProfilingError
from qpde_perception.profiling.histogram import NS_PER_MS, Histogram
from qpde_perception.profiling.machine import machine_of
from qpde_perception.profiling.sampling import sampled
from qpde_perception.profiling.schema import (
    Model,
    Opening,
    Paced,
    Profile,
    Round,
    Row,
    Settings,
    Summary,
)
from qpde_perception.profiling.sources import Source, frames_of, regions_of
from qpde_perception.profiling.yardstick import Yardstick

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qpde_perception.bundles import Bundle
    from qpde_perception.engines import Engine
    from qpde_perception.frames import CameraFrame, Regions
    from qpde_perception.profiling.sampling import Samples

_DIFFERENT_FRAMES = 8
_AFTER_IDLE = 5
# After the others' turn: caches and clocks are theirs.
_REFRESH = 10
_COURSE_POINTS = 400
_PACED_S = 10.0
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Configuration:
    """What is measured: an engine, its threads, the regions of a frame, and the frames."""

    engine: str
    threads: int
    batch: int
    source: Source


@dataclass(slots=True)
class _Lane:
    """A configuration that is open, and what was measured of it."""

    configuration: Configuration
    engine: Engine
    classifier: Classifier
    frames: list[CameraFrame]
    regions: Regions
    opening: Opening
    memory_mib: float
    number: int = 0
    after_idle_ms: list[float] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)
    spans_s: list[tuple[float, float]] = field(default_factory=list)
    busy_s: float = 0.0
    course: list[tuple[float, float]] = field(default_factory=list)
    paced: Paced | None = None

    def step(self) -> dict[str, float]:
        """Classify the next frame; return milliseconds by stage."""
        frame = self.frames[self.number % len(self.frames)]
        self.number += 1
        return self.classifier.classify(frame, self.regions).stages_ms


def profile(
    bundle: Bundle,
    configurations: Sequence[Configuration],
    settings: Settings,
    package_version: str,
    advanced: Callable[[int, int], None] = lambda done, total: None,  # noqa: ARG005
) -> Profile:
    """Measure configurations of a model.

    Each is opened and warmed up; then they take turns, a round of frames each, so that whatever
    else the machine does hits all alike. An engine's answer is in the caller's memory when its
    call returns, on a GPU as well, so a stage's time is that of the work itself.

    Args:
        bundle: A verified bundle.
        configurations: What to measure, at least one.
        settings: How.
        package_version: Version of this package, for the profile.
        advanced: Is told how many steps of how many are done.

    Raises:
        EngineError: If an engine does not work here, or strays from the integer reference.
        ProfilingError: If the settings do not fit together.
    """
    if settings.frames < settings.rounds:
        msg = f"{settings.frames} frames in {settings.rounds} rounds: give more frames"
        raise ProfilingError(msg)
    began = datetime.now(timezone.utc).isoformat(timespec="seconds")
    total = (settings.rounds + 2) * len(configurations)
    lanes: list[_Lane] = []
    yardstick = Yardstick()
    with sampled(settings.sensor_interval_s) as samples:
        start_s = time.monotonic()
        try:
            for configuration in configurations:
                lanes.append(_opened(bundle, configuration))
                for _ in range(settings.warm_up):
                    lanes[-1].step()
                advanced(len(lanes), total)
            for turn in range(settings.rounds):
                for place, lane in enumerate(lanes):
                    _measure(lane, settings.frames // settings.rounds, start_s, yardstick)
                    advanced((turn + 1) * len(lanes) + place + 1, total)
            for place, lane in enumerate(lanes):
                _rest(lane, settings.idle_s)
                if settings.rate_hz is not None:
                    lane.paced = _paced(lane, settings)
                advanced((settings.rounds + 1) * len(lanes) + place + 1, total)
        finally:
            for lane in lanes:
                lane.engine.close()
    return Profile(
        package_version=package_version,
        began=began,
        machine=machine_of(),
        model=model_of(bundle),
        settings=settings,
        rows=tuple(_row(lane, samples) for lane in lanes),
        sensors=samples.sensors(start_s),
    )


def _opened(bundle: Bundle, configuration: Configuration) -> _Lane:
    """Open an engine and send a first frame through it, then let it answer the golden frames."""
    frames = frames_of(configuration.source, _DIFFERENT_FRAMES)
    regions = regions_of(configuration.source, configuration.batch)
    process = psutil.Process()
    before = process.memory_info().rss
    started = time.perf_counter_ns()
    engine = build_engine(bundle, configuration.engine, threads=configuration.threads)
    build_ms = (time.perf_counter_ns() - started) / NS_PER_MS
    try:
        classifier = Classifier(bundle, engine, NoFilter())
        first = classifier.classify(frames[0], regions).stages_ms
        test = self_test(bundle, engine)
    except BaseException:
        engine.close()
        raise
    if not test.ok:
        engine.close()
        msg = (
            f"engine {engine.name} {engine.version} strays from the integer reference on the "
            f"golden frames: {test.told}; its times would say nothing"
        )
        raise EngineError(msg)
    opening = Opening(build_ms=build_ms, first_ms=first["total"], first_infer_ms=first["infer"])
    memory_mib = (process.memory_info().rss - before) / _MIB
    return _Lane(configuration, engine, classifier, frames, regions, opening, memory_mib)


def model_of(bundle: Bundle) -> Model:
    """Name a model as a profile does."""
    digest = sha256((bundle.path / "manifest.json").read_bytes()).hexdigest()
    return Model(name=bundle.manifest.name, sha256=digest)


def _measure(lane: _Lane, count: int, start_s: float, yardstick: Yardstick) -> None:
    """Take one turn of frames."""
    before_ms = yardstick.measure_ms()
    for _ in range(_REFRESH):
        lane.step()
    # What the other lanes left behind is not this one's to collect.
    gc.collect()
    noted: list[dict[str, float]] = []
    times_s: list[float] = []
    begin_s = time.monotonic()
    for _ in range(count):
        noted.append(lane.step())
        times_s.append(time.monotonic())
    end_s = times_s[-1]
    stages = {stage: np.array([each[stage] for each in noted]) for stage in noted[0]}
    lane.rounds.append(
        Round(
            begin_s=begin_s - start_s,
            end_s=end_s - start_s,
            yardstick_ms=(before_ms + yardstick.measure_ms()) / 2.0,
            stages={
                stage: Histogram.of(np.rint(times_ms * NS_PER_MS).astype(np.int64))
                for stage, times_ms in stages.items()
            },
        )
    )
    lane.spans_s.append((begin_s, end_s))
    lane.busy_s += end_s - begin_s
    totals_ms = stages["total"]
    for part in np.array_split(np.arange(count), min(count, _COURSE_POINTS // 10)):
        slowest = part[int(totals_ms[part].argmax())]
        point = times_s[slowest] - start_s, float(totals_ms[slowest])
        lane.course.append((round(point[0], 3), round(point[1], 4)))


def _rest(lane: _Lane, idle_s: float) -> None:
    for _ in range(_AFTER_IDLE if idle_s else 0):
        time.sleep(idle_s)
        lane.after_idle_ms.append(lane.step()["total"])


def _paced(lane: _Lane, settings: Settings) -> Paced:
    """Let frames arrive at a fixed rate; one that comes while another is worked on waits.

    The time counts from the arrival, waiting included, so that a slow frame is not taken for one.
    """
    assert settings.rate_hz is not None
    period_ns = round(1e9 / settings.rate_hz)
    deadline_ns = (
        period_ns if settings.deadline_ms is None else round(settings.deadline_ms * NS_PER_MS)
    )
    count = max(1, min(settings.frames, round(settings.rate_hz * _PACED_S)))
    latencies = np.empty(count, np.int64)
    lane.step()
    first_ns = time.perf_counter_ns() + period_ns
    for number in range(count):
        arrival_ns = first_ns + number * period_ns
        wait_ns = arrival_ns - time.perf_counter_ns()
        if wait_ns > 0:
            time.sleep(wait_ns / 1e9)
        lane.step()
        latencies[number] = time.perf_counter_ns() - arrival_ns
    return Paced(
        frames=count,
        misses=int((latencies > deadline_ns).sum()),
        latency=Histogram.of(latencies),
    )


def _row(lane: _Lane, samples: Samples) -> Row:
    stages = {
        stage: Summary.of(Histogram.merged([each.stages[stage] for each in lane.rounds]))
        for stage in lane.rounds[0].stages
    }
    count = sum(each.stages["total"].count for each in lane.rounds)
    power_w = samples.mean_power_w(lane.spans_s)
    return Row(
        engine=lane.configuration.engine,
        engine_version=lane.engine.version,
        threads=lane.configuration.threads,
        batch=lane.configuration.batch,
        source=lane.configuration.source.name,
        opening=lane.opening,
        after_idle_ms=tuple(lane.after_idle_ms),
        stages=stages,
        frames_per_second=count / lane.busy_s,
        memory_mib=lane.memory_mib,
        power_w=power_w,
        energy_mj=None if power_w is None else power_w * lane.busy_s / count * 1e3,
        paced=lane.paced,
        rounds=tuple(lane.rounds),
        course=tuple(lane.course),
    )
