"""Calibration: what a healthy engine does on data like those that it will see.

Frames of a track or of a stretch of road resemble each other, so what counts is the mean of each
such group, and the bounds are those of a mean over groups.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from qpde_perception.assessment.errors import AssessmentError
from qpde_perception.assessment.faults import FAULTS, healthy_input
from qpde_perception.bundles import (
    Calibration,
    InputReference,
    MeanReference,
    NoiseReference,
    Signature,
    StatisticReference,
    TapReference,
    golden_of,
)
from qpde_perception.frames.statistics import STATISTICS, input_statistics
from qpde_perception.monitoring.diagnosis import normal_score, rank
from qpde_perception.monitoring.evidence import upper_mean_bound
from qpde_perception.perception.scores import softmax

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from qpde_perception.assessment.pictures import Pictures
    from qpde_perception.bundles import Bundle
    from qpde_perception.engines import Engine
    from qpde_perception.engines.onnxruntime import UnroundedReference
    from qpde_perception.frames import InputSpec

    Array = NDArray[Any]
    Image = NDArray[np.uint8]

CONFIDENCE = 0.99
"""Of each bound."""
CAP = 4.0
"""Distances and saturations beyond this multiple of their means count as this."""
_LEAST_TAP_CAP = 0.001
MIN_GROUPS = 20
SIMULATED = 500
"""Frames that every fault is simulated on."""
_QUANTILES = 101
_BATCH = 64
_SEED = 20261127


@dataclass(slots=True)
class _Seen:
    """Numbers of frames: a list of batches each."""

    squared_distance: list[Array] = field(default_factory=list)
    disagrees: list[Array] = field(default_factory=list)
    saturation: list[Array] = field(default_factory=list)
    statistics: list[Array] = field(default_factory=list)
    classes: list[Array] = field(default_factory=list)
    entropy: list[Array] = field(default_factory=list)


class _Groups:
    """Means over the frames of each group."""

    def __init__(self, names: list[str]) -> None:
        unique, self._of = np.unique(np.array(names), return_inverse=True)
        self.count = len(unique)
        self._sizes = np.bincount(self._of, minlength=self.count)

    def means(self, values: Array) -> Array:
        """Return (groups, ...) of (frames, ...)."""
        flat = values.reshape(len(values), -1).astype(np.float64)
        sums = [np.bincount(self._of, column, minlength=self.count) for column in flat.T]
        means = np.stack(sums, 1) / self._sizes[:, None]
        return np.asarray(means.reshape(self.count, *values.shape[1:]))


def calibrate(
    bundle: Bundle, engine: Engine, reference: UnroundedReference, data: Pictures
) -> Calibration:
    """Measure what is normal, and what each known fault does to the input.

    Args:
        bundle: The model.
        engine: The engine that serves it.
        reference: Its reference that does not round.
        data: Held out from training, like what the vehicle will see.

    Raises:
        AssessmentError: If there are too few groups, or the engine and the reference are the same
            to the last bit, so that there is no noise to hold anything against.
    """
    spec = bundle.manifest.input
    rng = np.random.default_rng(_SEED)
    kept: list[Image] = []
    names: list[str] = []
    seen = _Seen()
    for batch in _batches(data.pictures):
        for image, name in batch:
            names.append(name)
            _keep(kept, image, len(names), rng)
        inputs = np.stack([healthy_input(image, spec) for image, _ in batch])
        _observe(seen, engine, reference, inputs)
    groups = _Groups(names) if names else None
    if groups is None or groups.count < MIN_GROUPS:
        msg = (
            f"{data.source}: has {groups.count if groups else 0} groups ({data.grouping}), and "
            f"{MIN_GROUPS} that are independent of each other are needed; give it more data"
        )
        raise AssessmentError(msg)
    entropy = float(groups.means(np.concatenate(seen.entropy)).mean())
    classes = np.concatenate(seen.classes)
    mix = np.eye(len(bundle.manifest.labels))[classes].mean(0)
    return Calibration(
        source=data.source,
        grouping=data.grouping,
        groups=groups.count,
        frames=len(names),
        confidence=CONFIDENCE,
        engine=engine.name,
        noise=_noise(groups.means(np.concatenate(seen.squared_distance)), seen, groups, data),
        disagreement=_bounded(groups.means(np.concatenate(seen.disagrees))),
        taps=_taps(bundle, np.concatenate(seen.saturation), groups),
        inputs=_inputs(np.concatenate(seen.statistics), groups, kept, spec),
        class_mix=tuple(mix.tolist()),
        entropy=entropy,
    )


def _batches(pictures: Iterable[tuple[Image, str]]) -> Iterator[list[tuple[Image, str]]]:
    batch = []
    for each in pictures:
        batch.append(each)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _keep(kept: list[Image], image: Image, count: int, rng: np.random.Generator) -> None:
    """Keep a random sample of all pictures so far, each with the same chance."""
    if len(kept) < SIMULATED:
        kept.append(image)
        return
    place = int(rng.integers(count))
    if place < SIMULATED:
        kept[place] = image


def _observe(seen: _Seen, engine: Engine, reference: UnroundedReference, inputs: Image) -> None:
    logits = engine.infer(inputs)
    real, saturation = reference.observe(inputs)
    probabilities = softmax(logits)
    seen.squared_distance.append(((logits.astype(np.float64) - real) ** 2).sum(1))
    seen.disagrees.append(logits.argmax(1) != real.argmax(1))
    seen.saturation.append(saturation)
    seen.statistics.append(input_statistics(inputs))
    seen.classes.append(logits.argmax(1))
    logs = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
    seen.entropy.append(-(probabilities * logs).sum(1))


def _noise(distances: Array, seen: _Seen, groups: _Groups, data: Pictures) -> NoiseReference:
    variance = float(distances.mean())
    if variance == 0:
        msg = (
            f"{data.source}: engine and reference give the same bits on every frame; a "
            "quantized engine does not, so this is no data that a network sees"
        )
        raise AssessmentError(msg)
    ratio = np.minimum(np.concatenate(seen.squared_distance) / variance, CAP)
    return NoiseReference(variance=variance, cap=CAP, capped=_bounded(groups.means(ratio / CAP)))


def _bounded(means: Array) -> MeanReference:
    bound = upper_mean_bound(means, CONFIDENCE)
    return MeanReference(mean=float(means.mean()), bound=min(bound, 1 - 1e-9))


def _taps(bundle: Bundle, shares: Array, groups: _Groups) -> tuple[TapReference, ...]:
    taps = []
    for name, column in zip(golden_of(bundle).taps, shares.T, strict=True):
        mean = float(groups.means(column).mean())
        cap = max(CAP * mean, _LEAST_TAP_CAP)
        capped = _bounded(groups.means(np.minimum(column / cap, 1.0)))
        taps.append(TapReference(name=name, share=mean, cap=cap, capped=capped))
    return tuple(taps)


def _inputs(
    statistics: Array, groups: _Groups, kept: list[Image], spec: InputSpec
) -> InputReference:
    quantiles = np.quantile(statistics, np.linspace(0, 1, _QUANTILES), axis=0).T.tolist()
    ranks = _ranks(statistics, quantiles)
    mean_ranks = groups.means(ranks)
    scores = groups.means(_scores(ranks))
    return InputReference(
        statistics=tuple(
            StatisticReference(
                name=name, quantiles=tuple(own), above=_bounded(column), below=_bounded(1 - column)
            )
            for name, own, column in zip(STATISTICS, quantiles, mean_ranks.T, strict=True)
        ),
        covariance=tuple(map(tuple, np.cov(scores.T).tolist())),
        signatures=tuple(_signatures(quantiles, kept, spec)),
    )


def _signatures(
    quantiles: list[list[float]], kept: list[Image], spec: InputSpec
) -> Iterator[Signature]:
    for fault in FAULTS:
        for severity in fault.severities:
            inputs = np.stack(
                [
                    fault.input_of(image, spec, severity, (_SEED, index))
                    for index, image in enumerate(kept)
                ]
            )
            scores = _scores(_ranks(input_statistics(inputs), quantiles))
            shift = tuple(scores.mean(0).tolist())
            yield Signature(fault=fault.name, severity=severity, cause=fault.cause, shift=shift)


def _ranks(statistics: Array, quantiles: list[list[float]]) -> Array:
    columns = zip(statistics.T.tolist(), quantiles, strict=True)
    ranks = [[rank(value, own) for value in column] for column, own in columns]
    return np.transpose(np.array(ranks, np.float64))


def _scores(ranks: Array) -> Array:
    return np.array([[normal_score(each) for each in row] for row in ranks.tolist()])
