"""Perception: the one road from a camera frame to classes."""

from qpde_perception.perception.classifier import Classifier, Request, classify_together
from qpde_perception.perception.filters import (
    ExponentialFilter,
    Filtered,
    HysteresisFilter,
    NoFilter,
    TemporalFilter,
)
from qpde_perception.perception.mailbox import Mailbox
from qpde_perception.perception.pipeline import DEFAULT_LIMITS, Limits, Pipeline
from qpde_perception.perception.scores import softmax
from qpde_perception.perception.values import Perception, RegionResult

__all__ = [
    "DEFAULT_LIMITS",
    "Classifier",
    "ExponentialFilter",
    "Filtered",
    "HysteresisFilter",
    "Limits",
    "Mailbox",
    "NoFilter",
    "Perception",
    "Pipeline",
    "RegionResult",
    "Request",
    "TemporalFilter",
    "classify_together",
    "softmax",
]
