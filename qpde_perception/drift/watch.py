"""The watch over a served model: a share of its frames, and its golden frames, held together."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Lock
from typing import TYPE_CHECKING

from qpde_perception.bundles import BundleError, calibration_of, global_bound_of
from qpde_perception.drift.golden_watch import GoldenWatch
from qpde_perception.drift.shadow import Sampling, Shadow
from qpde_perception.engines import REFERENCE, EngineError, open_reference
from qpde_perception.monitoring import DriftMonitor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from qpde_perception.bundles import Bundle
    from qpde_perception.engines import Engine
    from qpde_perception.monitoring import DriftReport, Observation, Verdict
    from qpde_perception.perception.classifier import Classifier

ALIKE = 32
"""Items in a row that are alike: a sign is seen in about as many frames."""


def block_of(share: float) -> int:
    """Return how many sampled items in a row the evidence takes as one, at least 1."""
    return max(math.ceil(ALIKE * share), 1)


@dataclass(frozen=True, slots=True)
class DriftPolicy:
    """How closely a model is watched.

    Attributes:
        share: Share of the items that are held against the float reference; 0 for none.
        golden_period_s: Time between two rounds of golden frames, seconds; 0 for one round.
        alpha: Probability of ever raising a false statistical alarm, of each engine that serves.
    """

    share: float
    golden_period_s: float
    alpha: float


class DriftWatch:
    """Watches the engine that serves a model; each engine is judged for itself.

    `observe` and `between` belong to the thread of the engine, `report` to any.
    """

    def __init__(
        self,
        bundle: Bundle,
        policy: DriftPolicy,
        *,
        background: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare.

        Args:
            bundle: The model.
            policy: How closely it is watched.
            background: Whether the reference is asked in a thread of its own, else within
                `between`; see `Shadow`.
            clock: Seconds, only forward.

        Raises:
            BundleError: If the calibration, the certificate or the golden frames are damaged.
        """
        self._bundle, self._policy, self._clock = bundle, policy, clock
        self._calibration = calibration_of(bundle)
        self._global_bound = global_bound_of(bundle)
        self._engine: Engine | None = None
        self._telling = Lock()
        self.told = 0
        """How often there was news of the engine that serves."""
        self._lost = ""
        self._shadow: Shadow | None = None
        if policy.share > 0.0:
            try:
                reference = open_reference(bundle)
            except (BundleError, EngineError) as error:
                self._lost = str(error)
            else:
                self._shadow = Shadow(
                    reference, self._lose, share=policy.share, background=background
                )
        self._begin(None)

    @property
    def report(self) -> DriftReport:
        """What is known of the engine that serves."""
        with self._telling:
            report = self._monitor.report
        unwatched = list(report.unwatched)
        if not self._policy.share:
            unwatched.append("everything but golden frames: no frame is sampled")
        if self.engine_name == REFERENCE:
            unwatched.append("golden frames: the float reference serves, which does not round")
        return replace(report, unwatched=tuple(unwatched))

    @property
    def worst(self) -> Verdict | None:
        """The worst verdict on the engine that serves; quick, for whoever asks every frame."""
        return self._worst

    @property
    def engine_name(self) -> str:
        """The engine that is watched; empty before the first."""
        return self._engine.name if self._engine is not None else ""

    @property
    def sampling(self) -> Sampling:
        """How many items were chosen."""
        return self._shadow.sampling if self._shadow else Sampling()

    def observe(self, batch: NDArray[np.uint8], logits: NDArray[np.float32]) -> None:
        """Take note of what the engine answered: the `observer` of the classifiers."""
        if self._shadow is not None:
            self._shadow(batch, logits)

    def between(self, classifier: Classifier) -> bool:
        """Ask the next golden frames where they are due; called between two frames.

        Without a thread in the background, what was sampled is held against the reference first.

        Returns:
            Whether a round of golden frames is under way.

        Raises:
            EngineError: If the engine fails.
        """
        if classifier.engine is not self._engine:
            self._begin(classifier.engine)
        if self._shadow is not None:
            self._shadow.catch_up()
        if classifier.engine.name == REFERENCE:
            return False  # the golden answers are those of the integers, from which it differs
        now_s = self._clock()
        answer = self._golden.step(classifier.infer, now_s, wanted=self._wanted)
        if answer is not None:
            with self._judging():
                self._monitor.golden(
                    identical=answer.identical,
                    rms_over_noise=answer.rms_over_noise,
                    max_over_noise=answer.max_over_noise,
                    within_budget=answer.within_budget,
                )
        return self._golden.under_way

    def fail(self, fault: str) -> None:
        """Take note that the engine failed."""
        with self._judging():
            self._monitor.fail(fault)

    def ask_golden(self) -> None:
        """Have the golden frames asked from the next `between` on."""
        self._golden.begin()

    def renew(self) -> None:
        """Forget all suspicion, and ask the golden frames at once; their first answer stands.

        Not while the engine is at work.
        """
        self._begin(self._engine)

    def close(self) -> None:
        """Observe no more."""
        if self._shadow is not None:
            self._shadow.close()

    def _begin(self, engine: Engine | None) -> None:
        monitor = DriftMonitor(
            self._calibration,
            global_bound=self._global_bound,
            alpha=self._policy.alpha,
            block=block_of(self._policy.share),
        )
        if self._lost:
            monitor.lose_reference(self._lost)

        def tell(observation: Observation) -> None:
            with self._judging():
                monitor.observe(observation)

        # What waits for the reference is the answer of the engine before, and told to its monitor.
        if self._shadow is not None:
            self._shadow.tell = tell
        if engine is None or engine is not self._engine:
            self._golden = GoldenWatch(self._bundle, self._policy.golden_period_s)
        else:
            self._golden.begin()
        with self._telling:
            self._engine, self._monitor = engine, monitor
            self._keep()

    def _lose(self, why: str) -> None:
        with self._judging():
            self._lost = why
            self._monitor.lose_reference(why)

    @contextmanager
    def _judging(self) -> Iterator[None]:
        """Tell the monitor something."""
        with self._telling:
            yield
            self._keep()

    def _keep(self) -> None:
        """Have at hand what is asked every frame."""
        self._worst = next(iter(self._monitor.report.causes), None)
        self._wanted = self._monitor.wants_golden
        self.told += 1
