"""Perception: the one road from a camera frame to classes."""

from qpde_perception.perception.classifier import Classifier
from qpde_perception.perception.filters import ExponentialFilter, NoFilter, TemporalFilter
from qpde_perception.perception.scores import softmax
from qpde_perception.perception.values import Perception, RegionResult

__all__ = [
    "Classifier",
    "ExponentialFilter",
    "NoFilter",
    "Perception",
    "RegionResult",
    "TemporalFilter",
    "softmax",
]
