"""The golden frames, asked of the live engine again and again, a few at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qpde_perception.bundles import MAX_OVER_NOISE, MAX_RMS_OVER_NOISE, golden_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from qpde_perception.bundles import Bundle

AT_A_TIME = 2
"""Golden frames between two frames of cameras: the next of these waits no longer than for them."""


@dataclass(frozen=True, slots=True)
class GoldenAnswer:
    """How an engine answered the golden frames.

    Attributes:
        identical: Whether bit for bit as it did the first time.
        rms_over_noise: Distance from the integer reference, root mean square, over the noise of
            quantization.
        max_over_noise: The largest distance of one logit, in the same unit.
    """

    identical: bool
    rms_over_noise: float
    max_over_noise: float

    @property
    def within_budget(self) -> bool:
        """Whether the engine might serve; no number is no answer."""
        return self.rms_over_noise <= MAX_RMS_OVER_NOISE and self.max_over_noise <= MAX_OVER_NOISE


class GoldenWatch:
    """Asks one engine the golden frames: at once, every period, and whenever it is told to."""

    def __init__(self, bundle: Bundle, period_s: float) -> None:
        """Prepare.

        Args:
            bundle: The model.
            period_s: Time from the end of one round to the next, seconds; 0 for only one round.

        Raises:
            BundleError: If the golden frames are missing or damaged.
        """
        self._golden, self._period_s = golden_of(bundle), period_s
        self._first: NDArray[np.float32] | None = None
        self._done_s = 0.0
        self.begin()

    def begin(self) -> None:
        """Begin a round anew."""
        self._got: list[NDArray[np.float32]] = []
        self.under_way = True
        """Whether a round is not finished."""

    def step(
        self,
        infer: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
        now_s: float,
        *,
        wanted: bool = False,
    ) -> GoldenAnswer | None:
        """Ask the next few, where a round is due.

        Args:
            infer: The engine: pixels to finite logits.
            now_s: Any clock that only goes forward, seconds.
            wanted: Whether to begin a round before its time.

        Returns:
            The answer where this ended a round, else None.

        Raises:
            EngineError: If the engine fails; it is then another one that is asked.
        """
        periodic = self._period_s > 0.0 and now_s - self._done_s >= self._period_s
        if not (self.under_way or wanted or periodic):
            return None
        self.under_way = True
        start = AT_A_TIME * len(self._got)
        # The same frames together in every round: an engine may round another batch otherwise.
        self._got.append(infer(self._golden.pixels[start : start + AT_A_TIME]))
        if start + AT_A_TIME < len(self._golden.pixels):
            return None
        logits = np.concatenate(self._got)
        self._got, self.under_way, self._done_s = [], False, now_s
        if self._first is None:
            self._first = logits
        rms, largest = self._golden.distance(logits)
        return GoldenAnswer(np.array_equal(logits, self._first), rms, largest)
