"""What the classifier says of itself: of its engine, and of the frames since it was activated."""

from __future__ import annotations

import time
from threading import Lock
from typing import TYPE_CHECKING

from qpde_perception.monitoring import (
    Accounting,
    CameraReport,
    Counts,
    EngineReport,
    ProcessingTimeWatchdog,
    TaskStatus,
    WatchdogLimits,
    camera_input_task,
    engine_task,
    frame_accounting_task,
    processing_time_task,
    transport_task,
)
from ros2_nodes.worker import Loss

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qpde_perception.perception import Perception
    from ros2_nodes.camera import Camera
    from ros2_nodes.engine_line import EngineLine
    from ros2_nodes.parameters import Settings

_NOTHING = Counts(0, 0, {})


class Traffic:
    """The frames of all cameras since the node was activated; several threads may tell of them."""

    def __init__(self, cameras: Sequence[Camera], settings: Settings) -> None:
        """Start with nothing seen."""
        self._cameras = tuple(cameras)
        limits = WatchdogLimits(
            settings["diagnostics.max_allowed_processing_time_ms"],
            settings["diagnostics.max_acceptable_consecutive_delay_ms"],
            settings["input_timeout_ms"],
        )
        topics = [camera.topic for camera in cameras]
        self._watchdog = ProcessingTimeWatchdog(topics, time.monotonic_ns(), limits)
        self._accounting, self._counting = Accounting(), Lock()
        self._counts = _NOTHING
        self._reports: dict[str, CameraReport] = {}
        self._transport = tuple(camera.transport for camera in cameras)

    def arrived(self, topic: str) -> None:
        """Note that a frame came."""
        with self._counting:
            self._accounting.received(topic)
        self._watchdog.arrived(topic, time.monotonic_ns())

    def started(self, topic: str) -> None:
        """Note that a frame is being worked on."""
        self._watchdog.started(topic, time.monotonic_ns())

    def ended(self, topic: str, outcome: Perception | Loss) -> None:
        """Note how a frame ended."""
        if isinstance(outcome, Loss):
            self._watchdog.abandoned(topic)
        else:
            self._watchdog.finished(topic, outcome.stages_ms, time.monotonic_ns())
        with self._counting:
            if isinstance(outcome, Loss):
                self._accounting.dropped(topic, outcome.reason)
            else:
                self._accounting.published(topic)

    def processing_time(self) -> TaskStatus:
        """Say whether frames are processed in time, and whether every camera still sends."""
        return processing_time_task(self._watchdog.report(time.monotonic_ns()))

    def tasks(self) -> list[TaskStatus]:
        """Say how frames arrive and end; what happened since the last time sets the levels."""
        ages = self._watchdog.report(time.monotonic_ns()).inputs
        with self._counting:
            counts, by_topic = self._accounting.totals, self._accounting.topics
        said = []
        for camera in self._cameras:
            report = camera.report(by_topic.get(camera.topic, _NOTHING), ages[camera.topic])
            said.append(camera_input_task(report, self._reports.get(camera.topic)))
            self._reports[camera.topic] = report
        transport = tuple(camera.transport for camera in self._cameras)
        said.append(frame_accounting_task(counts, self._counts))
        said.append(transport_task(transport, self._transport))
        self._counts, self._transport = counts, transport
        return said


def engine_status(line: EngineLine | None, model: str, *, waiting: str, fault: str) -> TaskStatus:
    """Say which engine serves and how it came about.

    Args:
        line: The engines; None before one was asked for.
        model: The model's name.
        waiting: What is being done, where it is not settled yet which engine serves.
        fault: Why no engine was even tried, where that is so.
    """
    refused = dict(line.refusals) if line else {}  # before the engine, which may fail now
    opened = line.opened if line else None
    test = opened.self_test if opened else None
    return engine_task(
        EngineReport(
            model=model,
            name=opened.engine.name if opened else "",
            version=opened.engine.version if opened else "",
            waiting=(line.building if line else "") or waiting,
            cache=opened.cache if opened else "none",
            cache_reason=opened.reason if opened else "",
            build_ms=opened.build_ms if opened else None,
            refused=refused,
            rms_over_noise=test.rms_over_noise if test else None,
            max_over_noise=test.max_over_noise if test else None,
            fault=fault,
        )
    )
