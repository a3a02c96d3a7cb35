"""The error of layers against a computation by hand."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from qpde_perception.learning.experiments.image_task import batches, build_image_network
from qpde_perception.learning.experiments.images import decode_images, load_images
from qpde_perception.learning.experiments.jobs import Result
from qpde_perception.learning.experiments.layer_error import LayerError, present, summarise
from qpde_perception.learning.experiments.runs import ImageRun, Outcome, Precision
from qpde_perception.learning.experiments.settings import ImageRecipe
from qpde_perception.learning.zoo import block_outputs, set_bits

RECIPE = ImageRecipe(float_epochs=1, quantized_epochs=1, images=100, test_images=40)
OUTCOME = Outcome(0.5, 0.4, 1000, 1, 2.0, diverged=False, machine="a CPU")


def run_of(flavour, activations=4, seed=1):
    network = "stablenet20" if flavour == "certified" else "resnet20"
    return ImageRun(network, flavour, Precision(4, activations), None, seed, RECIPE, "tiny")


@pytest.fixture(scope="module")
def images(data, tmp_path_factory):
    decoded = decode_images(data, tmp_path_factory.mktemp("decoded"))
    return load_images(decoded, RECIPE, torch.device("cpu"))


@pytest.fixture
def network():
    def make(run):
        torch.manual_seed(run.seed)
        return build_image_network(run, torch.device("cpu")).eval()

    return make


@pytest.mark.parametrize("flavour", ["twin", "paper", "certified"])
def test_every_layer_has_the_error_of_rounding_alone(images, network, flavour):
    run = run_of(flavour)
    subject = network(run)
    reference = deepcopy(subject)
    set_bits(reference, 4, 32)
    reference.load_state_dict(subject.state_dict())
    pixels, _ = next(batches(images.test))
    with torch.no_grad(), block_outputs(subject) as ours:
        subject(pixels)
    with torch.no_grad(), block_outputs(reference) as theirs:
        reference(pixels)
    measured = LayerError().measure(run, subject, images)["layers"]
    assert [layer["name"] for layer in measured] == [name for name, _ in ours]
    assert [layer["name"] for layer in measured[-2:]] == ["pooled", "logits"]
    for layer, (_, x), (_, y) in zip(measured, ours, theirs, strict=True):
        assert layer["rms"] == pytest.approx(float((x - y).double().square().mean().sqrt()))
        noise = (x - y).double().square().sum() / y.double().square().sum()
        assert layer["sqnr_db"] == pytest.approx(float(-10 * noise.log10()))


def test_more_bits_mean_less_error(images, network):
    coarse, fine = (
        LayerError().measure(run, network(run), images)["layers"]
        for run in (run_of("paper", 4), run_of("paper", 8))
    )
    assert all(f["rms"] < 0.3 * c["rms"] for f, c in zip(fine, coarse, strict=True))


def measured(scale, blocks=("a", "b")):
    layers = [
        {"name": name, "rms": 0.1 * place * scale, "sqnr_db": 20.0}
        for place, name in enumerate((*blocks, "pooled", "logits"), start=1)
    ]
    return {"test_top1_float_activations": 0.45, "layers": layers}


def test_a_row_averages_over_seeds_and_tells_the_growth_from_first_to_last_block():
    results = [
        Result(run_of("twin", seed=seed), OUTCOME, measured(scale))
        for seed, scale in ((1, 1.0), (2, 3.0))
    ]
    (row,) = summarise(results)
    assert [layer["rms"] for layer in row["layers"]] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert row["growth"] == pytest.approx(2.0)
    assert row["runs"] == 2


def test_the_reading_holds_the_twin_against_the_symmetric_network():
    results = [
        Result(run_of("twin"), OUTCOME, measured(3.0)),
        Result(run_of("paper"), OUTCOME, measured(1.0)),
    ]
    shown = present(summarise(results))
    assert "twin x2.00, paper x2.00" in shown.reading[0]
    assert "3.00 times that of paper after the last block and 3.00 times" in shown.reading[0]
    assert len(shown.head) == len(shown.table[0])


def test_the_reading_tells_growth_within_stages_from_growth_across_them():
    blocks = ("stages.0.0", "stages.0.1", "stages.1.0", "stages.2.0", "stages.2.1")
    results = [
        Result(run_of(flavour), OUTCOME, measured(scale, blocks))
        for flavour, scale in (("twin", 3.0), ("paper", 1.0))
    ]
    (reading,) = present(summarise(results)).reading
    assert "over the first: twin x5.00, paper x5.00. Within each stage" in reading
    # A stage of one block has no growth of its own.
    assert "last block over first: twin x2.00, x1.25; paper x2.00, x1.25." in reading


def test_a_diverged_run_has_a_row_without_figures():
    lost = Outcome(None, None, 1000, 0, 2.0, diverged=True, machine="a CPU")
    shown = present(summarise([Result(run_of("twin"), lost, None)]))
    assert "diverged" in shown.table[0]
    assert len(shown.head) == len(shown.table[0])
