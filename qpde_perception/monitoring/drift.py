"""Quantization drift: whether the deployed network still is what was validated, and what changed.

Two kinds of rules. Proofs: a distance to the float reference above the global bound, golden frames
that are answered otherwise than at first or out of budget, logits that are not finite. They are
never false, and so they stay: an engine that was wrong once is not the one that was validated.
Evidence: each observable has an e-process against its healthy mean, see `suspicion.py`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from qpde_perception.bundles import Cause
from qpde_perception.monitoring.errors import MonitoringError
from qpde_perception.monitoring.levels import Level
from qpde_perception.monitoring.recent import Recent
from qpde_perception.monitoring.suspicion import Suspicion
from qpde_perception.monitoring.verdicts import DriftReport, Observation, Verdict, verdict

if TYPE_CHECKING:
    from qpde_perception.bundles import Calibration


class DriftMonitor:
    """Turns observations into verdicts: pure numbers, one thread at a time.

    It watches one engine: make a new one where another engine takes over.
    """

    def __init__(
        self,
        calibration: Calibration | None,
        *,
        global_bound: float | None,
        alpha: float,
        block: int = 1,
    ) -> None:
        """Start without suspicion.

        Args:
            calibration: What is normal; None where the bundle does not say.
            global_bound: Largest distance of a healthy engine's logits from the reference's; None
                where there is no certificate.
            alpha: Probability of ever raising a verdict on evidence while nothing has changed, at
                most.
            block: Number of items whose mean is one number for the evidence. Items of one track, or
                of one stretch of road, are alike: where many are sampled the null holds of the mean
                of each such group, and not of each item given the one before.

        Raises:
            MonitoringError: If alpha is not above 0 and below 1, or the bound is not above 0.
        """
        if not 0 < alpha < 1:
            msg = f"alpha is {alpha}; give a probability above 0 and below 1"
            raise MonitoringError(msg)
        if global_bound is not None and not global_bound > 0:
            msg = f"the global bound is {global_bound}; give a distance above 0, or none"
            raise MonitoringError(msg)
        self._calibration = calibration
        self._bound = global_bound
        self._alpha = alpha
        self._suspicion = Suspicion(calibration, alpha, block) if calibration else None
        self._recent = Recent(calibration)
        self._proofs: list[Verdict] = []
        self._proof_answered = True
        self._lost = ""
        self._observed = 0
        self._golden_checks = 0
        self._golden: tuple[bool, float, float] | None = None

    def observe(self, observation: Observation) -> None:
        """Take one sampled item; one whose distance is not finite is a failure of the engine.

        Raises:
            MonitoringError: If it does not fit the calibration.
        """
        self._check(observation)
        self._lost = ""
        distance = observation.squared_distance
        if not math.isfinite(distance):
            self.fail("its logits are not finite")
            return
        self._observed += 1
        if self._bound is not None and distance > self._bound**2:
            self._prove(
                "proof",
                f"Logits are {math.sqrt(distance):.4g} from the float reference; those of an "
                f"engine that computes what was validated are within {self._bound:.4g}.",
            )
        self._recent.add(observation)
        if self._suspicion:
            self._suspicion.add(observation)

    def golden(
        self, *, identical: bool, rms_over_noise: float, max_over_noise: float, within_budget: bool
    ) -> None:
        """Take an answer to the golden frames.

        Args:
            identical: Whether it is the first answer, bit by bit; True for the first itself.
            rms_over_noise: Its distance from the integer reference, root mean square, in units of
                the quantization noise.
            max_over_noise: The largest single distance, in the same unit.
            within_budget: Whether these are what an engine of this precision may have.
        """
        self._golden_checks += 1
        self._golden = (identical, rms_over_noise, max_over_noise)
        if self._suspicion:
            self._suspicion.golden(passed=identical and within_budget)
        if not identical:
            self._prove("exact", "Golden frames are answered otherwise than at first.")
        elif not within_budget:
            self._prove(
                "exact",
                f"Golden frames are answered {rms_over_noise:.3g} times the quantization noise "
                f"from the integer reference, {max_over_noise:.3g} at most: out of budget.",
            )
        self._proof_answered = True

    def fail(self, fault: str) -> None:
        """Note that the engine gave no logits, or none that are finite.

        Args:
            fault: What happened, to be read after "The engine failed:".
        """
        self._prove("exact", f"The engine failed: {fault}.")

    def lose_reference(self, why: str) -> None:
        """Note that the reference does not answer; the next observation says that it does again.

        Args:
            why: To be read after "The float reference is unavailable:".
        """
        self._lost = why or "no reason is known"

    @property
    def wants_golden(self) -> bool:
        """Whether golden frames should be asked now, without waiting for the next period.

        True from when suspicion has risen until they were answered; then not before it has fallen,
        or has become a verdict.
        """
        asked_by_evidence = self._suspicion is not None and self._suspicion.wants_golden
        return not self._proof_answered or asked_by_evidence

    @property
    def report(self) -> DriftReport:
        """What there is to say now."""
        causes = list(self._proofs)
        if self._lost:
            message = f"The float reference is unavailable: {self._lost}."
            causes.append(verdict(Cause.REFERENCE_UNAVAILABLE, "reference", message))
        if self._suspicion:
            causes += self._suspicion.verdicts(self._recent)
        causes.sort(key=lambda each: -each.level)
        identical, rms, largest = self._golden or (None, None, None)
        recent = self._recent
        return DriftReport(
            level=causes[0].level if causes else Level.OK,
            causes=tuple(causes),
            unwatched=self._unwatched(),
            observed=self._observed,
            golden_checks=self._golden_checks,
            golden_identical=identical,
            golden_rms_over_noise=rms,
            golden_max_over_noise=largest,
            noise_ratio=recent.noise_ratio,
            disagreement=recent.disagreement,
            saturation=recent.saturation,
            evidence=self._suspicion.evidence if self._suspicion else {},
            combined_evidence=self._suspicion.combined if self._suspicion else None,
            alarm_at=-math.log10(self._alpha),
            entropy=recent.entropy,
            class_mix_distance=recent.class_mix_distance,
        )

    def _prove(self, rule: str, message: str) -> None:
        """Keep the first proof of each rule."""
        if all(each.rule != rule for each in self._proofs):
            self._proofs.append(verdict(Cause.ENGINE_CHANGED, rule, message))
            self._proof_answered = False

    def _check(self, observation: Observation) -> None:
        if self._calibration is None:
            return
        for name, given, wanted in (
            ("taps", len(observation.saturation), len(self._calibration.taps)),
            ("statistics", len(observation.statistics), len(self._calibration.inputs.statistics)),
        ):
            if given != wanted:
                msg = (
                    f"an observation of {given} {name}, but the calibration knows {wanted}; "
                    "calibrate the model again"
                )
                raise MonitoringError(msg)

    def _unwatched(self) -> tuple[str, ...]:
        missing = []
        if self._calibration is None:
            missing.append(
                "noise, disagreement, saturation and inputs: the bundle has no calibration; make "
                "one with `qpde calibrate`"
            )
        if self._bound is None:
            missing.append("global bound: the bundle has no certificate that states one")
        if self._lost:
            missing.append(f"all but golden frames: the float reference is missing: {self._lost}")
        return tuple(missing)
