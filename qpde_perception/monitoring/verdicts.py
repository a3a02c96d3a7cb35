"""What the drift monitor takes and what it says."""

from __future__ import annotations

from dataclasses import dataclass

from qpde_perception.bundles import Cause
from qpde_perception.monitoring.levels import Level

LEVELS = {
    Cause.ENGINE_CHANGED: Level.ERROR,
    Cause.PREPROCESSING_WRONG: Level.ERROR,
    Cause.CAMERA_DEGRADED: Level.WARN,
    Cause.WORLD_CHANGED: Level.WARN,
    Cause.REFERENCE_UNAVAILABLE: Level.WARN,
}

REMEDIES = {
    Cause.ENGINE_CHANGED: (
        "Do not rely on this engine: restart the node, so that the engine is loaded and tested "
        "anew; if it stays, delete the kept engine and build it again, or serve with another one."
    ),
    Cause.PREPROCESSING_WRONG: (
        "Check the pixel encoding that the driver announces, and whatever converts or resizes "
        "images before this node: order of channels, range of values, method of resizing."
    ),
    Cause.CAMERA_DEGRADED: (
        "Look at the camera's picture: clean the lens, check focus, exposure, gain and cable."
    ),
    Cause.WORLD_CHANGED: (
        "The network sees what it was not validated on: record a drive, measure its accuracy "
        "there, and calibrate or train again with such data where it must hold."
    ),
    Cause.REFERENCE_UNAVAILABLE: (
        "Check that the bundle has reference_unrounded.onnx and that ONNX Runtime can load it."
    ),
}


@dataclass(frozen=True, slots=True)
class Observation:
    """One sampled item: what the engine and the float reference said of it.

    Attributes:
        squared_distance: Between the logits of the engine and of the reference.
        disagrees: Whether their first classes differ.
        saturation: Share of each tap's activations, in the reference, that the grid cuts off.
        statistics: Of the network's input, in the calibration's order.
        class_index: First class of the engine.
        entropy: Of the engine's probabilities, nats.
    """

    squared_distance: float
    disagrees: bool
    saturation: tuple[float, ...]
    statistics: tuple[float, ...]
    class_index: int
    entropy: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """One thing that has changed.

    Attributes:
        cause: What it is.
        rule: Which rule found it: `proof`, `exact`, `noise`, `disagreement`, `saturation`, `inputs`
            or `reference`.
        level: How bad it is.
        message: One sentence for people.
        remedy: What to do about it.
        fault: The most likely fault of the inputs; empty for other rules, and where none is near.
    """

    cause: Cause
    rule: str
    level: Level
    message: str
    remedy: str
    fault: str = ""


@dataclass(frozen=True, slots=True)
class DriftReport:
    """What the monitor says at one moment.

    Attributes:
        level: The worst of the verdicts.
        causes: The verdicts, worst first.
        unwatched: What is not watched, and why.
        observed: Items observed.
        golden_checks: How often the golden frames were asked.
        golden_identical: Whether they were answered as at first, the last time; None before.
        golden_rms_over_noise: Their distance from the integer reference, root mean square, in units
            of the quantization noise, the last time; None before.
        golden_max_over_noise: The largest single distance, in the same unit.
        noise_ratio: Recent mean of the squared distance over its healthy mean: 1 in a healthy
            engine; None where nothing was observed or nothing is known.
        disagreement: Recent share of items whose first class differs from the reference's.
        saturation: Recent share of cut-off activations of each tap.
        evidence: Evidence of each observable, as the decimal logarithm; below 0 speaks for health.
        combined_evidence: Of the average of all; None where there is none.
        alarm_at: Combined evidence at which a verdict is raised: -log10(alpha).
        entropy: Recent mean of the entropy, nats; for information.
        class_mix_distance: Total variation between the recent and the calibrated mix of classes, 0
            to 1; for information.
    """

    level: Level
    causes: tuple[Verdict, ...]
    unwatched: tuple[str, ...]
    observed: int
    golden_checks: int
    golden_identical: bool | None
    golden_rms_over_noise: float | None
    golden_max_over_noise: float | None
    noise_ratio: float | None
    disagreement: float | None
    saturation: dict[str, float]
    evidence: dict[str, float]
    combined_evidence: float | None
    alarm_at: float
    entropy: float | None
    class_mix_distance: float | None


def verdict(cause: Cause, rule: str, message: str, fault: str = "") -> Verdict:
    """Return a verdict with the level and the remedy of its cause."""
    return Verdict(cause, rule, LEVELS[cause], message, REMEDIES[cause], fault)
