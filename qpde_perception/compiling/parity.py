"""Parity: how far each engine's logits are from the integer reference's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qpde_perception.bundles import MAX_OVER_NOISE, MAX_RMS_OVER_NOISE
from qpde_perception.compiling.reference import IntegerReference
from qpde_perception.compiling.specification import SPECIFICATION, WEIGHTS, Specification
from qpde_perception.engines.onnxruntime import OnnxRuntimeEngine
from qpde_perception.engines.registry import FLOAT_GRAPH

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from qpde_perception.bundles import Bundle
    from qpde_perception.engines import Engine

    Logits = NDArray[np.float32]
    Pixels = NDArray[np.uint8]

MIN_TOP1_AGREEMENT = 0.9995
BATCH = 64


@dataclass(frozen=True, slots=True)
class Disagreement:
    """An image whose first class is another than the reference's.

    Attributes:
        image: Position in the data.
        reference: Class of the integer reference.
        engine: Class of the engine.
        margin: How far the reference's first logit is above that of the engine's class.
    """

    image: int
    reference: int
    engine: int
    margin: float


@dataclass(frozen=True, slots=True)
class Parity:
    """One engine held against the integer reference.

    Attributes:
        top1_agreement: Share of images with the same first class.
        identical_share: Share of logits that are the same to the last bit.
        rms_over_noise: Root mean square of the difference, over that of the quantization noise.
        max_over_noise: Largest difference, over the root mean square of the quantization noise.
        disagreements: Every image with another first class.
    """

    top1_agreement: float
    identical_share: float
    rms_over_noise: float
    max_over_noise: float
    disagreements: tuple[Disagreement, ...]

    @property
    def ok(self) -> bool:
        """Whether the engine stays within the budget."""
        return (
            self.rms_over_noise <= MAX_RMS_OVER_NOISE
            and self.max_over_noise <= MAX_OVER_NOISE
            and self.top1_agreement >= MIN_TOP1_AGREEMENT
        )


def reference_of(bundle: Bundle) -> IntegerReference:
    """Return the integer reference of a bundle's specification."""
    specification = Specification.from_files(bundle.read(SPECIFICATION), bundle.read(WEIGHTS))
    return IntegerReference(specification)


def float_reference_of(bundle: Bundle) -> Engine:
    """Return the network with the deployed integer weights and unquantized activations."""
    return OnnxRuntimeEngine(bundle.read(FLOAT_GRAPH), threads=0)


def in_batches(
    engine: Engine, pixels: Pixels, advance: Callable[[int], None] = lambda _done: None
) -> Logits:
    """Run an engine over many images; `advance` is told how many are done."""
    parts = []
    for start in range(0, len(pixels), BATCH):
        parts.append(engine.infer(np.ascontiguousarray(pixels[start : start + BATCH])))
        advance(min(start + BATCH, len(pixels)))
    return np.concatenate(parts)


def quantization_noise(reference: Logits, unquantized: Logits) -> float:
    """Return the root mean square of what the rounding of activations changes in a logit."""
    return float(np.sqrt(np.mean((reference.astype(np.float64) - unquantized) ** 2)))


def compare(reference: Logits, logits: Logits, noise: float) -> Parity:
    """Hold logits against the reference's, both of shape (n, classes)."""
    difference = np.abs(logits.astype(np.float64) - reference)
    expected, got = reference.argmax(1), logits.argmax(1)
    images = np.flatnonzero(expected != got)
    return Parity(
        top1_agreement=float(np.mean(expected == got)),
        identical_share=float(np.mean(logits == reference)),
        rms_over_noise=float(np.sqrt(np.mean(difference**2))) / noise,
        max_over_noise=float(difference.max()) / noise,
        disagreements=tuple(
            Disagreement(
                image=int(i),
                reference=int(expected[i]),
                engine=int(got[i]),
                margin=float(reference[i, expected[i]] - reference[i, got[i]]),
            )
            for i in images
        ),
    )
