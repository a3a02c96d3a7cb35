"""The watchdog: frames that take too long, and cameras that stopped."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qpde_perception.monitoring.errors import MonitoringError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class WatchdogLimits:
    """What the watchdog tolerates; names and defaults are Autoware's, but for the input's.

    Attributes:
        max_allowed_processing_time_ms: A frame that takes longer is late.
        max_acceptable_consecutive_delay_ms: Frames may be late one after another for this long.
        input_timeout_ms: A camera without a frame for longer has stopped.

    Raises:
        MonitoringError: If one is not a number of milliseconds above 0.
    """

    max_allowed_processing_time_ms: float = 200.0
    max_acceptable_consecutive_delay_ms: float = 1000.0
    input_timeout_ms: float = 1000.0

    def __post_init__(self) -> None:
        for name in (
            "max_allowed_processing_time_ms",
            "max_acceptable_consecutive_delay_ms",
            "input_timeout_ms",
        ):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                msg = f"{name} is {value}; give milliseconds above 0"
                raise MonitoringError(msg)


@dataclass(frozen=True, slots=True)
class InputAge:
    """How long a camera has been silent.

    Attributes:
        age_ms: Time since its last frame arrived, or since the start where none did, milliseconds.
        seen: Whether a frame ever arrived.
        stopped: Whether the age is beyond the timeout.
    """

    age_ms: float
    seen: bool
    stopped: bool


@dataclass(frozen=True, slots=True)
class WatchdogReport:
    """What the watchdog says at one moment.

    Attributes:
        limits: What it tolerates.
        slowest: The camera whose frame is reported: of the last frame of each camera the one that
            took longest; None before the first inference.
        processing_time_ms: Time that this frame took, or has taken so far where it is still being
            worked on and late; None before the first inference.
        stages_ms: The stages of the same frame, milliseconds; empty where it is not finished.
        consecutive_delay_ms: How long the frames of a camera have been late one after another, the
            longest of the cameras; 0 where none is late, None before the first inference.
        inputs: How long each camera has been silent.
    """

    limits: WatchdogLimits
    slowest: str | None
    processing_time_ms: float | None
    stages_ms: dict[str, float]
    consecutive_delay_ms: float | None
    inputs: dict[str, InputAge]

    @property
    def in_expected_range(self) -> bool:
        """Whether the reported frame was in time."""
        allowed_ms = self.limits.max_allowed_processing_time_ms
        return self.processing_time_ms is None or self.processing_time_ms <= allowed_ms

    @property
    def delay_in_range(self) -> bool:
        """Whether frames have not been late for too long."""
        acceptable_ms = self.limits.max_acceptable_consecutive_delay_ms
        return self.consecutive_delay_ms is None or self.consecutive_delay_ms <= acceptable_ms

    @property
    def stopped(self) -> tuple[str, ...]:
        """Cameras that have stopped, in their given order."""
        return tuple(camera for camera, age in self.inputs.items() if age.stopped)


class ProcessingTimeWatchdog:
    """Watches how long frames take and whether cameras still send.

    Autoware's `processing_time_status` judges the last processing time alone, and so is content for
    ever when the input stops or the engine hangs. This one also watches the age of each camera's
    last frame, and the frame that is being worked on.

    Every method takes the time of one and the same monotonic clock: these are durations, and must
    run on where a simulated clock stands still. One thread may report while another works.
    """

    def __init__(
        self, cameras: Sequence[str], start_ns: int, limits: WatchdogLimits | None = None
    ) -> None:
        """Start to wait for frames.

        Args:
            cameras: Topics of the cameras.
            start_ns: Now, nanoseconds of a monotonic clock.
            limits: What to tolerate; the defaults where left out.
        """
        self._limits = limits or WatchdogLimits()
        self._cameras = {camera: _Camera(start_ns) for camera in cameras}

    def arrived(self, camera: str, now_ns: int) -> None:
        """Note that a frame arrived from a camera."""
        state = self._cameras[camera]
        state.last_input_ns, state.seen = now_ns, True

    def started(self, camera: str, now_ns: int) -> None:
        """Note that a frame of a camera is being worked on; an earlier one is forgotten."""
        self._cameras[camera].started_ns = now_ns

    def finished(self, camera: str, stages_ms: Mapping[str, float], now_ns: int) -> None:
        """Note that a frame of a camera is done.

        Args:
            camera: Topic of the camera.
            stages_ms: Duration of each stage that ran, and of all as `total`, milliseconds.
            now_ns: Now, nanoseconds of the monotonic clock.
        """
        state = self._cameras[camera]
        if stages_ms["total"] <= self._limits.max_allowed_processing_time_ms:
            state.late_since_ns = None
        elif state.late_since_ns is None:
            state.late_since_ns = now_ns
        state.started_ns = None
        state.stages_ms = dict(stages_ms)

    def abandoned(self, camera: str) -> None:
        """Note that the frame which was being worked on was dropped."""
        self._cameras[camera].started_ns = None

    def report(self, now_ns: int) -> WatchdogReport:
        """Return what there is to say now."""
        inputs = {}
        frames: dict[str, dict[str, float]] = {}
        delays_ms = []
        for name, camera in self._cameras.items():
            age_ms = _ms(now_ns, camera.last_input_ns)
            stopped = age_ms > self._limits.input_timeout_ms
            inputs[name] = InputAge(age_ms=age_ms, seen=camera.seen, stopped=stopped)
            # Read once: the thread that works on frames writes them meanwhile.
            started_ns, late_since_ns = camera.started_ns, camera.late_since_ns
            if camera.stages_ms:
                frames[name] = camera.stages_ms
            if started_ns is not None:
                running_ms = _ms(now_ns, started_ns)
                if running_ms > self._limits.max_allowed_processing_time_ms:
                    frames[name] = {"total": running_ms}
                    if late_since_ns is None:
                        allowed_ms = self._limits.max_allowed_processing_time_ms
                        late_since_ns = started_ns + round(allowed_ms * _NS_PER_MS)
            if late_since_ns is not None:
                delays_ms.append(_ms(now_ns, late_since_ns))
        slowest = max(frames, key=lambda name: frames[name]["total"], default=None)
        shown = dict(frames[slowest]) if slowest is not None else {}
        processing_time_ms = shown.pop("total", None)
        return WatchdogReport(
            limits=self._limits,
            slowest=slowest,
            processing_time_ms=processing_time_ms,
            stages_ms=shown,
            consecutive_delay_ms=max(delays_ms, default=0.0) if slowest is not None else None,
            inputs=inputs,
        )


@dataclass(slots=True)
class _Camera:
    last_input_ns: int
    seen: bool = False
    started_ns: int | None = None
    late_since_ns: int | None = None
    stages_ms: dict[str, float] = field(default_factory=dict)


def _ms(now_ns: int, then_ns: int) -> float:
    return max(now_ns - then_ns, 0) / _NS_PER_MS
