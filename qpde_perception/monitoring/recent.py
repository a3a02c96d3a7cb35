"""What was observed lately, for the eye: averages that forget."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from qpde_perception.bundles import Calibration
    from qpde_perception.monitoring.verdicts import Observation

_MEMORY = 200
"""Observations over which the averages forget."""


class Recent:
    """Recent means of what is observed."""

    def __init__(self, calibration: Calibration | None) -> None:
        """Start with nothing observed."""
        self._variance = calibration.noise.variance if calibration else None
        self._taps = tuple(tap.name for tap in calibration.taps) if calibration else ()
        self._healthy_mix = np.array(calibration.class_mix if calibration else ())
        self._mix = np.zeros_like(self._healthy_mix)
        self._means = np.zeros(3 + len(self._taps))
        self._seen = 0

    def add(self, observation: Observation) -> None:
        """Take one sampled item; what is not a number counts as 0."""
        self._seen += 1
        weight = 1 / min(self._seen, _MEMORY)
        now = np.nan_to_num(
            [
                observation.squared_distance,
                float(observation.disagrees),
                observation.entropy,
                *observation.saturation[: len(self._taps)],
            ]
        )
        self._means += weight * (now - self._means)
        self._mix *= 1 - weight
        if 0 <= observation.class_index < len(self._mix):
            self._mix[observation.class_index] += weight

    @property
    def noise_ratio(self) -> float | None:
        """Squared distance over that of a healthy engine; None where one of both is not known."""
        return float(self._means[0]) / self._variance if self._seen and self._variance else None

    @property
    def disagreement(self) -> float | None:
        """Share of items whose first class differs from the reference's."""
        return float(self._means[1]) if self._seen else None

    @property
    def entropy(self) -> float | None:
        """Entropy of the probabilities, nats."""
        return float(self._means[2]) if self._seen else None

    @property
    def saturation(self) -> dict[str, float]:
        """Share of cut-off activations by tap."""
        if not self._seen:
            return {}
        return dict(zip(self._taps, (float(share) for share in self._means[3:]), strict=True))

    @property
    def class_mix_distance(self) -> float | None:
        """Total variation between this mix of classes and the calibrated one, 0 to 1."""
        if not self._seen or not len(self._mix):
            return None
        return float(np.abs(self._mix - self._healthy_mix).sum() / 2)
