"""Corruptions: they repeat themselves, get worse with severity, and keep what they must."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpde_perception.assessment.corruptions import (
    AIRLIGHT,
    CORRUPTIONS,
    DIRT,
    DIRTY_LENS,
    SEVERITIES,
    corrupt,
)

seeds = st.integers(0, 2**32 - 1)
names = st.sampled_from(list(CORRUPTIONS))


def blobs(seed, size=48):
    """A picture with contrast at several scales, as a sign has."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 6, 3)).repeat(size // 6, 0).repeat(size // 6, 1)
    return np.clip(coarse + rng.normal(0, 12, coarse.shape), 0, 255).astype(np.uint8)


@given(seeds, names)
def test_the_distance_from_the_clean_picture_grows_with_severity(seed, name):
    image = blobs(seed)
    distances = [
        np.mean((corrupt(image, name, severity, (seed,)).astype(float) - image) ** 2)
        for severity in (1, 2, 3, 4, 5)
    ]
    assert distances[0] > 0
    assert (np.diff(distances) > 0).all(), distances


@given(seeds, names, st.sampled_from(SEVERITIES))
def test_a_corruption_repeats_itself_and_leaves_its_picture_alone(seed, name, severity):
    image = blobs(seed)
    before = image.copy()
    first, second = (corrupt(image, name, severity, (seed, 7)) for _ in range(2))
    assert np.array_equal(first, second)
    assert np.array_equal(image, before)
    assert first.dtype == np.uint8
    assert first.shape == image.shape


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(1, 1, 3), (15, 17, 3), (25, 30, 3)])
def test_pictures_of_any_size_are_corrupted(name, shape):
    image = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    for severity in SEVERITIES:
        assert corrupt(image, name, severity, (1,)).shape == shape


def test_only_noise_depends_on_the_seed():
    image = blobs(3)
    for name in CORRUPTIONS:
        one, other = corrupt(image, name, 3, (1,)), corrupt(image, name, 3, (2,))
        assert np.array_equal(one, other) == (name != "Gaussian noise")


def test_noise_has_the_deviation_that_the_page_states():
    grey = np.full((200, 200, 3), 128, np.uint8)
    for severity, sigma in zip(SEVERITIES, CORRUPTIONS["Gaussian noise"].levels, strict=True):
        measured = (corrupt(grey, "Gaussian noise", severity, (1,)).astype(float) - 128).std()
        # The largest deviation is cut off at black and white.
        assert measured == pytest.approx(sigma, rel=0.02)


def test_fog_pulls_every_pixel_towards_the_airlight_and_darkness_towards_black():
    image = blobs(4).astype(float)
    for severity in SEVERITIES:
        share = CORRUPTIONS["fog"].levels[severity - 1]
        fogged = corrupt(image.astype(np.uint8), "fog", severity, (1,))
        assert np.abs(fogged - (share * image + (1 - share) * AIRLIGHT)).max() <= 0.501
        gain = CORRUPTIONS["darkness"].levels[severity - 1]
        dark = corrupt(image.astype(np.uint8), "darkness", severity, (1,))
        assert np.abs(dark - gain * image).max() <= 0.501


def test_blur_is_as_wide_as_a_share_of_the_picture():
    """A picture of twice the size, blurred and halved, is the small picture blurred."""
    small = blobs(5, 48)
    large = small.repeat(2, 0).repeat(2, 1)
    halved = corrupt(large, "Gaussian blur", 5, (1,)).reshape(48, 2, 48, 2, 3).mean((1, 3))
    error = halved - corrupt(small, "Gaussian blur", 5, (1,))
    assert np.abs(error).mean() < 1.5


@given(seeds)
def test_a_dirtier_lens_covers_more_of_the_same_picture_with_the_same_blotches(seed):
    white = np.full((48, 48, 3), 255, np.uint8)
    before = np.zeros((48, 48), bool)
    for severity in SEVERITIES:
        picture = DIRTY_LENS.at(white, severity, (seed,))
        assert np.array_equal(picture, DIRTY_LENS.at(white, severity, (seed,)))
        assert picture.min() > DIRT
        covered = picture[..., 0] < 220
        assert (covered | ~before).all()
        assert covered.mean() == pytest.approx(DIRTY_LENS.levels[severity - 1], abs=0.12)
        before = covered


@pytest.mark.parametrize("shape", [(1, 1, 3), (15, 17, 3), (25, 30, 3)])
def test_pictures_of_any_size_get_dirty(shape):
    image = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    assert DIRTY_LENS.at(image, 3, (1,)).shape == shape
