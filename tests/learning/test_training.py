"""Training on a tiny network and synthetic signs: it learns, resumes, and refuses."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from coloured_signs import CONFIG, SPEC, TINY, Watcher, coloured_signs
from safetensors.torch import load_file, save_file

from qpde_perception.learning.errors import LearningError
from qpde_perception.learning.networks import CONFIGS, build_network
from qpde_perception.learning.quantizers import ActivationQuantizer, on_grid
from qpde_perception.learning.rounding_noise import otherwise_rounded, variance_of_differences
from qpde_perception.learning.signs import prepared_pixels
from qpde_perception.learning.temperature import fit_temperature
from qpde_perception.learning.trained_run import FLOAT_WEIGHTS, load_float_network, load_run
from qpde_perception.learning.training import predict, train


@pytest.fixture(scope="module")
def signs():
    return coloured_signs()


@pytest.fixture(scope="module")
def finished(signs, tmp_path_factory):
    """A run that nothing interrupted: its folder, its network, and what its watcher heard."""
    folder, watcher = tmp_path_factory.mktemp("run"), Watcher()
    network = train(CONFIG, signs, SPEC, folder, watcher)
    return folder, network, watcher


def metrics_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_loss_falls_and_the_signs_are_learned(finished):
    losses = [metrics["loss"] for metrics in metrics_of(finished[0])]
    assert losses[-1] < 0.6 * losses[0]
    assert metrics_of(finished[0])[-1]["val_top1"] > 0.9


def test_a_network_of_limited_steps_ends_with_limits_for_what_it_deploys(
    signs, tmp_path, monkeypatch
):
    monkeypatch.setitem(CONFIGS, "limited", replace(CONFIGS[TINY], stage_gain=1.0))
    network = train(replace(CONFIG, network="limited"), signs, SPEC, tmp_path, Watcher())
    for stage in network.stages:
        for block in stage.blocks:
            left = block.outer_norm.limit.clone()
            block.settle()
            torch.testing.assert_close(left, block.outer_norm.limit, rtol=1e-3, atol=0)


def test_the_float_network_of_a_run_is_the_one_at_the_end_of_its_float_epochs(
    finished, signs, tmp_path
):
    network = load_float_network(load_run(finished[0]), finished[0])
    with pytest.raises(KeyboardInterrupt):
        train(CONFIG, signs, SPEC, tmp_path, Watcher(stop_after=CONFIG.float_epochs))
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["network"]
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    val = signs.split("val")
    accuracy = np.mean(predict(network, prepared_pixels(val, SPEC)).argmax(1) == val.labels)
    assert accuracy == metrics_of(finished[0])[CONFIG.float_epochs - 1]["val_top1"]


def test_a_run_without_its_float_network_has_none(finished, tmp_path):
    assert load_float_network(load_run(finished[0]), tmp_path) is None


def test_float_weights_of_another_network_are_refused_by_name(finished, tmp_path):
    other = build_network("twin_mobilenet_v2_tiny").state_dict()
    save_file({name: value.contiguous() for name, value in other.items()}, tmp_path / FLOAT_WEIGHTS)
    with pytest.raises(LearningError, match=r"float_weights\.safetensors: is damaged or of"):
        load_float_network(load_run(finished[0]), tmp_path)


def test_a_run_can_begin_with_the_float_weights_of_another(signs, finished, tmp_path):
    start = finished[0] / "float_weights.safetensors"
    config = replace(
        CONFIG,
        network=f"{TINY}_w4a8",
        float_epochs=0,
        learning_rate=0.0,
        frozen_learning_rate=0.0,
    )
    train(config, signs, SPEC, tmp_path / "w4", Watcher(), start=start)
    begun, run = load_file(start), load_run(tmp_path / "w4")
    kept = load_file(tmp_path / "w4" / "float_weights.safetensors")
    assert all(torch.equal(kept[name], value) for name, value in begun.items())
    # Nothing is learned at this rate, so the kernels are those of the float run on another grid.
    for name, value in run.network.named_parameters():
        if name.endswith(("expand", "depthwise")):
            assert torch.equal(value, begun[name])
    assert run.begun_with == load_run(finished[0]).recipe
    assert load_run(finished[0]).begun_with is None


@pytest.mark.parametrize("network", [TINY, f"twin_{TINY.removeprefix('symmetric_')}"])
def test_weights_that_do_not_fit_are_refused_by_name(signs, finished, tmp_path, network):
    start = tmp_path / "missing.safetensors"
    if network != TINY:
        start = finished[0] / "float_weights.safetensors"
    config = replace(CONFIG, network=network)
    with pytest.raises(LearningError, match=f"{start.name}: cannot be begun with"):
        train(config, signs, SPEC, tmp_path / "run", Watcher(), start=start)


def test_the_probabilities_of_a_trained_network_are_at_the_likeliest_temperature(signs, finished):
    watched = signs.split("val")
    logits = predict(load_run(finished[0]).network, prepared_pixels(watched, SPEC))
    # The head is rounded again after it was cooled.
    assert fit_temperature(logits, watched.labels) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("flavour", ["twin", "ordinary"])
def test_the_other_flavours_learn_from_the_same_recipe(signs, tmp_path, flavour):
    config = replace(CONFIG, network=f"{flavour}_mobilenet_v2_tiny")
    network = train(config, signs, SPEC, tmp_path, Watcher())
    assert metrics_of(tmp_path)[-1]["val_top1"] > 0.9
    run = load_run(tmp_path)
    assert run.network.config == CONFIGS[config.network]
    expected = network.state_dict()
    found = run.network.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler on this machine")
def test_a_run_whose_rounding_is_fused_learns_the_same(signs, finished, tmp_path, monkeypatch):
    compile_, rounded = torch.compile, []

    def compile_and_count(function, **options):
        assert function is on_grid
        fused = compile_(function, **options)
        return lambda x, *grid: rounded.append(x.requires_grad) or fused(x, *grid)

    monkeypatch.setattr(torch, "compile", compile_and_count)
    network = train(replace(CONFIG, compiled=True), signs, SPEC, tmp_path, Watcher())
    quantizers = sum(isinstance(part, ActivationQuantizer) for part in network.modules())
    steps = len(signs.split("train")) // CONFIG.batch * CONFIG.quantized_epochs
    assert sum(rounded) >= quantizers * steps
    losses, expected = ([line["loss"] for line in metrics_of(f)] for f in (tmp_path, finished[0]))
    assert losses == pytest.approx(expected, rel=1e-3)
    pixels = prepared_pixels(signs.split("val"), SPEC)
    # The order of a sum differs, so a value here and there may round to its other neighbour.
    np.testing.assert_allclose(predict(network, pixels), predict(finished[1], pixels), atol=0.1)


def test_metrics_have_one_line_per_epoch_with_its_phase(finished):
    folder, _, watcher = finished
    metrics = metrics_of(folder)
    assert [line["epoch"] for line in metrics] == [1, 2, 3, 4, 5]
    assert [line["phase"] for line in metrics] == ["float"] * 3 + ["quantized"] * 2
    assert watcher.epochs == metrics


def test_watcher_hears_of_every_batch(finished):
    total = 150 // 16
    expected = [(epoch, done, total) for epoch in range(1, 6) for done in range(1, total + 1)]
    assert finished[2].batches == expected


def test_quantization_starts_from_ranges_that_were_seen(finished):
    ranges = [m.alpha.item() for m in finished[1].modules() if isinstance(m, ActivationQuantizer)]
    assert all(alpha > 0 for alpha in ranges)
    assert len({round(alpha, 3) for alpha in ranges}) > 3, "the initial 6.0 is still there"


@pytest.mark.parametrize("stop_after", [1, 3, 4])
def test_a_killed_run_goes_on_to_the_same_weights(signs, finished, tmp_path, stop_after):
    with pytest.raises(KeyboardInterrupt):
        train(CONFIG, signs, SPEC, tmp_path, Watcher(stop_after))
    # As if killed between the figures of an epoch and its checkpoint.
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write("{}\n")
    resumed = Watcher()
    network = train(CONFIG, signs, SPEC, tmp_path, resumed)
    assert [metrics["epoch"] for metrics in resumed.epochs] == list(range(stop_after + 1, 6))
    expected = finished[1].state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())
    assert metrics_of(tmp_path) == metrics_of(finished[0])


def test_a_run_with_a_penalty_goes_on_to_the_same_weights(signs, finished, tmp_path):
    config = replace(CONFIG, noise_penalty=2000.0)
    network = train(config, signs, SPEC, tmp_path / "whole", Watcher())
    for stop_after in (1, 4):
        with pytest.raises(KeyboardInterrupt):
            train(config, signs, SPEC, tmp_path / "killed", Watcher(stop_after))
    resumed = train(config, signs, SPEC, tmp_path / "killed", Watcher()).state_dict()
    assert all(torch.equal(value, resumed[name]) for name, value in network.state_dict().items())
    plain = finished[1].state_dict()
    assert not all(torch.equal(value, plain[name]) for name, value in resumed.items())


def test_a_run_with_a_penalty_has_less_noise(signs, tmp_path):
    pixels = torch.from_numpy(prepared_pixels(signs.split("val"), SPEC)).permute(0, 3, 1, 2)
    noises = []
    for penalty in (0.0, 2000.0):
        config = replace(CONFIG, float_epochs=8, quantized_epochs=6, noise_penalty=penalty)
        network = train(config, signs, SPEC, tmp_path / str(penalty), Watcher())
        with torch.no_grad(), otherwise_rounded(network, len(pixels)):
            logits = network(torch.cat([pixels, pixels]))
        noises.append(variance_of_differences(*logits.chunk(2)).mean())
    # Both give their probabilities at the likeliest temperature, so small logits are no way out.
    assert noises[1] < 0.8 * noises[0]


def test_another_recipe_in_the_same_folder_is_refused(signs, finished):
    before = {path.name: path.read_bytes() for path in finished[0].iterdir()}
    with pytest.raises(LearningError, match="another recipe"):
        train(replace(CONFIG, seed=2), signs, SPEC, finished[0], Watcher())
    assert {path.name: path.read_bytes() for path in finished[0].iterdir()} == before


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 cut off"])
def test_damaged_checkpoint_is_refused_by_name(signs, tmp_path, content):
    (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(LearningError, match=r"checkpoint\.pt.*remove it"):
        train(CONFIG, signs, SPEC, tmp_path, Watcher())


def test_checkpoint_with_executable_content_is_never_unpickled(signs, tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("sprung").touch, ())

    torch.save({"config": Trap()}, tmp_path / "checkpoint.pt")
    with pytest.raises(LearningError, match=r"checkpoint\.pt"):
        train(CONFIG, signs, SPEC, tmp_path, Watcher())
    assert not (tmp_path / "sprung").exists()


def test_too_few_images_for_one_batch_are_refused(tmp_path):
    with pytest.raises(LearningError, match="fewer than one batch"):
        train(CONFIG, coloured_signs(2), SPEC, tmp_path, Watcher())


def test_a_loss_that_is_no_number_stops_the_training(signs, tmp_path):
    with pytest.raises(LearningError, match="lower the learning rate"):
        train(replace(CONFIG, learning_rate=1e30), signs, SPEC, tmp_path, Watcher())


def test_finished_run_is_read_back_as_it_was(finished):
    folder, network, _ = finished
    run = load_run(folder)
    assert (run.name, run.spec, run.labels) == (TINY, SPEC, tuple("abcde"))
    assert run.network.config == CONFIGS[TINY]
    assert run.recipe["seed"] == CONFIG.seed
    pixels = np.random.default_rng(1).integers(0, 256, (4, 16, 16, 3), np.uint8)
    assert np.array_equal(predict(run.network, pixels), predict(network, pixels))


def test_unfinished_run_is_refused(tmp_path):
    with pytest.raises(LearningError, match="no finished run"):
        load_run(tmp_path)


@pytest.mark.parametrize("name", ["training.json", "weights.safetensors"])
@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe"])
def test_damaged_run_is_refused(finished, tmp_path, name, content):
    for path in finished[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / name).write_bytes(content)
    with pytest.raises(LearningError, match="damaged"):
        load_run(tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device on this machine")
def test_a_missing_device_is_refused_by_name(signs, tmp_path):
    with pytest.raises(LearningError, match="no device 'cuda' on this machine"):
        train(CONFIG, signs, SPEC, tmp_path, Watcher(), device="cuda")
    assert not list(tmp_path.iterdir())


def test_the_number_of_processes_does_not_change_what_is_learned(signs, finished, tmp_path):
    network = train(CONFIG, signs, SPEC, tmp_path, Watcher(), workers=2)
    expected = finished[1].state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())
