"""Calibration: by group, with faults that are told apart on pictures it has not seen."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from qpde_perception.assessment.calibrating import MIN_GROUPS, calibrate
from qpde_perception.assessment.errors import AssessmentError
from qpde_perception.assessment.faults import FAULTS, healthy_input
from qpde_perception.assessment.pictures import Pictures, pictures_of_drive, pictures_of_signs
from qpde_perception.bundles import calibration_of
from qpde_perception.engines import open_reference
from qpde_perception.engines.registry import build_engine
from qpde_perception.frames import InputSpec
from qpde_perception.frames.statistics import STATISTICS, input_statistics
from qpde_perception.learning.signs import load_signs
from qpde_perception.monitoring.diagnosis import Diagnostician, normal_score, rank

SAMPLE = Path(__file__).parents[2] / "samples" / "traffic_signs.mcap"
SIDE = InputSpec(height=48, width=48)


def measured(bundle, pairs, source="pictures"):
    engine = build_engine(bundle, "onnxruntime", threads=1)
    return calibrate(bundle, engine, open_reference(bundle), Pictures(source, "group", pairs))


def scores(calibration, inputs):
    """Normal scores of the statistics, shape (n, statistics)."""
    known = calibration.inputs.statistics
    return [
        [normal_score(rank(value, each.quantiles)) for value, each in zip(row, known, strict=True)]
        for row in input_statistics(np.stack(inputs)).tolist()
    ]


@pytest.fixture(scope="module")
def sample():
    """Every region of the sample drive, with the name of its track."""
    return list(pictures_of_drive(SAMPLE, SIDE).pictures)


@pytest.fixture(scope="module")
def halves(sample):
    """Every other track of the sample drive: to calibrate on, and to see afterwards."""
    tracks = sorted({group for _, group in sample})
    first = set(tracks[::2])
    return [pair for pair in sample if pair[1] in first], [
        image for image, group in sample if group not in first
    ]


@pytest.fixture(scope="module")
def calibration(shipped_bundle, halves):
    return measured(shipped_bundle, halves[0])


@pytest.fixture(scope="module")
def blobs(images):
    """Pictures for a tiny network, each a group of its own."""
    return [(image, str(index)) for index, image in enumerate(images(40, 24, seed=21))]


def test_a_drive_gives_its_regions_by_track(sample):
    images, groups = zip(*sample, strict=True)
    assert len(images) == 201
    assert len(set(groups)) == 39
    assert all(image.ndim == 3 and image.shape[2] == 3 for image in images)


def test_what_is_normal_lies_below_its_bounds(calibration):
    every = [
        calibration.noise.capped,
        calibration.disagreement,
        *(tap.capped for tap in calibration.taps),
        *(each.above for each in calibration.inputs.statistics),
        *(each.below for each in calibration.inputs.statistics),
    ]
    assert all(each.mean < each.bound < 1 for each in every)
    ranks = [each.above.mean for each in calibration.inputs.statistics]
    np.testing.assert_allclose(ranks, 0.5, atol=0.1)
    assert [each.name for each in calibration.inputs.statistics] == list(STATISTICS)
    assert sum(calibration.class_mix) == pytest.approx(1)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_named_on_tracks_that_the_calibration_has_not_seen(calibration, halves, fault):
    doctor = Diagnostician(calibration.inputs)
    for severity in fault.severities[2:] or fault.severities:
        inputs = [
            fault.input_of(image, SIDE, severity, (3, index))
            for index, image in enumerate(halves[1][:64])
        ]
        found = doctor.diagnose(scores(calibration, inputs)).signature
        assert found is not None, severity
        assert (found.fault, found.cause) == (fault.name, fault.cause), severity


def test_the_shipped_calibration_is_of_pictures_held_out_from_training(shipped_bundle):
    found = calibration_of(shipped_bundle)
    assert found.source == "gtsrb/val"
    assert (found.groups, found.frames) == (133, 3990)
    assert {(each.fault, each.severity) for each in found.inputs.signatures} == {
        (fault.name, severity) for fault in FAULTS for severity in fault.severities
    }
    assert found.noise.variance * found.noise.cap * found.noise.capped.bound < 100
    assert found.disagreement.bound < 0.1


def test_frames_of_one_group_count_as_one(tiny_bundle, blobs):
    once = measured(tiny_bundle, blobs)
    image, group = blobs[0]
    often = measured(tiny_bundle, [*blobs, *[(image, group)] * 200])
    assert often.frames == once.frames + 200
    assert often.groups == once.groups
    assert often.noise == once.noise
    assert often.disagreement == once.disagreement
    assert often.taps == once.taps
    assert often.entropy == pytest.approx(once.entropy)


def test_the_noise_is_the_mean_squared_distance_to_the_reference(tiny_bundle, blobs):
    found = measured(tiny_bundle, blobs)
    inputs = np.stack([healthy_input(image, tiny_bundle.manifest.input) for image, _ in blobs])
    engine = build_engine(tiny_bundle, "onnxruntime", threads=1)
    distance = engine.infer(inputs) - open_reference(tiny_bundle).infer(inputs)
    assert found.noise.variance == pytest.approx((distance**2).sum(1).mean(), rel=1e-5)


def test_the_same_data_give_the_same_bytes(tiny_bundle, blobs):
    first, second = (measured(tiny_bundle, iter(blobs)) for _ in range(2))
    assert first.to_bytes() == second.to_bytes()


@pytest.mark.parametrize("count", [0, MIN_GROUPS - 1])
def test_too_few_groups_are_refused_with_their_number(tiny_bundle, blobs, count):
    with pytest.raises(AssessmentError, match=f"^pictures: has {count} groups"):
        measured(tiny_bundle, islice(blobs, count))


def test_an_engine_without_noise_is_refused(tiny_bundle, blobs):
    reference = open_reference(tiny_bundle)
    with pytest.raises(AssessmentError, match="same bits"):
        calibrate(tiny_bundle, reference, reference, Pictures("pictures", "group", blobs))


def test_sign_data_without_tracks_are_refused(data):
    signs = load_signs(data / "gtsrb")
    assert pictures_of_signs(signs.split("val"), "gtsrb/val").grouping == "track"
    with pytest.raises(AssessmentError, match="gtsrb/test-a: its tracks are not known"):
        pictures_of_signs(signs.split("test-a"), "gtsrb/test-a")
