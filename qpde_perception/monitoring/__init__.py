"""Monitoring: plain numbers in, verdicts out."""

from qpde_perception.monitoring.accounting import Accounting, Counts, DropReason
from qpde_perception.monitoring.latency import LatencyRecorder

__all__ = ["Accounting", "Counts", "DropReason", "LatencyRecorder"]
