"""Images: decoding, splits and augmentation against a loop over pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qpde_perception.learning.errors import LearningError
from qpde_perception.learning.experiments.images import (
    ARCHIVE,
    MEAN,
    SPREAD,
    crop_and_flip,
    decode_images,
    fingerprint,
    load_images,
    normalised,
    with_border,
)
from qpde_perception.learning.experiments.settings import ImageRecipe

CPU = torch.device("cpu")
RECIPE = ImageRecipe(float_epochs=1, quantized_epochs=1)


@given(st.integers(0, 2**32 - 1))
def test_every_view_is_a_crop_of_its_own_image_or_the_mirror_of_one(seed):
    pixels = torch.from_numpy(
        np.random.default_rng(seed).integers(0, 256, (3, 6, 6, 2)).astype(np.uint8)
    )
    torch.manual_seed(seed)
    padded = with_border(pixels)
    for view, whole in zip(crop_and_flip(padded), padded, strict=True):
        crops = [whole[y : y + 6, x : x + 6] for y in range(9) for x in range(9)]
        assert any(view.equal(crop) or view.equal(crop.flip(1)) for crop in crops)


def test_crops_reach_every_offset_and_both_directions():
    torch.manual_seed(0)
    position = torch.zeros(1, 32, 32, 1, dtype=torch.uint8)
    position[0, 16, 10] = 255
    views = crop_and_flip(with_border(position.expand(4000, -1, -1, -1)))
    rows = views[..., 0].flatten(1).argmax(1).div(32, rounding_mode="floor")
    columns = views[..., 0].flatten(1).argmax(1) % 32
    assert set(rows.tolist()) == set(range(12, 21))
    assert set(columns.tolist()) == {*range(6, 15), *(31 - c for c in range(6, 15))}


def test_normalised_images_have_channels_first_in_the_memory_order_of_channels_last():
    pixels = torch.randint(0, 256, (2, 4, 5, 3), dtype=torch.uint8)
    x = normalised(pixels)
    assert x.shape == (2, 3, 4, 5)
    assert x.is_contiguous(memory_format=torch.channels_last)
    expected = (pixels[1, 2, 3, 0].item() / 255 - MEAN[0]) / SPREAD[0]
    assert x[1, 0, 2, 3].item() == pytest.approx(expected, rel=1e-5)


def test_splits_are_disjoint_fixed_and_of_the_asked_size(data, tmp_path):
    decoded = decode_images(data, tmp_path)
    recipe = RECIPE.model_copy(update={"images": 200, "test_images": 30})
    splits, again = (load_images(decoded, recipe, CPU) for _ in range(2))
    assert (len(splits.train), len(splits.val), len(splits.test)) == (180, 20, 30)
    assert splits.train.pixels.equal(again.train.pixels)
    seen = {image.numpy().tobytes() for image in splits.train.pixels}
    assert not seen & {image.numpy().tobytes() for image in splits.val.pixels}


def test_a_missing_and_a_damaged_archive_are_named(tmp_path):
    with pytest.raises(LearningError, match=r"cifar10.zip: no such file; --data names"):
        fingerprint(tmp_path)
    (tmp_path / ARCHIVE).parent.mkdir()
    (tmp_path / ARCHIVE).write_bytes(b"no zip")
    with pytest.raises(LearningError, match="is no zip archive"):
        decode_images(tmp_path, tmp_path)
