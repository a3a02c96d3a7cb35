"""The drift watch over a recorded drive: the same words every time, and never in a frame's time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qpde_perception.bags.replay import Dropped, Published
from qpde_perception.drift import DriftPolicy, DriftWatch
from qpde_perception.engines import EngineError
from qpde_perception.monitoring import DriftCourse, DropReason, drift_task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from qpde_perception.bundles import Bundle
    from qpde_perception.monitoring import TaskStatus
    from qpde_perception.perception import Classifier

ALPHA = 0.001
GOLDEN_PERIOD_S = 120.0
_NS_PER_S = 1e9


class DriveWatch:
    """Watches the engine that a drive is replayed with, by the clock of the drive."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        share: float,
        alpha: float = ALPHA,
        golden_period_s: float = GOLDEN_PERIOD_S,
    ) -> None:
        """Prepare.

        Args:
            bundle: The model.
            share: Share of the items that are held against the float reference.
            alpha: Probability of ever a false verdict on evidence.
            golden_period_s: Time of the drive between two rounds of golden frames, seconds.

        Raises:
            BundleError: If the calibration, the certificate or the golden frames are damaged.
        """
        self._now_s = 0.0
        self._begin_ns: int | None = None
        policy = DriftPolicy(share, golden_period_s, alpha)
        self._watch = DriftWatch(bundle, policy, background=False, clock=lambda: self._now_s)
        self._told = 0
        self.course = DriftCourse()
        self._share = share

    @property
    def sampled(self) -> int:
        """Number of items that were chosen."""
        return self._watch.sampling.sampled

    def observe(self, batch: NDArray[np.uint8], logits: NDArray[np.float32]) -> None:
        """Take note of what the engine answered: the `observer` of the classifiers."""
        self._watch.observe(batch, logits)

    def begin(self, classifier: Classifier) -> None:
        """Ask the golden frames before the first frame."""
        self._look(classifier, whole=True)

    def after(self, outcome: Published | Dropped, classifier: Classifier) -> None:
        """Judge what was observed with a frame, once its result stands."""
        now_ns = outcome.recorded.log_time_ns
        if self._begin_ns is None:
            self._begin_ns = now_ns
        self._now_s = max(self._now_s, (now_ns - self._begin_ns) / _NS_PER_S)
        if isinstance(outcome, Dropped) and outcome.reason is DropReason.ENGINE_DOWN:
            self._watch.fail(outcome.fault)
        self._look(classifier, whole=False)

    def end(self, classifier: Classifier) -> None:
        """Ask the golden frames for the last time."""
        self._watch.ask_golden()
        self._look(classifier, whole=True)

    def document(self) -> dict[str, Any]:
        """Return what was found as a JSON object."""
        return {"share": self._share, "sampled": self.sampled, **self.course.document()}

    def task(self) -> TaskStatus:
        """Return the task of the diagnostics."""
        return drift_task(self._watch.report)

    def _look(self, classifier: Classifier, *, whole: bool) -> None:
        try:
            while self._watch.between(classifier) and whole:
                pass
        except EngineError as error:
            self._watch.fail(str(error))
        if self._watch.told != self._told:
            self._told = self._watch.told
            self.course.add(self._now_s, self._watch.report)
