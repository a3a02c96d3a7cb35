"""A fixed piece of work that tells how fast the machine is just now, whatever is profiled.

A processor slows down when its twin on the same core works, when others fill its caches, or when
it gets warm: for minutes, so that no round of a run shows it. What is done here is done by no part
of the road, and changes with none: arithmetic on vectors, and the decoding of a small JPEG.
"""

from __future__ import annotations

import time

import cv2
import numpy as np

_REPEATS = 9
_VECTORS = 200


class Yardstick:
    """The work, prepared."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        coarse = cv2.resize(rng.integers(0, 256, (24, 32, 3), np.uint8), (320, 240))
        noisy = np.clip(coarse + rng.integers(-6, 7, coarse.shape), 0, 255).astype(np.uint8)
        self._jpeg = cv2.imencode(".jpg", noisy)[1]
        self._vector = rng.normal(size=4096).astype(np.float32)
        self._result = np.empty_like(self._vector)

    def measure_ms(self) -> float:
        """Return what the work takes now, milliseconds: the median of a few times."""
        times_ns = np.empty(_REPEATS)
        for number in range(_REPEATS):
            started = time.perf_counter_ns()
            cv2.imdecode(self._jpeg, cv2.IMREAD_COLOR)
            for _ in range(_VECTORS):
                np.multiply(self._vector, 0.999, out=self._result)
                np.add(self._result, self._vector, out=self._result)
            times_ns[number] = time.perf_counter_ns() - started
        return float(np.median(times_ns)) / 1e6
