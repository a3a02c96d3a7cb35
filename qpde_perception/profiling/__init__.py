"""Profiling: how long frames take on this machine, and whether that has changed."""

from qpde_perception.profiling.budgets import Breach, Budget, breaches, read_budgets
from qpde_perception.profiling.comparison import SMALLEST_CHANGE, Change, Comparison, compare
from qpde_perception.profiling.errors import ProfilingError
from qpde_perception.profiling.harness import Configuration, profile
from qpde_perception.profiling.histogram import Histogram
from qpde_perception.profiling.schema import Profile, Row, Settings, read_profile
from qpde_perception.profiling.sources import Source

__all__ = [
    "SMALLEST_CHANGE",
    "Breach",
    "Budget",
    "Change",
    "Comparison",
    "Configuration",
    "Histogram",
    "Profile",
    "ProfilingError",
    "Row",
    "Settings",
    "Source",
    "breaches",
    "compare",
    "profile",
    "read_budgets",
    "read_profile",
]
