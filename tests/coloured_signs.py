"""Signs that a tiny network learns in seconds, and who watches it learn."""

from __future__ import annotations

import numpy as np

from qpde_perception.frames import InputSpec
from qpde_perception.learning.signs import SignRecord, SignSet
from qpde_perception.learning.training import TrainingConfig

TINY = "symmetric_mobilenet_v2_tiny"
SPEC = InputSpec(height=16, width=16)
CONFIG = TrainingConfig(
    network=TINY, float_epochs=3, quantized_epochs=2, frozen_epochs=1, batch=16, learning_rate=0.008
)
COLOURS = [(40, 40, 200), (40, 200, 40), (200, 40, 40), (200, 200, 40), (200, 40, 200)]


def coloured_signs(per_class=40):
    """Five classes of coloured squares of their own sizes, a quarter of each to watch.

    Of the watched ones a twentieth bears a wrong name, so that nobody can be sure of them all.
    """
    rng = np.random.default_rng(0)
    chunks, records, offset = [], [], 0
    for index in range(5 * per_class):
        size = int(rng.integers(17, 24))
        image = np.clip(rng.normal(COLOURS[index % 5], 30, (size, size, 3)), 0, 255)
        split = "val" if index // 5 % 4 == 0 else "train"
        named = (index + (index % 80 == 0)) % 5
        records.append(SignRecord(offset, size, size, named, f"t{index}", split))
        chunks.append(image.astype(np.uint8).reshape(-1))
        offset += image.size
    return SignSet(np.concatenate(chunks), records, tuple("abcde"))


class Watcher:
    """Notes what it hears, and pulls the plug after a given epoch."""

    def __init__(self, stop_after=None):
        self.stop_after = stop_after
        self.batches = []
        self.epochs = []

    def batch(self, epoch, done, total):
        self.batches.append((epoch, done, total))

    def epoch(self, metrics):
        self.epochs.append(metrics)
        if metrics["epoch"] == self.stop_after:
            raise KeyboardInterrupt
