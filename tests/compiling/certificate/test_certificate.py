"""The certificate: a healthy engine passes, a broken one does not."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from qpde_perception.compiling.card import with_certificate  # noqa: E402
from qpde_perception.compiling.certificate import certify  # noqa: E402
from qpde_perception.compiling.errors import CompilingError  # noqa: E402
from qpde_perception.compiling.folding import fold  # noqa: E402
from qpde_perception.compiling.reference import IntegerReference  # noqa: E402
from qpde_perception.compiling.specification import Specification  # noqa: E402


def answers(specification, pixels):
    return IntegerReference(specification).infer(pixels)


@pytest.fixture(scope="module")
def pixels(images, tiny_specification):
    return images(32, tiny_specification.document.input_height, seed=11)


@pytest.fixture(scope="module")
def healthy(tiny_specification, pixels):
    return certify(tiny_specification, pixels, answers(tiny_specification, pixels), "reference")


def test_a_healthy_engine_is_ok(healthy):
    assert healthy.ok
    assert healthy.broken_bounds == 0
    assert healthy.observed_max < healthy.global_bound
    assert 0.85 < healthy.noise_ratio < 1.15
    assert healthy.certified_share + healthy.refuted_share <= 1.0
    assert healthy.three_sigma_tail < 0.02
    assert sum(healthy.noise_share) == pytest.approx(1.0)
    assert healthy.certified_from[0] == healthy.certified_share
    assert sorted(healthy.certified_from) == list(healthy.certified_from)
    assert len(healthy.noise_gain) == len(healthy.quantizers)
    assert len(healthy.stage_lipschitz) == len(healthy.stages)


def test_a_healthy_engine_with_weights_of_four_bits_is_ok(make_network, pixels):
    specification = fold(make_network("symmetric_mobilenet_v2_tiny_w4a8", 1))
    found = certify(specification, pixels, answers(specification, pixels), "reference")
    assert found.ok
    assert found.broken_bounds == 0
    assert sum(found.stage_symmetric) == 2, "fewer bits leave a block a gradient step"


@pytest.mark.parametrize("seed", range(2))
def test_a_healthy_engine_of_every_flavour_is_ok(make_network, pixels, flavour, seed):
    specification = fold(make_network(f"{flavour}_mobilenet_v2_tiny", seed))
    found = certify(specification, pixels, answers(specification, pixels), "reference")
    assert found.ok
    assert found.broken_bounds == 0
    assert found.observed_max < found.global_bound < float("inf")
    symmetric = dict(zip(found.stages, found.stage_symmetric, strict=True))
    blocks = {name: flag for name, flag in symmetric.items() if name.endswith(".sum")}
    assert set(blocks.values()) == {flavour == "symmetric"}
    assert sum(symmetric.values()) == (2 if flavour == "symmetric" else 0)
    assert all(
        lower <= upper
        for lower, upper in zip(found.stage_measured, found.stage_lipschitz, strict=True)
    )


def test_a_scale_that_is_wrong_breaks_the_ratio_and_the_bounds(tiny_specification, pixels, changed):
    wrong = changed(
        tiny_specification,
        "stage1.block0.expand_t.scale",
        lambda scale: scale * np.float32(2.008),
    )
    found = certify(tiny_specification, pixels, answers(wrong, pixels), "wrong scale")
    assert not found.ok
    assert found.noise_ratio > 2
    assert found.broken_bounds > 0


def test_a_flipped_high_bit_breaks_the_ratio_and_the_bounds(
    tiny_specification, pixels, changed, flip_high_bit
):
    wrong = changed(tiny_specification, "features.weight", flip_high_bit)
    found = certify(tiny_specification, pixels, answers(wrong, pixels), "flipped bit")
    assert not found.ok
    assert found.noise_ratio > 2
    assert found.broken_bounds > 0


def test_a_changed_layer_breaks_the_ratio_and_the_bounds(tiny_specification, pixels):
    document = tiny_specification.document
    layers = tuple(
        layer.model_copy(update={"trunk": layer.branch})
        if layer.name == "stage1.block0.sum"
        else layer
        for layer in document.layers
    )
    wrong = Specification(document.model_copy(update={"layers": layers}), tiny_specification.arrays)
    found = certify(tiny_specification, pixels, answers(wrong, pixels), "changed layer")
    assert not found.ok
    assert found.noise_ratio > 2
    assert found.broken_bounds > 0


def test_logits_beyond_the_global_bound_are_not_ok(tiny_specification, pixels, healthy):
    logits = answers(tiny_specification, pixels)
    logits[0] += np.float32(2 * healthy.global_bound)  # leaves every margin as it is
    found = certify(tiny_specification, pixels, logits, "far away")
    assert found.observed_max > found.global_bound
    assert not found.ok


def test_the_shipped_model_on_golden_frames_keeps_every_bound(
    shipped_bundle, shipped_specification
):
    from qpde_perception.bundles import golden_of

    golden = golden_of(shipped_bundle)
    found = certify(shipped_specification, golden.pixels[:2], golden.logits[:2], "reference")
    assert found.broken_bounds == 0
    assert found.observed_max < found.global_bound
    assert found.ok


def test_progress_is_told(tiny_specification, pixels):
    told = []
    few = pixels[:6]
    certify(tiny_specification, few, answers(tiny_specification, few), "reference", told.append)
    assert told == [4, 6]


def test_no_frame_is_refused(tiny_specification, pixels):
    none = pixels[:0]
    with pytest.raises(CompilingError, match="at least one frame"):
        certify(tiny_specification, none, np.empty((0, 5), np.float32), "reference")


def test_the_file_is_json_without_nan(healthy):
    document = json.loads(healthy.to_bytes())
    assert document["noise_ratio"] == healthy.noise_ratio
    with pytest.raises(ValueError, match="not JSON compliant"):
        replace(healthy, noise_ratio=float("nan")).to_bytes()


def test_a_card_holds_one_certificate_the_newest(healthy):
    card = "# name\n\n## Training\n\nmuch\n\n## Limits\n\n- some\n"
    once = with_certificate(card, healthy)
    twice = with_certificate(once, replace(healthy, noise_ratio=1.0625))
    assert twice.count("## Certificate") == 1
    assert "1.062" in twice
    assert twice.startswith("# name\n\n## Training\n\nmuch\n\n## Certificate\n")
    assert twice.endswith("\n\n## Limits\n\n- some\n")
