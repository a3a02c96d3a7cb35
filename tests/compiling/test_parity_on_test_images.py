"""Every engine against the integer reference, over all test images of the published data."""

from __future__ import annotations

import numpy as np
import pytest

from qpde_perception.bundles import golden_of
from qpde_perception.compiling.evaluation import evaluate
from qpde_perception.compiling.parity import compare, in_batches, reference_of
from qpde_perception.engines import CPU_ENGINES, open_engine
from qpde_perception.learning.signs import prepared_pixels


@pytest.fixture(scope="module")
def answered(published_signs, shipped_bundle):
    """The test images, their classes, and the reference's logits."""
    signs = published_signs.split("test-a")
    pixels = prepared_pixels(signs, shipped_bundle.manifest.input)
    return pixels, signs.labels, in_batches(reference_of(shipped_bundle), pixels)


@pytest.mark.parametrize("name", CPU_ENGINES)
def test_engine_is_in_parity_on_every_test_image(answered, shipped_bundle, name):
    pixels, _, expected = answered
    logits = in_batches(open_engine(shipped_bundle, name, threads=0), pixels)
    parity = compare(expected, logits, golden_of(shipped_bundle).noise)
    assert parity.ok, parity
    assert np.array_equal(logits, expected), parity


def test_accuracy_is_the_one_the_model_states(answered, shipped_bundle):
    _, labels, logits = answered
    stated = [entry for entry in shipped_bundle.manifest.accuracy if entry.data == "gtsrb/test-a"]
    assert evaluate(logits, labels).images == 6236
    for entry in stated:
        assert entry.top1 == evaluate(logits, labels).top1
