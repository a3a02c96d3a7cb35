from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpde_perception.bundles import Cause
from qpde_perception.monitoring.diagnosis import (
    LARGEST_SCORE,
    Diagnostician,
    normal_score,
    rank,
)

ascending = st.lists(st.integers(-5, 5), min_size=2, max_size=12).map(sorted)


def frames(shift, count=40, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    scores = scale * rng.standard_normal((count, len(shift))) + shift
    return np.clip(scores, -LARGEST_SCORE, LARGEST_SCORE)


@given(quantiles=ascending, values=st.tuples(st.floats(-9, 9), st.floats(-9, 9)))
def test_a_rank_is_a_share_and_never_falls_as_the_value_grows(quantiles, values) -> None:
    lower, upper = (rank(value, quantiles) for value in sorted(values))

    assert 0 <= lower <= upper <= 1


@given(quantiles=ascending, value=st.floats(-9, 9))
def test_a_rank_of_the_negated_value_among_the_negated_is_the_rest(quantiles, value) -> None:
    mirrored = [-each for each in reversed(quantiles)]

    assert rank(-value, mirrored) == pytest.approx(1 - rank(value, quantiles))


def test_a_rank_is_interpolated_and_the_middle_of_those_that_are_equal() -> None:
    quantiles = (0.0, 0.0, 0.0, 2.0, 4.0)

    assert rank(3.0, quantiles) == pytest.approx(0.875)
    assert rank(0.0, quantiles) == pytest.approx(0.25)
    assert rank(2.0, quantiles) == pytest.approx(0.75)
    assert rank(-1.0, quantiles) == 0
    assert rank(9.0, quantiles) == 1


def test_ranks_of_the_calibration_itself_are_a_half_on_average_even_with_many_equal() -> None:
    values = np.maximum(np.random.default_rng(1).standard_normal(5000), 0)
    quantiles = np.quantile(values, np.linspace(0, 1, 101)).tolist()

    assert np.mean([rank(value, quantiles) for value in values]) == pytest.approx(0.5, abs=0.01)


def test_scores_are_normal_quantiles_that_end_and_nothing_is_said_of_what_is_no_number() -> None:
    assert normal_score(0.5) == pytest.approx(0)
    assert normal_score(0.975) == pytest.approx(1.96, abs=1e-3)
    assert normal_score(1.0) == pytest.approx(LARGEST_SCORE)
    assert normal_score(0.0) == pytest.approx(-LARGEST_SCORE)
    assert math.isnan(rank(math.nan, (0.0, 1.0)))
    assert normal_score(math.nan) == 0


def test_each_signature_is_told_from_the_others(calibration) -> None:
    doctor = Diagnostician(calibration.inputs)

    for index, signature in enumerate(calibration.inputs.signatures):
        found = doctor.diagnose(frames(signature.shift, seed=index))
        assert found.signature == signature
        assert found.probability > 0.9


def test_a_severity_between_two_is_still_the_same_fault(calibration) -> None:
    found = Diagnostician(calibration.inputs).diagnose(frames((0, 0, -1.9, 0, -1.5)))

    assert found.signature.fault == "blur"
    assert found.signature.cause is Cause.CAMERA_DEGRADED


@pytest.mark.parametrize("shift", [(0, 0, 0, 0, 2.5), (-2.5, 0, 2, 0, 0), (0, 0, 0, 2.2, 0)])
def test_what_is_near_no_signature_has_no_name(calibration, shift) -> None:
    found = Diagnostician(calibration.inputs).diagnose(frames(shift))

    assert found.signature is None
    assert found.probability == 0
    assert found.distance > 3


def test_healthy_frames_have_no_fault(calibration) -> None:
    doctor = Diagnostician(calibration.inputs)

    assert all(doctor.diagnose(frames((0,) * 5, seed=seed)).signature is None for seed in range(20))


def test_a_few_frames_are_believed_less_than_many(calibration) -> None:
    doctor = Diagnostician(calibration.inputs)
    between = (0.5, -1.0, -0.9, 0, -0.5)  # half fog, half a light blur
    few, many = (doctor.diagnose(np.tile(between, (count, 1))) for count in (1, 64))

    assert few.distance < many.distance
    assert few.signature is not None


def test_a_direction_in_which_healthy_frames_vary_speaks_less(calibration) -> None:
    """Brightness varies a lot here: the same offset tells the statistics that do not."""
    healthy = np.eye(5)
    healthy[0, 0] = 25.0
    inputs = calibration.inputs.model_copy(update={"covariance": tuple(map(tuple, healthy))})
    window = np.tile((3.0, 0.0, -1.3, 0.0, -1.0), (40, 1))

    assert Diagnostician(inputs).diagnose(window).signature.fault == "blur"
    assert Diagnostician(calibration.inputs).diagnose(window).signature is None


def test_without_signatures_nothing_has_a_name(calibration) -> None:
    inputs = calibration.inputs.model_copy(update={"signatures": ()})

    assert Diagnostician(inputs).diagnose(frames((3, 3, 3, 3, 3))).signature is None
