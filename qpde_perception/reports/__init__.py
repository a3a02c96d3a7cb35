"""Reports: what a person reads after a replay."""

from qpde_perception.reports.accuracy import TruthScore
from qpde_perception.reports.replay_report import ReplayReport, Summary
from qpde_perception.reports.samples import SampleFrames

__all__ = ["ReplayReport", "SampleFrames", "Summary", "TruthScore"]
