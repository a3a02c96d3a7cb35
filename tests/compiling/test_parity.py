"""Parity and accuracy on numbers that can be worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from qpde_perception.compiling.evaluation import evaluate
from qpde_perception.compiling.parity import (
    Disagreement,
    compare,
    in_batches,
    quantization_noise,
)

REFERENCE = np.array(
    [[3.0, 1.0, 0.0], [0.0, 2.0, 1.5], [1.0, 0.0, 4.0], [2.0, 1.0, 0.0]], np.float32
)


def test_equal_logits_are_in_perfect_parity():
    parity = compare(REFERENCE, REFERENCE.copy(), noise=0.5)
    assert (parity.top1_agreement, parity.identical_share) == (1, 1)
    assert (parity.rms_over_noise, parity.max_over_noise) == (0, 0)
    assert parity.disagreements == ()
    assert parity.ok


def test_distances_are_counted_in_units_of_the_noise():
    logits = REFERENCE.copy()
    logits[0, 0] += 0.5
    logits[3, 2] -= 0.5
    parity = compare(REFERENCE, logits, noise=0.25)
    assert parity.max_over_noise == 2
    assert parity.rms_over_noise == pytest.approx(np.sqrt(2 * 0.25 / 12) / 0.25)
    assert parity.identical_share == pytest.approx(10 / 12)
    assert parity.top1_agreement == 1


def test_every_other_first_class_is_listed_with_its_margin():
    logits = REFERENCE.copy()
    logits[1] = [0.0, 1.0, 1.25]
    parity = compare(REFERENCE, logits, noise=100.0)
    assert parity.disagreements == (Disagreement(image=1, reference=1, engine=2, margin=0.5),)
    assert parity.top1_agreement == 0.75
    assert not parity.ok


def test_each_budget_alone_refuses():
    good = compare(REFERENCE, REFERENCE.copy(), noise=1.0)
    limits = {"rms_over_noise": 0.25, "max_over_noise": 2.0, "top1_agreement": 0.9995}
    assert replace(good, **limits).ok
    for name, limit in limits.items():
        worse = limit - 0.001 if name == "top1_agreement" else limit + 0.001
        assert not replace(good, **{name: worse}).ok
        assert not replace(good, **{name: float("nan")}).ok


def test_noise_is_the_root_mean_square_of_the_difference():
    unquantized = REFERENCE + np.array([3, 0, 0], np.float32)
    assert quantization_noise(REFERENCE, unquantized) == pytest.approx(np.sqrt(3))


def test_batches_cover_every_image_once_and_report_their_progress():
    class Mean:
        def infer(self, batch):
            assert batch.flags.c_contiguous
            return batch.mean((1, 2), dtype=np.float32)

    pixels = np.arange(150, dtype=np.uint8)[:, None, None, None].repeat(3, axis=3)
    heard = []
    logits = in_batches(Mean(), pixels[:, :, ::-1], heard.append)
    assert logits[:, 0].tolist() == list(range(150))
    assert heard[-1] == 150
    assert heard == sorted(heard)


def test_evaluation_counts_classes_and_confusions():
    result = evaluate(REFERENCE, np.array([0, 1, 0, 1]))
    assert (result.images, result.top1) == (4, 0.5)
    assert result.per_class == (0.5, 0.5, None)
    assert result.confusion.tolist() == [[1, 0, 1], [1, 1, 0], [0, 0, 0]]
