"""Quantization drift: whether the deployed network still is what was validated, and what changed.

The rules, in words, are those of `docs/drift.md`:

- proof: a distance above the global bound, golden frames that are answered otherwise than at first
  or out of budget, logits that are no numbers: the engine has changed. Never false, and never
  withdrawn.
- evidence: each observable has an e-process (`evidence.py`) against its healthy mean. A verdict is
  raised when the average of all reaches 1 / alpha, for those that account for it, and withdrawn
  when theirs is below 1 again.
- what changed: inputs or saturation, which no engine has a part in, mean the world, the camera or
  the preprocessing; the distance to the reference or disagreement mean the engine, but only where
  inputs and saturation are not even under suspicion.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from qpde_perception.bundles import Cause
from qpde_perception.monitoring.diagnosis import Diagnosis, Diagnostician, normal_score, rank
from qpde_perception.monitoring.errors import MonitoringError
from qpde_perception.monitoring.evidence import Evidence
from qpde_perception.monitoring.levels import Level
from qpde_perception.monitoring.verdicts import DriftReport, Observation, Verdict, verdict

if TYPE_CHECKING:
    from qpde_perception.bundles import Calibration

# The cap on the average that one observable alone can hold, over 1 / alpha.
_CAP = 10.0
# Gains since the last low, as the mean over bets: under suspicion, and worth a look at the golden
# frames. Under the null the second comes once in at least 1,000 observations.
_SUSPECT = 20.0
_ASK = 1_000.0
# Inputs that changed with the distance have shown it by then.
_PATIENCE = 16
# Frames that a diagnosis rests on, at most; it is made anew so often.
_WINDOW = 64
_DIAGNOSE_EVERY = 8
# What is called recent is an average that forgets over so many observations.
_RECENT = 200
_ENGINE = 2  # the first two: noise, disagreement


class DriftMonitor:
    """Turns observations into verdicts; pure numbers, one thread at a time."""

    def __init__(
        self, calibration: Calibration | None, *, global_bound: float | None, alpha: float
    ) -> None:
        """Start without suspicion.

        Args:
            calibration: What is normal; None where the bundle does not say.
            global_bound: Largest distance of a healthy engine's logits from the reference's; None
                where there is no certificate.
            alpha: Probability of ever raising a verdict on evidence while nothing has changed, at
                most.

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
        self._names, means = _observables(calibration)
        self._needed = len(means) / alpha
        self._evidence = Evidence(means, _CAP * max(self._needed, 1.0))
        self._raised = np.zeros(len(means), dtype=bool)
        self._named: dict[int, int] = {}  # engine's observable: when it was named
        taps = len(calibration.taps) if calibration else 0
        self._first_input = _ENGINE + taps
        self._doctor = Diagnostician(calibration.inputs) if calibration else None
        self._diagnosis = Diagnosis(None, 0.0, 0.0)
        size = len(calibration.inputs.statistics) if calibration else 0
        self._scores = np.zeros((_WINDOW, size))
        self._recent = np.zeros(3 + taps)
        self._mix = np.zeros(len(calibration.class_mix) if calibration else 0)
        self._observed = 0
        self._proofs: dict[str, Verdict] = {}
        self._lost = ""
        self._golden_checks = 0
        self._golden: tuple[bool, float, float] | None = None
        self._golden_passed_at = -1
        self._answered = False

    def observe(self, observation: Observation) -> None:
        """Take one sampled item.

        Raises:
            MonitoringError: If it does not fit the calibration.
        """
        distance = observation.squared_distance
        if not math.isfinite(distance):
            self.fail("its logits are not finite")
            return
        self._lost = ""
        self._observed += 1
        if self._bound is not None and distance > self._bound**2:
            self._prove(
                "proof",
                f"Logits are {math.sqrt(distance):.4g} from the float reference; no engine that "
                f"computes what was validated can be further than {self._bound:.4g}.",
            )
        ratio = self._ratio(distance)
        self._keep(observation, ratio)
        if self._calibration is not None:
            self._evidence.add(self._numbers(observation, ratio))
            self._judge()

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
        self._answered = True
        if not identical:
            self._prove("exact", "Golden frames are answered otherwise than at first.")
        elif not within_budget:
            self._prove(
                "exact",
                f"Golden frames are answered {rms_over_noise:.3g} (at most {max_over_noise:.3g}) "
                "times the quantization noise from the integer reference: out of budget.",
            )
        else:
            self._golden_passed_at = self._observed

    def fail(self, fault: str) -> None:
        """Note that the engine gave no logits, or none that are numbers.

        Args:
            fault: What happened, as the end of a sentence: "it raised ...".
        """
        self._prove("exact", f"The engine failed: {fault}.")

    def lose_reference(self, why: str) -> None:
        """Note that there is no reference; the next observation says that there is one again."""
        self._lost = why

    @property
    def wants_golden(self) -> bool:
        """Whether the golden frames should be asked now: suspicion has risen since last time."""
        if self._answered:
            return False
        return bool(self._proofs or self._raised.any() or (self._evidence.recent >= _ASK).any())

    @property
    def report(self) -> DriftReport:
        """What there is to say now."""
        causes = tuple(sorted(self._verdicts(), key=lambda each: -each.level))
        known, calibration = self._observed > 0, self._calibration
        identical, rms, largest = self._golden or (None, None, None)
        values = self._evidence.values
        logs = np.log10(values)
        taps = calibration.taps if calibration and known else ()
        mix = calibration.class_mix if calibration and known else ()
        return DriftReport(
            level=max((each.level for each in causes), default=Level.OK),
            causes=causes,
            unwatched=self._unwatched(),
            observed=self._observed,
            golden_checks=self._golden_checks,
            golden_identical=identical,
            golden_rms_over_noise=rms,
            golden_max_over_noise=largest,
            noise_ratio=float(self._recent[0]) if known and calibration else None,
            disagreement=float(self._recent[1]) if known else None,
            saturation={
                tap.name: float(share)
                for tap, share in zip(taps, self._recent[3:], strict=bool(taps))
            },
            evidence={name: float(log) for name, log in zip(self._names, logs, strict=True)},
            combined_evidence=float(np.log10(values.mean())) if len(values) else None,
            alarm_at=-math.log10(self._alpha),
            entropy=float(self._recent[2]) if known else None,
            class_mix_distance=(float(np.abs(self._mix - mix).sum() / 2) if mix else None),
        )

    def _ratio(self, squared_distance: float) -> float:
        noise = self._calibration.noise if self._calibration else None
        return squared_distance / noise.variance if noise else 0.0

    def _numbers(self, observation: Observation, ratio: float) -> list[float]:
        """Return what the e-processes watch, each between 0 and 1; keep the normal scores."""
        assert self._calibration is not None
        cap = self._calibration.noise.cap
        ranks = [
            rank(value, reference.quantiles)
            for value, reference in zip(
                observation.statistics, self._calibration.inputs.statistics, strict=True
            )
        ]
        self._scores[self._observed % _WINDOW] = [normal_score(each) for each in ranks]
        return [
            min(ratio, cap) / cap,
            float(observation.disagrees),
            *observation.saturation,
            *ranks,
            *(1 - each for each in ranks),
        ]

    def _keep(self, observation: Observation, ratio: float) -> None:
        calibration = self._calibration
        if calibration is not None:
            for name, given, wanted in (
                ("taps", len(observation.saturation), len(calibration.taps)),
                ("statistics", len(observation.statistics), len(calibration.inputs.statistics)),
            ):
                if given != wanted:
                    msg = f"an observation of {given} {name}, a calibration of {wanted}; calibrate"
                    msg += " this model again"
                    raise MonitoringError(msg)
        saturation = observation.saturation if calibration else ()
        now = [ratio, float(observation.disagrees), observation.entropy, *saturation]
        weight = 1 / min(self._observed, _RECENT)
        self._recent += weight * (np.nan_to_num(now) - self._recent)
        self._mix *= 1 - weight
        if 0 <= observation.class_index < len(self._mix):
            self._mix[observation.class_index] += weight

    def _judge(self) -> None:
        values = self._evidence.values
        raised = self._raised
        if values.sum() >= self._needed:
            before = raised.copy()
            raised |= values >= self._needed
            raised[values.argmax()] = True
            if (raised & ~before).any():
                self._answered = False
                self._diagnose()
        elif not raised.any():
            if self._answered and not (self._evidence.recent >= _SUSPECT).any():
                self._answered = bool(self._proofs)
            return
        over = raised & (values < 1)
        if over.any():
            self._evidence.restart(over)
            raised &= ~over
        inputs = slice(self._first_input, None)
        if self._observed % _DIAGNOSE_EVERY == 0 and (values[inputs] >= self._needed).any():
            self._diagnose()
        self._name_engine()

    def _name_engine(self) -> None:
        """Hold the engine to blame, or no longer, for what the distance or the classes show."""
        evidence = self._evidence
        world = np.flatnonzero(self._raised[_ENGINE:]) + _ENGINE
        for suspect in range(_ENGINE):
            if not self._raised[suspect]:
                self._named.pop(suspect, None)
            elif suspect in self._named:
                # Inputs that were off before the engine was blamed explain what it was blamed for.
                if any(evidence.risen_since(int(each)) <= self._named[suspect] for each in world):
                    del self._named[suspect]
            elif (
                not self._world_suspect()
                and self._observed - evidence.risen_since(suspect) >= _PATIENCE
            ):
                self._named[suspect] = self._observed

    def _world_suspect(self) -> bool:
        recent = self._evidence.recent[_ENGINE:]
        return bool(self._raised[_ENGINE:].any() or (recent >= _SUSPECT).any())

    def _diagnose(self) -> None:
        """Name the fault of the inputs by the frames since they have been off."""
        inputs = self._evidence.values[self._first_input :]
        if self._doctor is None or not len(inputs):
            return
        since = self._evidence.risen_since(self._first_input + int(inputs.argmax()))
        frames = min(max(self._observed - since, _DIAGNOSE_EVERY), _WINDOW, self._observed)
        places = np.arange(self._observed - frames + 1, self._observed + 1) % _WINDOW
        self._diagnosis = self._doctor.diagnose(self._scores[places])

    def _prove(self, rule: str, message: str) -> None:
        """Keep a proof; the first of each rule stands, as none can become untrue."""
        if rule not in self._proofs:
            self._proofs[rule] = verdict(Cause.ENGINE_CHANGED, rule, message)
            self._answered = self._answered and rule == "exact"

    def _verdicts(self) -> list[Verdict]:
        found = [self._proofs[rule] for rule in ("exact", "proof") if rule in self._proofs]
        if self._lost:
            found.append(
                verdict(
                    Cause.REFERENCE_UNAVAILABLE,
                    "reference",
                    f"The float reference is unavailable: {self._lost}.",
                )
            )
        if self._calibration is None:
            return found
        rules = ("noise", "disagreement")
        found += [
            verdict(Cause.ENGINE_CHANGED, rules[suspect], self._engine_message(suspect))
            for suspect in self._named
        ]
        if self._raised[self._first_input :].any():
            found.append(self._input_verdict())
        elif self._raised[_ENGINE:].any():
            taps = [tap.name for tap in self._calibration.taps]
            raised = self._raised[_ENGINE : self._first_input]
            names = ", ".join(name for name, on in zip(taps, raised, strict=True) if on)
            found.append(
                verdict(
                    Cause.WORLD_CHANGED,
                    "saturation",
                    f"More activations than in the calibration are cut off, also by a healthy "
                    f"engine: {names}.",
                )
            )
        else:
            found += self._explained()
        return found

    def _explained(self) -> list[Verdict]:
        """Blame the world for what the engine does not explain, where both have been looked at."""
        return [
            verdict(
                Cause.WORLD_CHANGED,
                ("noise", "disagreement")[suspect],
                "Golden frames are answered as at first, and the inputs are under suspicion. "
                + self._engine_message(suspect),
            )
            for suspect in range(_ENGINE)
            if self._raised[suspect]
            and suspect not in self._named
            and self._world_suspect()
            and not self._proofs
            and self._golden_passed_at > self._evidence.risen_since(suspect)
        ]

    def _engine_message(self, suspect: int) -> str:
        assert self._calibration is not None
        if suspect == 0:
            return (
                f"Logits are {self._recent[0]:.3g} times the squared distance of a healthy engine "
                "from the float reference."
            )
        return (
            f"The first class differs from the float reference's in {self._recent[1]:.2%} of "
            f"items, at most {self._calibration.disagreement.bound:.2%} in a healthy engine."
        )

    def _input_verdict(self) -> Verdict:
        signature = self._diagnosis.signature
        names = [
            name
            for name, on in zip(
                self._names[self._first_input :], self._raised[self._first_input :], strict=True
            )
            if on
        ]
        off = f"Inputs are not those of the calibration: {', '.join(names)}"
        if signature is None:
            return verdict(Cause.WORLD_CHANGED, "inputs", f"{off}; no known fault looks like it.")
        severity = f" (severity {signature.severity})" if signature.severity else ""
        return verdict(
            signature.cause,
            "inputs",
            f"{off}; like {signature.fault}{severity}, {self._diagnosis.probability:.0%} sure.",
            signature.fault,
        )

    def _unwatched(self) -> tuple[str, ...]:
        missing = []
        if self._calibration is None:
            missing.append(
                "noise, disagreement, saturation and inputs: the bundle has no calibration; make "
                "one with `qpde calibrate`"
            )
        if self._bound is None:
            missing.append(
                "global bound: the bundle has no certificate with one; make one with `qpde certify`"
            )
        if self._lost:
            missing.append(
                f"everything but golden frames: the float reference is unavailable: {self._lost}"
            )
        return tuple(missing)


def _observables(calibration: Calibration | None) -> tuple[list[str], list[float]]:
    """Return the names and the nulls of what the e-processes watch."""
    if calibration is None:
        return [], []
    inputs = calibration.inputs.statistics
    named = [
        ("noise", calibration.noise.capped),
        ("disagreement", calibration.disagreement),
        *((f"saturation of {tap.name}", tap.share) for tap in calibration.taps),
        *((f"{each.name} high", each.above) for each in inputs),
        *((f"{each.name} low", each.below) for each in inputs),
    ]
    return [name for name, _ in named], [reference.bound for _, reference in named]
