"""Augmentation: what every random view has in common."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from qpde_perception.frames import InputSpec
from qpde_perception.learning.augmentation import augment

SPEC = InputSpec(height=24, width=20)


def picture(rows, columns, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (rows, columns, 3), np.uint8)


@settings(max_examples=300)
@given(st.integers(1, 80), st.integers(1, 80), st.integers(0, 2**32 - 1))
def test_every_view_has_the_shape_and_type_of_the_input(rows, columns, seed):
    view = augment(picture(rows, columns), SPEC, np.random.default_rng(seed))
    assert view.shape == (24, 20, 3)
    assert view.dtype == np.uint8


def test_the_seed_decides_the_view():
    image = picture(40, 40)
    views = [augment(image, SPEC, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert np.array_equal(views[0], views[1])
    assert not np.array_equal(views[0], views[2])


def test_the_image_itself_is_left_as_it_is():
    image = picture(40, 30)
    kept = image.copy()
    for seed in range(50):
        augment(image, SPEC, np.random.default_rng(seed))
    assert np.array_equal(image, kept)


def test_most_views_still_show_the_sign():
    image = np.full((40, 40, 3), 60, np.uint8)
    image[:, 20:] = 200
    views = [augment(image, SPEC, np.random.default_rng(seed)) for seed in range(200)]
    told_apart = [view[:, 14:].mean() > view[:, :6].mean() + 10 for view in views]
    assert np.mean(told_apart) > 0.95
