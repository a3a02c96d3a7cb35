from __future__ import annotations

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest

from qpde_perception.bundles import (
    Calibration,
    Cause,
    InputReference,
    MeanReference,
    NoiseReference,
    Signature,
    StatisticReference,
    TapReference,
)
from qpde_perception.monitoring import Observation

STATISTICS = ("brightness", "contrast", "sharpness", "red excess", "grain")
SIGNATURES = (
    ("fog", 3, Cause.WORLD_CHANGED, (1.0, -2.0, -0.5, 0.0, 0.0)),
    ("blur", 2, Cause.CAMERA_DEGRADED, (0.0, 0.0, -1.3, 0.0, -1.0)),
    ("blur", 4, Cause.CAMERA_DEGRADED, (0.0, 0.0, -2.5, 0.0, -2.0)),
    ("channels swapped", 0, Cause.PREPROCESSING_WRONG, (0.0, 0.0, 0.0, -2.2, 0.0)),
)


def reference(mean: float, bound: float) -> MeanReference:
    return MeanReference(mean=mean, bound=bound)


@pytest.fixture
def calibration() -> Calibration:
    """What is normal: a distance of 2, one disagreement in a hundred, ranks that are uniform."""
    quantiles = tuple(NormalDist().inv_cdf(min(max(p, 1e-3), 1 - 1e-3)) for p in np.linspace(0, 1))
    half = reference(0.5, 0.55)
    return Calibration(
        source="drive",
        grouping="track",
        groups=200,
        frames=4000,
        confidence=0.95,
        engine="cpu",
        noise=NoiseReference(variance=2.0, cap=10.0, capped=reference(0.1, 0.11)),
        disagreement=reference(0.01, 0.02),
        taps=tuple(
            TapReference(name=name, share=0.01, cap=0.1, capped=reference(0.1, 0.15))
            for name in ("stem", "p1")
        ),
        inputs=InputReference(
            statistics=tuple(
                StatisticReference(name=name, quantiles=quantiles, above=half, below=half)
                for name in STATISTICS
            ),
            covariance=tuple(map(tuple, np.eye(len(STATISTICS)))),
            signatures=tuple(
                Signature(fault=fault, severity=severity, cause=cause, shift=shift)
                for fault, severity, cause, shift in SIGNATURES
            ),
        ),
        class_mix=(0.5, 0.25, 0.25),
        entropy=0.3,
    )


class Drive:
    """Items of a healthy drive, or of one in which something is off; seeded."""

    def __init__(self, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)

    def item(
        self,
        *,
        noise: float = 1.0,
        disagreement: float = 0.01,
        saturation: float = 0.01,
        shift: tuple[float, ...] = (0.0,) * len(STATISTICS),
    ) -> Observation:
        rng = self._rng
        return Observation(
            squared_distance=2.0 * noise * float(rng.chisquare(8)) / 8,
            disagrees=bool(rng.random() < disagreement),
            saturation=tuple((rng.random(2) * 2 * saturation).tolist()),
            statistics=tuple((rng.standard_normal(len(STATISTICS)) + shift).tolist()),
            class_index=int(rng.choice(3, p=[0.5, 0.25, 0.25])),
            entropy=0.3,
        )

    def broken(self, **numbers: object) -> Observation:
        return replace(self.item(), **numbers)


@pytest.fixture
def drive() -> Drive:
    return Drive()
