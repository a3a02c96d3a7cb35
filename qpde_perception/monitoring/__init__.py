"""Monitoring: plain numbers in, verdicts out."""

from qpde_perception.monitoring.accounting import Accounting, Counts, DropReason
from qpde_perception.monitoring.drift import DriftMonitor
from qpde_perception.monitoring.drift_course import DriftCourse, Episode
from qpde_perception.monitoring.drift_task import drift_task
from qpde_perception.monitoring.errors import MonitoringError
from qpde_perception.monitoring.evidence import Evidence, upper_mean_bound
from qpde_perception.monitoring.latency import LatencyRecorder
from qpde_perception.monitoring.levels import Level, TaskStatus
from qpde_perception.monitoring.losses import LossSnapshot, LossSource, UpstreamLosses
from qpde_perception.monitoring.rates import ExpectedRate, StreamSnapshot, StreamStatistics
from qpde_perception.monitoring.tasks import (
    CameraReport,
    EngineReport,
    TransportReport,
    camera_input_task,
    engine_task,
    frame_accounting_task,
    processing_time_task,
    transport_task,
)
from qpde_perception.monitoring.thinned import Thinned
from qpde_perception.monitoring.verdicts import DriftReport, Observation, Verdict
from qpde_perception.monitoring.watchdog import (
    InputAge,
    ProcessingTimeWatchdog,
    WatchdogLimits,
    WatchdogReport,
)

__all__ = [
    "Accounting",
    "CameraReport",
    "Counts",
    "DriftCourse",
    "DriftMonitor",
    "DriftReport",
    "DropReason",
    "EngineReport",
    "Episode",
    "Evidence",
    "ExpectedRate",
    "InputAge",
    "LatencyRecorder",
    "Level",
    "LossSnapshot",
    "LossSource",
    "MonitoringError",
    "Observation",
    "ProcessingTimeWatchdog",
    "StreamSnapshot",
    "StreamStatistics",
    "TaskStatus",
    "Thinned",
    "TransportReport",
    "UpstreamLosses",
    "Verdict",
    "WatchdogLimits",
    "WatchdogReport",
    "camera_input_task",
    "drift_task",
    "engine_task",
    "frame_accounting_task",
    "processing_time_task",
    "transport_task",
    "upper_mean_bound",
]
