"""Training of runs: bits fall as scheduled, a killed run ends as an uninterrupted one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qpde_perception.learning.errors import LearningError
from qpde_perception.learning.experiments.fitting import (
    CHECKPOINT,
    at_target,
    bits_at,
    fit,
    load_weights,
)
from qpde_perception.learning.experiments.image_task import ImageTask, build_image_network
from qpde_perception.learning.experiments.images import decode_images, load_images
from qpde_perception.learning.experiments.runs import (
    FLOAT,
    WEIGHTS,
    ImageRun,
    Precision,
    float_run,
    folder_of,
    read_outcome,
)
from qpde_perception.learning.experiments.settings import ImageRecipe

CPU = torch.device("cpu")
RECIPE = ImageRecipe(float_epochs=3, quantized_epochs=2, batch=50, images=300, test_images=60)
RUN = ImageRun("resnet20", "paper", FLOAT, None, 1, RECIPE, "tiny")
BITS = st.integers(2, 16)


@given(BITS, BITS, st.floats(0, 1), st.floats(0, 1))
def test_bits_fall_from_16_to_the_target_and_never_rise(weights, activations, early, late):
    target = Precision(weights, activations)
    early, late = sorted((early, late))
    assert bits_at(target, 0.0) == (16, 16)
    assert bits_at(target, 1.0) == target
    before, after = bits_at(target, early), bits_at(target, late)
    assert all(a >= b >= t for a, b, t in zip(before, after, target, strict=True))


@given(BITS, BITS, st.integers(1, 12))
def test_weights_are_chosen_only_among_epochs_at_the_target(weights, activations, epochs):
    target = Precision(weights, activations)
    chosen = [epoch for epoch in range(epochs) if at_target(target, epoch, epochs)]
    assert epochs - 1 in chosen
    assert all(bits_at(target, epoch / epochs) == target for epoch in chosen if epochs > 1)


class PowerLossError(Exception):
    """The plug was pulled."""


class Fragile(ImageTask):
    """Loses power in the given epoch."""

    def __init__(self, *arguments, stop):
        super().__init__(*arguments)
        self.stop = stop

    def epoch(self, network, optimizer, epoch):
        if epoch == self.stop:
            raise PowerLossError
        return super().epoch(network, optimizer, epoch)


@pytest.fixture(scope="module")
def images(data, tmp_path_factory):
    return load_images(decode_images(data, tmp_path_factory.mktemp("decoded")), RECIPE, CPU)


def train(run, images, work, stop=None):
    return fit(run, Fragile(run, images, work, CPU, stop=stop), work, CPU)


def weights_of(run, work):
    return torch.load(folder_of(run, work) / WEIGHTS, weights_only=True)


@pytest.mark.parametrize("flavour", ["paper", "certified"])
def test_a_killed_run_ends_as_an_uninterrupted_one(images, tmp_path, flavour):
    start = replace(RUN, flavour=flavour)
    if flavour == "certified":
        start = replace(start, network="stablenet20")
    for run in (float_run(start), replace(start, precision=Precision(4, 4))):
        whole = train(run, images, tmp_path / "whole")
        with pytest.raises(PowerLossError):
            train(run, images, tmp_path / "killed", stop=1)
        resumed = train(run, images, tmp_path / "killed")
        assert replace(resumed, seconds=0.0) == replace(whole, seconds=0.0)
        expected = weights_of(run, tmp_path / "whole")
        found = weights_of(run, tmp_path / "killed")
        assert all(values.equal(expected[name]) for name, values in found.items())
        assert not (folder_of(run, tmp_path / "killed") / CHECKPOINT).exists()


def test_training_learns_and_the_reported_accuracy_is_that_of_the_kept_weights(images, tmp_path):
    recipe = RECIPE.model_copy(update={"float_epochs": 8})
    run = float_run(replace(RUN, flavour="ordinary", recipe=recipe))
    outcome = train(run, images, tmp_path)
    assert outcome.test_top1 > 0.2
    network = build_image_network(run, CPU)
    load_weights(network, run, tmp_path, CPU)
    network.eval()
    task = ImageTask(run, images, tmp_path, CPU)
    assert task.accuracy(network, "test") == outcome.test_top1
    assert task.accuracy(network, "val") == outcome.val_top1


def test_a_finished_run_is_not_trained_again(images, tmp_path):
    run = float_run(RUN)
    first = train(run, images, tmp_path)
    assert train(run, images, tmp_path, stop=0) == first


def test_a_run_whose_loss_is_no_number_ends_as_diverged(images, tmp_path):
    recipe = RECIPE.model_copy(update={"learning_rate": 1e30})
    run = float_run(replace(RUN, flavour="ordinary", recipe=recipe))
    outcome = train(run, images, tmp_path)
    assert outcome.diverged
    assert read_outcome(folder_of(run, tmp_path)) == outcome


def test_a_quantized_run_without_its_float_run_says_so(images, tmp_path):
    with pytest.raises(LearningError, match=r"weights.pt: is missing"):
        train(replace(RUN, precision=Precision(4, 4)), images, tmp_path)


@pytest.mark.parametrize("content", [b"torn", b"", b"PK\x05\x06" + bytes(18)])
def test_a_damaged_checkpoint_is_named(images, tmp_path, content):
    run = float_run(RUN)
    folder_of(run, tmp_path).mkdir(parents=True)
    (folder_of(run, tmp_path) / CHECKPOINT).write_bytes(content)
    with pytest.raises(LearningError, match=r"checkpoint.pt: is damaged"):
        train(run, images, tmp_path)


def test_recipes_that_differ_in_quantized_epochs_share_the_float_run():
    other = RECIPE.model_copy(update={"quantized_epochs": 9})
    assert float_run(RUN) == float_run(replace(RUN, recipe=other))
    quantized = replace(RUN, precision=Precision(4, 4))
    assert float_run(quantized) == float_run(RUN)


@pytest.mark.parametrize("text", ["W1A4", "W17A8", "A4W4", "8", "W4A"])
def test_what_is_no_precision_is_refused(text):
    with pytest.raises(LearningError, match=f"no precision '{text}'"):
        Precision.parse(text)


@given(BITS, BITS)
def test_a_precision_is_read_as_it_is_written(weights, activations):
    precision = Precision(weights, activations)
    assert Precision.parse(precision.text) == precision
    assert Precision.parse("float") == FLOAT
