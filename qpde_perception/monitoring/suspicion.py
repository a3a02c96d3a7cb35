"""Verdicts on evidence: which observable is not what the calibration says, and what that means."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qpde_perception.bundles import Cause
from qpde_perception.monitoring.diagnosis import Diagnosis, Diagnostician, normal_score, rank
from qpde_perception.monitoring.evidence import Evidence
from qpde_perception.monitoring.verdicts import Observation, Verdict, verdict

if TYPE_CHECKING:
    from qpde_perception.bundles import Calibration, MeanReference
    from qpde_perception.monitoring.recent import Recent

# The cap on the average of all that one observable alone can hold up, over 1 / alpha.
_CAP = 10.0
# Gains since the last low, as the mean over bets: under suspicion, and worth a look at the golden
# frames. Under the null the second comes once in 1,000 observations, at most.
_SUSPECT = 20.0
_ASK = 1_000.0
# Inputs that changed together with the distance have shown it by then.
_PATIENCE = 16
# What was healthy this much longer than it has risen, and so long at least, was healthy at first.
_HEALTHY_TIMES = 2
_HEALTHY_FRAMES = 64
# No weather, camera or preparation that was simulated makes the squared distance more than 15 times
# its healthy mean; a scale wrong by 2 makes it 130 to 260 times. So where most of these frames are
# beyond this ratio it is the engine, whatever the inputs are.
_BEYOND_INPUTS = 32.0
_BEYOND_FRAMES = 16
_BEYOND_SHARE = 0.75
# Frames that a diagnosis rests on, at most; it is made anew every so many.
_WINDOW = 64
_DIAGNOSE_EVERY = 8
# The observables that the engine has a part in come first.
_ENGINE_RULES = ("noise", "disagreement")
_ENGINE = len(_ENGINE_RULES)


def observables_of(calibration: Calibration) -> list[tuple[str, MeanReference]]:
    """Return each observable's name and null: the engine's, the taps', the inputs' both ways."""
    inputs = calibration.inputs.statistics
    return [
        ("noise", calibration.noise.capped),
        ("disagreement", calibration.disagreement),
        *((f"saturation of {tap.name}", tap.capped) for tap in calibration.taps),
        *((f"{each.name} high", each.above) for each in inputs),
        *((f"{each.name} low", each.below) for each in inputs),
    ]


def numbers_of(calibration: Calibration, observation: Observation) -> list[float]:
    """Return what an observation says of each observable, 0 to 1, in their order."""
    noise, statistics = calibration.noise, calibration.inputs.statistics
    ranks = [
        rank(value, each.quantiles)
        for value, each in zip(observation.statistics, statistics, strict=True)
    ]
    taps = zip(observation.saturation, calibration.taps, strict=True)
    return [
        min(observation.squared_distance / noise.variance / noise.cap, 1.0),
        float(observation.disagrees),
        *(min(share / tap.cap, 1.0) for share, tap in taps),
        *ranks,
        *(1 - each for each in ranks),
    ]


class Suspicion:
    """The e-processes of all observables, and the verdicts that rest on them.

    A verdict is raised when the average of all e-values reaches 1 / alpha: this ever happens with a
    probability of at most alpha while nothing has changed. It is raised for the observable with the
    most evidence, and for each whose own alone would do. It is withdrawn when the evidence of its
    observable is below 1; that one begins anew then, with the wealth it has.

    Inputs and saturation say what the world, the camera and the preparation do: no engine has a
    part in them. The distance to the reference and disagreement say what the engine does with it.
    So the engine is named where these are raised, have risen for some frames, and no input is even
    under suspicion; and it is no longer where golden frames since that rise show that it has not
    changed, or where inputs that were off by then account for it. A distance larger than any inputs
    make it is the engine's in any case.
    """

    def __init__(self, calibration: Calibration, alpha: float, block: int = 1) -> None:
        """Start without suspicion.

        Args:
            calibration: What is normal.
            alpha: Probability of ever raising a verdict while nothing has changed, at most.
            block: Number of items whose mean the evidence takes as one.
        """
        self._calibration = calibration
        self._block: list[list[float]] = []
        self._block_size = block
        inputs = calibration.inputs.statistics
        observables = observables_of(calibration)
        self._names = [name for name, _ in observables]
        self._needed = len(observables) / alpha
        self._evidence = Evidence([each.bound for _, each in observables], _CAP * self._needed)
        self._raised = np.zeros(len(observables), dtype=bool)
        self._first_input = _ENGINE + len(calibration.taps)
        self._frames = 0
        self._scores = np.zeros((_WINDOW, len(inputs)))
        self._doctor = Diagnostician(calibration.inputs)
        self._diagnosis = Diagnosis(None, 0.0, 0.0)
        self._named_at: dict[int, int] = {}
        self._healthy_before = [False] * _ENGINE
        self._beyond = np.zeros(_BEYOND_FRAMES, dtype=bool)
        self._golden_passed_at = -1
        self._answered = False

    @property
    def evidence(self) -> dict[str, float]:
        """Evidence of each observable, as the decimal logarithm."""
        logs = np.log10(self._evidence.values)
        return {name: float(log) for name, log in zip(self._names, logs, strict=True)}

    @property
    def combined(self) -> float:
        """Evidence of their average, as the decimal logarithm."""
        return float(np.log10(self._evidence.values.mean()))

    @property
    def wants_golden(self) -> bool:
        """Whether something is off, or near it, and golden frames were not asked since."""
        return not self._answered and bool(
            self._raised.any() or (self._evidence.recent >= _ASK).any()
        )

    def golden(self, passed: bool) -> None:
        """Note that golden frames were asked, and whether the answer was as at first."""
        self._answered = self.wants_golden or self._answered
        if passed:
            self._golden_passed_at = self._frames

    def add(self, observation: Observation) -> None:
        """Take one sampled item; nothing is judged before the items of a block are complete."""
        self._block.append(numbers_of(self._calibration, observation))
        if len(self._block) < self._block_size:
            return
        numbers = np.mean(self._block, axis=0).tolist()
        self._block.clear()
        ranks = numbers[self._first_input : self._first_input + self._scores.shape[1]]
        self._scores[self._frames % _WINDOW] = [normal_score(each) for each in ranks]
        ratio = observation.squared_distance / self._calibration.noise.variance
        self._beyond[self._frames % _BEYOND_FRAMES] = ratio > _BEYOND_INPUTS
        self._frames += 1
        self._evidence.add(numbers)
        self._judge()

    def verdicts(self, recent: Recent) -> list[Verdict]:
        """Return what has changed.

        Args:
            recent: What the messages tell of.
        """
        found = [
            verdict(Cause.ENGINE_CHANGED, _ENGINE_RULES[each], self._engine_message(each, recent))
            for each in self._named_at
        ]
        names = [name for name, on in zip(self._names, self._raised, strict=True) if on]
        if self._raised[self._first_input :].any():
            inputs = names[int(self._raised[: self._first_input].sum()) :]
            found.append(self._input_verdict(", ".join(inputs)))
        elif self._raised[_ENGINE:].any():
            message = (
                "More activations than in the calibration are beyond the largest code, whatever "
                f"engine serves: {', '.join(names[int(self._raised[:_ENGINE].sum()) :])}."
            )
            found.append(verdict(Cause.WORLD_CHANGED, "saturation", message))
        else:
            found += [
                self._exoneration(each, recent)
                for each in range(_ENGINE)
                if self._raised[each] and self._exonerated(each)
            ]
        return found

    def _judge(self) -> None:
        values, raised = self._evidence.values, self._raised
        if values.sum() >= self._needed:
            new = (values >= self._needed) & ~raised
            new[values.argmax()] = not raised[values.argmax()]
            if new.any():
                raised |= new
                self._answered = False
                self._diagnose()
                for each in np.flatnonzero(new[:_ENGINE]):
                    since = self._evidence.risen_since(int(each))
                    rising = self._frames - since
                    self._healthy_before[each] = since >= _HEALTHY_TIMES * rising + _HEALTHY_FRAMES
        elif not raised.any():
            if self._answered and not (self._evidence.recent >= _SUSPECT).any():
                self._answered = False
            return
        over = raised & (values < 1)
        if over.any():
            self._evidence.restart(over)
            raised &= ~over
        strong = (values[self._first_input :] >= self._needed).any()
        if strong and self._frames % _DIAGNOSE_EVERY == 0:
            self._diagnose()
        self._name_engine()

    def _name_engine(self) -> None:
        world = np.flatnonzero(self._raised[_ENGINE:]) + _ENGINE
        for each in range(_ENGINE):
            risen_since = self._evidence.risen_since(each)
            named_at = self._named_at.get(each)
            if not self._raised[each] or self._exonerated(each):
                self._named_at.pop(each, None)
            elif self._beyond_inputs(each):
                self._named_at.setdefault(each, self._frames)
            elif named_at is not None:
                if any(self._evidence.risen_since(int(one)) <= named_at for one in world):
                    del self._named_at[each]
            elif not self._world_suspect() and self._frames - risen_since >= _PATIENCE:
                self._named_at[each] = self._frames

    def _exonerated(self, suspect: int) -> bool:
        """Whether golden frames speak for the engine.

        They say that it is the same as at first. So it has not changed where it was healthy then;
        where nobody knows, inputs under suspicion are the better explanation, unless no inputs can
        be.
        """
        if self._beyond_inputs(suspect):
            return False
        return self._golden_passed_at > self._evidence.risen_since(suspect) and (
            self._healthy_before[suspect] or self._world_suspect()
        )

    def _beyond_inputs(self, suspect: int) -> bool:
        """Whether the distance is larger than any inputs make it."""
        share = float(self._beyond.mean())
        return _ENGINE_RULES[suspect] == "noise" and share >= _BEYOND_SHARE

    def _world_suspect(self) -> bool:
        recent = self._evidence.recent[_ENGINE:]
        return bool(self._raised[_ENGINE:].any() or (recent >= _SUSPECT).any())

    def _diagnose(self) -> None:
        """Name the fault of the inputs by the frames since they have been off."""
        inputs = self._evidence.values[self._first_input :]
        if not len(inputs):
            return
        since = self._evidence.risen_since(self._first_input + int(inputs.argmax()))
        # Chance often begins the rise some frames before the fault does.
        rising = 3 * (self._frames - since) // 4
        frames = min(max(rising, _DIAGNOSE_EVERY), _WINDOW, self._frames)
        places = np.arange(self._frames - frames, self._frames) % _WINDOW
        self._diagnosis = self._doctor.diagnose(self._scores[places])

    def _engine_message(self, suspect: int, recent: Recent) -> str:
        if _ENGINE_RULES[suspect] == "noise":
            return (
                f"The squared distance of the logits to the float reference is "
                f"{recent.noise_ratio:.3g} times that of a healthy engine."
            )
        return (
            f"The first class is not the float reference's in {recent.disagreement:.2%} of items; "
            f"a healthy engine's in at most {self._calibration.disagreement.bound:.2%}."
        )

    def _exoneration(self, suspect: int, recent: Recent) -> Verdict:
        """Return what it is where golden frames speak for the engine.

        Often it is the inputs, whose own evidence is not yet enough for a verdict.
        """
        signature = self._diagnosis.signature if self._world_suspect() else None
        like = f" Inputs are like {signature.fault}." if signature else ""
        return verdict(
            signature.cause if signature else Cause.WORLD_CHANGED,
            _ENGINE_RULES[suspect],
            f"{self._engine_message(suspect, recent)} Golden frames are answered as at first, so "
            f"it is not the engine that has changed.{like}",
            signature.fault if signature else "",
        )

    def _input_verdict(self, names: str) -> Verdict:
        off = f"Inputs are not those of the calibration: {names}"
        signature = self._diagnosis.signature
        if signature is None:
            return verdict(Cause.WORLD_CHANGED, "inputs", f"{off}; no known fault is like this.")
        severity = f" of severity {signature.severity}" if signature.severity else ""
        return verdict(
            signature.cause,
            "inputs",
            f"{off}; like {signature.fault}{severity} ({self._diagnosis.probability:.0%} sure).",
            signature.fault,
        )
