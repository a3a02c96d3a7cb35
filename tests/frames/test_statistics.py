"""Statistics of the input: each moves with its own fault, and only with that."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpde_perception.frames import FrameError
from qpde_perception.frames.statistics import STATISTICS, input_statistics


def pictures(count=8, size=48, seed=3):
    """Coloured blobs, sharp at their borders."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(30, 220, (count, 6, 6, 3), np.uint8)
    coarse[..., 2] //= 2
    large = coarse.repeat(size // 6, axis=1).repeat(size // 6, axis=2)
    return np.stack([cv2.GaussianBlur(each, (0, 0), 1.0) for each in large])


def moved(change):
    """Return by name how far a change moves each statistic, a number for every picture."""
    healthy = pictures()
    worse = np.stack([change(each) for each in healthy])
    difference = input_statistics(worse) - input_statistics(healthy)
    return dict(zip(STATISTICS, difference.T, strict=True))


def noisy(picture):
    noise = np.random.default_rng(1).normal(0, 12, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def nearest(picture):
    small = cv2.resize(picture, (30, 30), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (48, 48), interpolation=cv2.INTER_NEAREST)


@pytest.mark.parametrize(
    ("change", "higher", "lower"),
    [
        (lambda p: p // 2, [], ["brightness", "peak"]),
        (lambda p: p // 255, ["black share"], ["brightness", "peak", "contrast"]),
        (lambda p: np.full_like(p, 255), ["white share", "brightness"], ["contrast"]),
        (lambda p: p[..., ::-1], [], ["red over blue"]),
        (lambda p: p // 2 + 100, ["dark channel"], ["contrast", "colourfulness"]),
        (lambda p: cv2.GaussianBlur(p, (0, 0), 2.0), [], ["sharpness"]),
        (noisy, ["colour noise", "fine detail"], []),
        (nearest, ["repeated lines", "fine detail"], []),
    ],
    ids=["darkness", "0 to 1", "all white", "swapped", "fog", "blur", "noise", "nearest"],
)
def test_a_fault_moves_the_statistics_that_are_named_after_it(change, higher, lower):
    found = moved(change)
    for name in higher:
        assert (found[name] > 0.05).all(), name
    for name in lower:
        assert (found[name] < -0.05).all(), name


def test_swapped_channels_change_nothing_but_the_balance_of_colours():
    found = moved(lambda picture: picture[..., ::-1])
    for name in set(STATISTICS) - {"red over blue", "colour noise"}:
        np.testing.assert_allclose(found[name], 0, atol=1e-5, err_msg=name)


def test_the_balance_of_colours_turns_round_with_the_channels():
    column = STATISTICS.index("red over blue")
    there, back = (
        input_statistics(each)[:, column] for each in (pictures(), pictures()[..., ::-1])
    )
    np.testing.assert_allclose(there, -back, atol=1e-5)
    assert (there > 0).all()


def test_a_blotch_makes_a_picture_uneven():
    def blotched(picture):
        mask = np.zeros((48, 48, 1), np.float32)
        mask[8:32, 8:32] = 1
        return (picture * (1 - mask) + 60 * mask).astype(np.uint8)

    assert (moved(blotched)["unevenness"] > 0.05).all()


@given(
    height=st.integers(12, 60),
    width=st.integers(12, 60),
    kind=st.sampled_from(["noise", "black", "white", "one pixel"]),
    seed=st.integers(0, 99),
)
def test_every_picture_has_finite_statistics_the_same_in_every_batch(height, width, kind, seed):
    batch = np.zeros((2, height, width, 3), np.uint8)
    if kind == "noise":
        batch[:] = np.random.default_rng(seed).integers(0, 256, batch.shape)
    elif kind == "white":
        batch[:] = 255
    elif kind == "one pixel":
        batch[:, 0, 0] = 255
    together = input_statistics(batch)
    assert together.shape == (2, len(STATISTICS))
    assert np.isfinite(together).all()
    assert np.array_equal(together[:1], input_statistics(batch[:1]))


@pytest.mark.parametrize(
    "batch",
    [
        np.zeros((1, 48, 48, 3), np.float32),
        np.zeros((48, 48, 3), np.uint8),
        np.zeros((1, 48, 48), np.uint8),
        np.zeros((1, 11, 48, 3), np.uint8),
    ],
    ids=["float", "no batch", "no channels", "too small"],
)
def test_what_is_no_batch_of_pictures_is_refused_with_its_form(batch):
    with pytest.raises(FrameError, match="statistics need uint8"):
        input_statistics(batch)


def test_no_pictures_have_no_statistics():
    assert input_statistics(np.empty((0, 48, 48, 3), np.uint8)).shape == (0, len(STATISTICS))
