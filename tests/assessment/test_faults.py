"""Simulated faults of the input: each is what it is called, and no more."""

from __future__ import annotations

import numpy as np
import pytest

from qpde_perception.assessment.faults import FAULTS, healthy_input
from qpde_perception.frames import InputSpec, Picture, prepare

SPECS = [InputSpec(height=48, width=48, channel_order=order) for order in ("rgb", "bgr")]
BY_NAME = {fault.name: fault for fault in FAULTS}


@pytest.fixture(scope="module")
def image():
    """A large coloured picture with fine detail."""
    rng = np.random.default_rng(4)
    return rng.integers(0, 256, (90, 120, 3), np.uint8) // np.array([1, 2, 4], np.uint8)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.channel_order)
def test_a_healthy_input_is_what_the_vehicle_prepares(image, spec):
    prepared = prepare(Picture(image, "bgr", 1, *image.shape[:2]), None, spec)
    assert np.array_equal(healthy_input(image, spec), prepared.batch[0])


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.channel_order)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_every_severity_changes_the_input_and_repeats_itself(fault, image, spec):
    before = image.copy()
    healthy = healthy_input(image, spec)
    for severity in fault.severities:
        first, second = (fault.input_of(image, spec, severity, (7, 1)) for _ in range(2))
        assert (first.shape, first.dtype) == (healthy.shape, healthy.dtype)
        assert np.array_equal(first, second)
        assert not np.array_equal(first, healthy)
    assert np.array_equal(image, before)


def test_swapped_channels_are_the_healthy_input_in_the_other_order(image):
    swapped = BY_NAME["swapped channels"].input_of(image, SPECS[0], 0, ())
    assert np.array_equal(swapped, healthy_input(image, SPECS[1]))


def test_a_wrong_range_leaves_only_the_ends_of_the_right_one(image):
    dark = BY_NAME["0 to 1 for 0 to 255"].input_of(image, SPECS[0], 0, ())
    bright = BY_NAME["0 to 255 for 0 to 1"].input_of(image, SPECS[0], 0, ())
    assert dark.max() <= 1
    assert set(np.unique(bright)) <= {0, 255}


def test_nearest_takes_pixels_where_area_averages(image):
    found = BY_NAME["nearest for area"].input_of(image, SPECS[1], 0, ())
    pixels = {tuple(pixel) for pixel in image.reshape(-1, 3).tolist()}
    assert {tuple(pixel) for pixel in found.reshape(-1, 3).tolist()} <= pixels
    assert found.std() > 1.2 * healthy_input(image, SPECS[1]).std()
