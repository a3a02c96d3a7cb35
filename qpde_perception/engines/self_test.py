"""The self-test: an engine answers the golden frames before it may serve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from qpde_perception.bundles import MAX_OVER_NOISE, MAX_RMS_OVER_NOISE, golden_of
from qpde_perception.engines.errors import EngineError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qpde_perception.bundles import Bundle, Golden
    from qpde_perception.engines.engine import Engine


@runtime_checkable
class Observing(Protocol):
    """An engine that also tells how many codes of each tap saturate."""

    def observe(self, batch: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return logits, float32 (n, classes), and shares of saturated codes, float32 (n, taps)."""
        ...


@dataclass(frozen=True, slots=True)
class SelfTest:
    """How far an engine's logits of the golden frames are from the integer reference's.

    Attributes:
        frames: Number of golden frames.
        rms_over_noise: Root mean square of the difference, over that of the quantization noise.
        max_over_noise: Largest difference, over the root mean square of the quantization noise.
        strange_tap: The first tap, in order of execution, whose share of saturated codes differs;
            empty where none does, or nothing is known of any.
    """

    frames: int
    rms_over_noise: float
    max_over_noise: float
    strange_tap: str = ""

    @property
    def ok(self) -> bool:
        """Whether the engine may serve; no number is no answer."""
        return self.rms_over_noise <= MAX_RMS_OVER_NOISE and self.max_over_noise <= MAX_OVER_NOISE

    @property
    def told(self) -> str:
        """The figures beside their budgets, and where an engine that fails begins to differ."""
        figures = (
            f"{self.rms_over_noise:.3g} of the quantization noise (at most {MAX_RMS_OVER_NOISE}), "
            f"largest {self.max_over_noise:.3g} (at most {MAX_OVER_NOISE})"
        )
        if self.ok or not self.strange_tap:
            return figures
        return f"{figures}; the first tap that differs is {self.strange_tap}"


def self_test(bundle: Bundle, engine: Engine) -> SelfTest:
    """Ask an engine the bundle's golden frames.

    Raises:
        EngineError: If the engine fails to run.
        BundleError: If the golden frames are missing or damaged.
    """
    golden = golden_of(bundle)
    strange = ""
    if golden.taps and isinstance(engine, Observing):
        logits, saturation = engine.observe(golden.pixels)
        _check(engine, "shares of taps", saturation, golden.saturation)
        strange = _strange_tap(golden, saturation)
    else:
        logits = engine.infer(golden.pixels)
    _check(engine, "logits", logits, golden.logits)
    rms, largest = golden.distance(logits)
    return SelfTest(len(golden.pixels), rms, largest, strange)


def _check(engine: Engine, what: str, got: NDArray[Any], expected: NDArray[Any]) -> None:
    if got.shape != expected.shape:
        msg = (
            f"engine {engine.name} {engine.version} gives {what} of shape {got.shape} for golden "
            f"frames that have {expected.shape}: its graph is another model's; refused"
        )
        raise EngineError(msg)


def _strange_tap(golden: Golden, saturation: NDArray[np.float32]) -> str:
    # A share that moves by as much as all of it is, on any frame, is more than an engine's own
    # rounding does, which moves a code by one step here and there.
    moved = np.abs(saturation - golden.saturation).max(0) > golden.saturation.mean(0)
    return next((tap for tap, strange in zip(golden.taps, moved, strict=True) if strange), "")
