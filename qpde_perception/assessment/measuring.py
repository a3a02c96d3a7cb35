"""All measurements of one network, on its integers and on what they are held against."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from qpde_perception.assessment.candidates import Role
from qpde_perception.assessment.confidence import (
    area_under_roc,
    calibration_error,
    confidence_of,
    reliability,
    roc_curve,
)
from qpde_perception.assessment.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from qpde_perception.assessment.tracks import filtered_accuracy, frames_of, majority_accuracy
from qpde_perception.compiling.evaluation import evaluate
from qpde_perception.compiling.parity import in_batches
from qpde_perception.engines.onnxruntime import OnnxRuntimeEngine
from qpde_perception.learning.signs import SignRecord, SignSet, prepared_pixels
from qpde_perception.learning.temperature import fit_temperature
from qpde_perception.perception import ExponentialFilter, NoFilter, softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qpde_perception.assessment.boxes import Boxes
    from qpde_perception.assessment.candidates import Deployed
    from qpde_perception.frames import InputSpec

    Logits = NDArray[np.float32]

DIGITS = 6
ROC_POINTS = 51


@dataclass(frozen=True, slots=True)
class Protocol:
    """What is a matter of choice.

    Attributes:
        corrupt_every: Every n-th image of test-a is corrupted.
        noise_seed: Of the corruptions.
        rate_hz: Frames per second of a track.
        time_constant_s: Of the temporal filter, seconds.
        reset_after_s: Of the temporal filter, seconds.
    """

    corrupt_every: int
    noise_seed: int
    rate_hz: float
    time_constant_s: float
    reset_after_s: float


@dataclass(frozen=True, slots=True)
class Pictures:
    """What a network is measured on, as it sees it.

    Attributes:
        val: Images of val.
        test: Images of test-a.
        corrupted: By corruption and severity, every n-th image of test-a.
    """

    val: NDArray[np.uint8]
    test: NDArray[np.uint8]
    corrupted: dict[tuple[str, int], NDArray[np.uint8]]


def pictures_of(signs: SignSet, spec: InputSpec, protocol: Protocol) -> Pictures:
    """Prepare the splits and the corrupted images as the vehicle does."""
    test = signs.split("test-a")
    some = SignSet(test.pixels, test.records[:: protocol.corrupt_every], test.names)
    return Pictures(
        val=prepared_pixels(signs.split("val"), spec),
        test=prepared_pixels(test, spec),
        corrupted={
            (name, severity): prepared_pixels(
                corrupted_signs(some, name, severity, protocol.noise_seed), spec
            )
            for name in CORRUPTIONS
            for severity in SEVERITIES
        },
    )


def corrupted_signs(signs: SignSet, name: str, severity: int, seed: int) -> SignSet:
    """Return the images with one corruption, at their own resolutions."""
    offset = 0
    records, chunks = [], []
    for index, record in enumerate(signs.records):
        image = corrupt(signs.image(index), name, severity, (seed, index))
        records.append(SignRecord(offset, *record[1:]))
        chunks.append(image.reshape(-1))
        offset += image.size
    return SignSet(np.concatenate(chunks), records, signs.names)


def measure(
    network: Deployed, signs: SignSet, pictures: Pictures, boxes: Boxes, protocol: Protocol
) -> list[dict[str, Any]]:
    """Measure every execution of a network.

    Args:
        network: The network.
        signs: The sign data, all splits.
        pictures: The same as the network sees them; see `pictures_of`.
        boxes: Boxes of another country, as the network sees them.
        protocol: What is a matter of choice.

    Returns:
        One row of plain values for each execution; shares are between 0 and 1. Confidence and
        agreement are those of the integers and of the same weights with unquantized activations.

    Raises:
        CompilingError: If the classes of the data are not those of the network.
        EngineError: If the engine refuses a graph.
    """
    answers = {
        execution.role: _Answers.of(execution.graph, pictures, boxes.pixels)
        for execution in network.executions
    }
    val, test = signs.split("val"), signs.split("test-a")
    integers = answers[Role.DEPLOYED], answers[Role.UNQUANTIZED]
    rows = []
    for execution in network.executions:
        own = answers[execution.role]
        row: dict[str, Any] = {
            "role": execution.role.value,
            "precision": execution.precision,
            "parameters": network.parameters,
            "multiply_adds": network.multiply_adds,
            "val_top1": evaluate(own.val, val.labels).top1,
            "test_top1": evaluate(own.test, test.labels).top1,
            "tracks": _tracks(own.val, val, protocol),
            "robustness": _robustness(own, test.labels, protocol.corrupt_every),
            "boxes": _boxes(own.boxes, boxes, signs.names),
            "counts": _counts(val, test, boxes, protocol),
        }
        if execution.role in (Role.DEPLOYED, Role.UNQUANTIZED):
            row |= _confidence(own, val.labels, test.labels, boxes)
            row["agreement"] = _agreement(*integers)
        rows.append(_rounded(row))
    return rows


@dataclass(frozen=True, slots=True)
class _Answers:
    """Logits of one execution."""

    val: Logits
    test: Logits
    boxes: Logits
    corrupted: dict[tuple[str, int], Logits]

    @classmethod
    def of(cls, graph: bytes, pictures: Pictures, boxes: NDArray[np.uint8]) -> _Answers:
        # With one thread the sums of the float graph come out the same every time.
        engine = OnnxRuntimeEngine(graph, threads=1)
        run = partial(in_batches, engine)
        corrupted = {key: run(pixels) for key, pixels in pictures.corrupted.items()}
        answers = cls(run(pictures.val), run(pictures.test), run(boxes), corrupted)
        engine.close()
        return answers


def _tracks(logits: Logits, val: SignSet, protocol: Protocol) -> dict[str, float]:
    probabilities, labels = softmax(logits), val.labels
    tracks = frames_of([record.track for record in val.records])
    exponential = partial(
        ExponentialFilter,
        time_constant_s=protocol.time_constant_s,
        reset_after_s=protocol.reset_after_s,
    )
    last = partial(filtered_accuracy, probabilities, labels, tracks, rate_hz=protocol.rate_hz)
    return {
        "majority": majority_accuracy(probabilities, labels, tracks),
        "last": last(new_filter=NoFilter),
        "filtered": last(new_filter=exponential),
    }


def _robustness(own: _Answers, labels: NDArray[np.int64], every: int) -> dict[str, Any]:
    truth = labels[::every]
    found = {
        name: [evaluate(own.corrupted[name, severity], truth).top1 for severity in SEVERITIES]
        for name in CORRUPTIONS
    }
    return {
        "clean": evaluate(own.test[::every], truth).top1,
        "mean": float(np.mean(list(found.values()))),
        "top1": found,
    }


def _boxes(logits: Logits, boxes: Boxes, names: tuple[str, ...]) -> dict[str, Any]:
    known = boxes.known
    right = logits[known].argmax(axis=1) == boxes.classes[known]
    shipped, classes = boxes.shipped[known], boxes.classes[known]
    return {
        "all": float(right.mean()),
        "shipped": _share(right[shipped]),
        "others": _share(right[~shipped]),
        "signs": {
            names[c]: {"right": int(right[classes == c].sum()), "boxes": int((classes == c).sum())}
            for c in np.unique(classes).tolist()
        },
    }


def _confidence(
    own: _Answers, val_labels: NDArray[np.int64], test_labels: NDArray[np.int64], boxes: Boxes
) -> dict[str, Any]:
    temperature = fit_temperature(own.val, val_labels)
    known = boxes.known
    plain, scaled = confidence_of(own.boxes), confidence_of(own.boxes, temperature)
    alarms, hits = roc_curve(plain[known], plain[~known])
    reached = np.searchsorted(alarms, np.linspace(0, 1, ROC_POINTS), side="right") - 1
    return {
        "temperature": temperature,
        "unknown": {
            "auc": area_under_roc(plain[known], plain[~known]),
            "auc_scaled": area_under_roc(scaled[known], scaled[~known]),
            "confidence_known": float(plain[known].mean()),
            "confidence_unknown": float(plain[~known].mean()),
            "passed_at_90": float(alarms[np.searchsorted(hits, 0.9)]),
            "roc": hits[reached].tolist(),
        },
        "calibration": {
            "test-a": _calibration(own.test, test_labels, temperature),
            "boxes": _calibration(own.boxes[known], boxes.classes[known], temperature),
        },
    }


def _calibration(logits: Logits, labels: NDArray[np.int64], temperature: float) -> dict[str, Any]:
    correct = logits.argmax(axis=1) == labels
    confidences = confidence_of(logits)
    bins = reliability(confidences, correct)
    scaled = reliability(confidence_of(logits, temperature), correct)
    return {
        "error": calibration_error(bins),
        "error_scaled": calibration_error(scaled),
        "overconfidence": float(confidences.mean() - correct.mean()),
        "bins": [[each.count, each.confidence, each.accuracy] for each in bins],
    }


def _agreement(one: _Answers, other: _Answers) -> dict[str, float]:
    corrupted = [_agreeing(one.corrupted[key], other.corrupted[key]) for key in one.corrupted]
    return {
        "val": _agreeing(one.val, other.val),
        "test-a": _agreeing(one.test, other.test),
        "corrupted": float(np.mean(corrupted)),
        "boxes": _agreeing(one.boxes, other.boxes),
    }


def _agreeing(one: Logits, other: Logits) -> float:
    return float(np.mean(one.argmax(axis=1) == other.argmax(axis=1)))


def _counts(val: SignSet, test: SignSet, boxes: Boxes, protocol: Protocol) -> dict[str, int]:
    known = boxes.known
    return {
        "val": len(val),
        "tracks": len({record.track for record in val.records}),
        "test-a": len(test),
        "corrupted": len(test.records[:: protocol.corrupt_every]),
        "known": int(known.sum()),
        "shipped": int(boxes.shipped[known].sum()),
        "unknown": int((~known).sum()),
    }


def _share(right: NDArray[np.bool_]) -> float | None:
    return float(right.mean()) if len(right) else None


def _rounded(value: Any) -> Any:
    """Cut floats to digits that no order of summation changes."""
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return round(value, DIGITS) if isinstance(value, float) else value
