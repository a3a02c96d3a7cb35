"""Other detectors on the same observations, tuned to the same share of false alarms."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]


class Detector(Protocol):
    """Takes the observables of a frame, between 0 and 1; whether it alarms."""

    def __call__(self, values: Sequence[float]) -> bool: ...


class SlidingZ:
    """The mean of the last frames against the calibration's mean, in standard errors."""

    def __init__(self, reference: Array, strictness: float, window: int = 64) -> None:
        self._mean, deviation = reference.mean(0), reference.std(0) + 1e-6
        self._limit = strictness * deviation / np.sqrt(window)
        self._last: deque[Sequence[float]] = deque(maxlen=window)
        self._sum = np.zeros(reference.shape[1])
        self._window = window

    def __call__(self, values: Sequence[float]) -> bool:
        if len(self._last) == self._window:
            self._sum -= self._last[0]
        self._last.append(values)
        self._sum += values
        full = len(self._last) == self._window
        return full and bool((np.abs(self._sum / self._window - self._mean) > self._limit).any())


class OfRiver:
    """One detector of `river` for each observable."""

    def __init__(self, make: Callable[[], object], columns: int) -> None:
        self._each = [make() for _ in range(columns)]

    def __call__(self, values: Sequence[float]) -> bool:
        for detector, value in zip(self._each, values, strict=True):
            detector.update(value)  # type: ignore[attr-defined]
        return any(each.drift_detected for each in self._each)  # type: ignore[attr-defined]


def peers(reference: Array) -> dict[str, tuple[Callable[[float], Detector], tuple[float, ...]]]:
    """Return detectors with their strictnesses, from the most lenient to the strictest.

    Args:
        reference: Healthy observables, shape (frames, observables).
    """
    from river import drift  # noqa: PLC0415  (of the benchmark alone)

    columns = reference.shape[1]
    return {
        "sliding z-test": (
            lambda limit: SlidingZ(reference, limit),
            (3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0),
        ),
        "ADWIN": (
            lambda power: OfRiver(lambda: drift.ADWIN(delta=10.0**-power), columns),
            (2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0),
        ),
        "Page-Hinkley": (
            lambda limit: OfRiver(lambda: drift.PageHinkley(threshold=limit), columns),
            (5.0, 10.0, 20.0, 40.0, 80.0, 160.0),
        ),
        "KSWIN": (
            lambda power: OfRiver(
                lambda: drift.KSWIN(alpha=10.0**-power, window_size=100, seed=1), columns
            ),
            (8.0, 15.0),  # each frame costs it a test for each observable
        ),
    }


def alarm_at(detector: Detector, stream: Array) -> int | None:
    """Return how many frames of a stream a detector takes to its first alarm; None for none."""
    for index, values in enumerate(stream.tolist()):
        if detector(values):
            return index + 1
    return None
