"""Repainted signs: other figures on the same plate, and pictures that no class stands for."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpde_perception.learning.repainting import NUMBERS, UNKNOWN, Repainter, repaint

NAMES = ("Speed limit (50km/h)", "Stop", "Speed limit (120km/h)", "End of speed limit (80km/h)")
LIMITS = {50: 0, 120: 2}


def speed_limit(height=64, width=60):
    """Return a plate without figures, but a dark bar where they would be."""
    image = np.full((height, width, 3), (90, 110, 60), np.uint8)
    centre, radius = (width // 2, height // 2), round(0.38 * width)
    cv2.circle(image, centre, radius, (40, 30, 190), -1)
    cv2.circle(image, centre, round(0.29 * width), (235, 240, 238), -1)
    half = (round(width * 0.1), round(height * 0.08))
    corners = [
        (centre[0] - half[0], centre[1] - half[1]),
        (centre[0] + half[0], centre[1] + half[1]),
    ]
    cv2.rectangle(image, *corners, (25, 22, 20), -1)
    return image


@given(
    st.integers(15, 120),
    st.integers(15, 120),
    st.sampled_from(NUMBERS),
    st.integers(0, 2**32 - 1),
)
def test_figures_fit_on_a_plate_of_any_size(height, width, number, seed):
    painted = repaint(speed_limit(height, width), str(number), np.random.default_rng(seed))
    assert painted is not None
    assert (painted.shape, painted.dtype) == ((height, width, 3), np.uint8)


def test_only_the_plate_is_repainted():
    image = speed_limit(100, 100)
    for seed in range(20):
        painted = repaint(image, "90", np.random.default_rng(seed))
        assert painted is not None
        changed = np.argwhere((painted != image).any(axis=2))
        assert np.hypot(*(changed - 49.5).T).max() < 34
        assert (painted != image).any()


def test_figures_are_as_dark_as_those_that_they_replace():
    painted = repaint(speed_limit(100, 100), "80", np.random.default_rng(3))
    assert painted is not None
    assert abs(int(painted[30:70, 30:70].min()) - 20) <= 2


def test_numbers_look_different_from_each_other():
    image = speed_limit(64, 64)
    drawn = [repaint(image, str(number), np.random.default_rng(7)) for number in NUMBERS]
    for i, one in enumerate(drawn):
        for other in drawn[i + 1 :]:
            assert np.abs(one.astype(int) - other).max() > 100


@pytest.mark.parametrize("level", [0, 7, 255])
def test_a_plate_without_contrast_is_left_alone(level):
    blank = np.full((40, 40, 3), level, np.uint8)
    assert repaint(blank, "30", np.random.default_rng(1)) is None
    repainter = Repainter(NAMES)
    for seed in range(50):
        image, label = repainter(blank, 0, np.random.default_rng(seed))
        if label != UNKNOWN:
            assert label == 0
            np.testing.assert_array_equal(image, blank)


def test_speed_limits_are_found_among_the_names():
    assert Repainter(NAMES).limits == LIMITS


def test_a_limit_becomes_another_or_unknown_and_a_picture_keeps_its_shape():
    repainter, image = Repainter(NAMES), speed_limit()
    rng = np.random.default_rng(5)
    labels = []
    for _ in range(600):
        painted, label = repainter(image, 0, rng)
        assert (painted.shape, painted.dtype) == (image.shape, image.dtype)
        labels.append(label)
    shares = {label: labels.count(label) / len(labels) for label in set(labels)}
    assert set(shares) == {0, 2, UNKNOWN}
    # A twentieth is invented; of the rest, three in ten are repainted, half of them with 50 or 120.
    assert shares[UNKNOWN] == pytest.approx(0.05 + 0.95 * 0.15, abs=0.05)
    assert shares[2] == pytest.approx(0.95 * 0.075, abs=0.04)


def test_other_signs_are_kept_or_become_unknown():
    repainter, image = Repainter(NAMES), speed_limit()
    rng = np.random.default_rng(6)
    for _ in range(400):
        painted, label = repainter(image, 1, rng)
        assert label in (1, UNKNOWN)
        assert (label == 1) == np.array_equal(painted, image)


def test_names_without_speed_limits_are_no_harm():
    repainter = Repainter(("cat", "dog"))
    found = {repainter(speed_limit(), 1, np.random.default_rng(s))[1] for s in range(100)}
    assert found == {1, UNKNOWN}


def test_where_every_number_has_a_class_none_is_unknown_for_its_number():
    names = tuple(f"Speed limit ({number}km/h)" for number in NUMBERS)
    repainter, image, rng = Repainter(names), speed_limit(), np.random.default_rng(8)
    labels = [repainter(image, 0, rng)[1] for _ in range(300)]
    assert labels.count(UNKNOWN) / len(labels) < 0.1
