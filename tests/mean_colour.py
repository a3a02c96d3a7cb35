"""An engine that tells colours apart, and its bundle: answers can be worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from qpde_perception.bundles import Bundle, Manifest
from qpde_perception.engines import EngineError
from qpde_perception.frames import InputSpec


class MeanColourEngine:
    """One matrix product: the logits are the mean red, green and blue, 0 to 10."""

    name = "mean-colour"
    version = "1"

    def __init__(self, refused=None, error=EngineError):
        self.refused, self.error = refused, error
        self.batches = []

    def infer(self, batch):
        self.batches.append(batch)
        logits = (batch.mean(axis=(1, 2)) / 25.5).astype(np.float32)
        if self.refused is not None and self.refused in logits.argmax(axis=1):
            msg = "mean-colour: a colour that it does not like"
            raise self.error(msg)
        return logits

    def close(self):
        pass


def bundle(labels=("red", "green", "blue")):
    manifest = Manifest(
        format_version=1,
        name="colours",
        task="colour of a region",
        network="mean",
        parameters=9,
        weight_bits=8,
        activation_bits=8,
        input=InputSpec(height=8, width=8),
        labels=labels,
        engines=("mean-colour",),
        files={},
    )
    return Bundle(path=Path("colours"), manifest=manifest, contents={})
