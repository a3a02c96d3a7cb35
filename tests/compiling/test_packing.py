"""Packing: a bundle is complete in its folder or not there."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from qpde_perception.bundles import golden_of, list_models, load_bundle
from qpde_perception.compiling.card import write_card
from qpde_perception.compiling.errors import CompilingError
from qpde_perception.compiling.packing import write_bundle
from qpde_perception.compiling.parity import quantization_noise, reference_of
from qpde_perception.engines import CPU_ENGINES
from qpde_perception.learning.networks import CONFIGS, DeployableMobileNetV2
from qpde_perception.learning.trained_run import TrainedRun
from qpde_perception.learning.training import TrainingConfig


@pytest.fixture
def bundle(make_bundle, tiny_network, tmp_path):
    """A bundle that is not in its folder yet."""
    return make_bundle(tiny_network, tmp_path / "models" / "tiny")


def test_what_was_packed_is_what_is_loaded(bundle):
    packed = write_bundle(bundle)
    loaded = load_bundle(bundle.path)
    assert loaded == packed
    assert loaded.contents == bundle.contents
    assert set(loaded.contents) == {
        "cpu.onnx",
        "golden.npz",
        "reference_fp32.onnx",
        "reference_unrounded.onnx",
        "specification.json",
        "tensorrt.onnx",
        "weights.safetensors",
    }


def test_manifest_names_every_file_with_its_hash_and_every_engine(bundle):
    manifest = write_bundle(bundle).manifest
    assert manifest.name == "tiny"
    assert set(manifest.engines) == set(CPU_ENGINES)
    for name, digest in manifest.files.items():
        assert hashlib.sha256((bundle.path / name).read_bytes()).hexdigest() == digest


def test_golden_frames_carry_the_references_answers_and_the_noise(bundle):
    golden = golden_of(bundle)
    assert np.array_equal(golden.logits, reference_of(bundle).infer(golden.pixels))
    assert np.array_equal(golden.saturation, reference_of(bundle).saturation(golden.pixels))
    assert golden.saturation.shape == (len(golden.pixels), len(golden.taps))
    assert golden.distance(golden.logits) == (0, 0)
    from qpde_perception.compiling.parity import float_reference_of

    unquantized = float_reference_of(bundle).infer(golden.pixels)
    assert golden.noise == pytest.approx(quantization_noise(golden.logits, unquantized))
    assert golden.noise > 0


def test_an_older_bundle_of_the_name_is_replaced_as_a_whole(bundle):
    bundle.contents["CARD.md"] = b"old"
    write_bundle(bundle)
    del bundle.contents["CARD.md"]
    write_bundle(bundle)
    assert "CARD.md" not in load_bundle(bundle.path).contents
    assert [path.name for path in bundle.path.parent.iterdir()] == ["tiny"]


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_anything_else_of_the_name_is_refused_and_kept(bundle, kind):
    bundle.path.parent.mkdir(parents=True)
    precious = bundle.path if kind == "file" else bundle.path / "thesis.txt"
    precious.parent.mkdir(exist_ok=True)
    precious.write_text("precious")
    with pytest.raises(CompilingError, match="no model"):
        write_bundle(bundle)
    assert precious.read_text() == "precious"


def fail_at(monkeypatch, name):
    """Let the disk be full when the file `name` is written."""
    real = Path.write_bytes

    def write_bytes(path, data):
        if path.name == name:
            raise OSError(28, "No space left on device")
        return real(path, data)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)


@pytest.mark.parametrize("name", ["cpu.onnx", "golden.npz"])
def test_a_full_disk_leaves_nothing_behind(bundle, monkeypatch, name):
    fail_at(monkeypatch, name)
    with pytest.raises(CompilingError, match="No space left"):
        write_bundle(bundle)
    assert not list(bundle.path.parent.iterdir())


def test_a_full_disk_leaves_the_older_bundle_whole(bundle, monkeypatch):
    packed = write_bundle(bundle)
    fail_at(monkeypatch, "golden.npz")
    with pytest.raises(CompilingError, match="No space left"):
        write_bundle(bundle)
    assert load_bundle(bundle.path) == packed
    assert [path.name for path in bundle.path.parent.iterdir()] == ["tiny"]


def test_folder_that_cannot_be_made_is_refused_by_name(bundle):
    bundle.path.parent.parent.joinpath("models").write_text("a file stands here")
    with pytest.raises(CompilingError, match="tiny: cannot be written"):
        write_bundle(bundle)


def test_packed_bundle_is_found_on_its_shelf(bundle, monkeypatch):
    monkeypatch.setenv("QPDE_MODELS", str(bundle.path.parent))
    write_bundle(bundle)
    assert bundle.path in list_models()


def run_of(manifest, begun_with=None, taught_by=()):
    """Return a run of the default recipe; a card tells nothing of its weights."""
    network = DeployableMobileNetV2(CONFIGS["symmetric_mobilenet_v2_tiny"])
    recipe = asdict(TrainingConfig(distillation=0.8 if taught_by else 0.0))
    return TrainedRun(
        network, manifest.network, manifest.input, manifest.labels, recipe, begun_with, taught_by
    )


def test_card_states_what_was_measured(shipped_bundle):
    manifest = shipped_bundle.manifest
    card = write_card(manifest, run_of(manifest), "symmetric")
    for entry in manifest.accuracy:
        assert f"{entry.top1:.2%}" in card
        assert entry.data in card
    assert f"{manifest.parameters:,} parameters" in card


def test_card_claims_gradient_steps_of_a_symmetric_network_alone(shipped_bundle, flavour):
    manifest = shipped_bundle.manifest
    card = write_card(manifest, run_of(manifest), flavour)
    assert ("is a gradient step: one that does not amplify" in card) == (flavour == "symmetric")


def test_card_names_the_run_that_a_training_began_with(shipped_bundle):
    manifest = shipped_bundle.manifest
    earlier = asdict(TrainingConfig(float_epochs=77, learning_rate=0.03, seed=5))
    card = write_card(manifest, run_of(manifest, earlier), "symmetric")
    assert "an earlier run: 77 epochs, peak\nlearning rate 0.03, seed 5." in card
    assert "earlier run" not in write_card(manifest, run_of(manifest), "symmetric")


def test_card_names_the_penalty_of_a_training_that_had_one(shipped_bundle):
    manifest, run = shipped_bundle.manifest, run_of(shipped_bundle.manifest)
    assert "penalty" not in write_card(manifest, run, "symmetric")
    run = replace(run, recipe={**run.recipe, "noise_penalty": 1.5})
    assert "penalty on rounding noise 1.5, batch" in write_card(manifest, run, "symmetric")


def test_card_names_the_teachers(shipped_bundle):
    manifest = shipped_bundle.manifest
    teacher = asdict(TrainingConfig(network="ordinary_mobilenet_v2", seed=7))
    card = write_card(manifest, run_of(manifest, taught_by=(teacher,)), "symmetric")
    name = "ordinary_mobilenet_v2 (seed 7)"
    assert f"Taught by {name}: its probabilities\nhave 80% of the loss." in card
    taught = run_of(manifest, taught_by=(teacher, {**teacher, "seed": 8}))
    names = f"{name}, ordinary_mobilenet_v2 (seed 8)"
    card = write_card(manifest, taught, "symmetric")
    assert f"Taught by {names}: the means of their probabilities\nhave 80% of the" in card
    assert "Taught" not in write_card(manifest, run_of(manifest), "symmetric")
