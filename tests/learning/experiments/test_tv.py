"""What is measured of smoothing."""

from __future__ import annotations

import time

import pytest
import torch

from qpde_perception.learning.errors import LearningError
from qpde_perception.learning.experiments.image_task import batches, build_image_network
from qpde_perception.learning.experiments.images import decode_images, load_images
from qpde_perception.learning.experiments.measurements import shape_of
from qpde_perception.learning.experiments.runs import ImageRun, Precision
from qpde_perception.learning.experiments.settings import ImageRecipe
from qpde_perception.learning.experiments.tv import FeatureMaps, time_ratio
from qpde_perception.learning.zoo import SmoothingConfig, block_outputs

RECIPE = ImageRecipe(float_epochs=1, quantized_epochs=1, images=100, test_images=40)
SMOOTHING = SmoothingConfig(sites=("inner", "outer"), gamma=0.25, eps=0.25, iterations=3)


@pytest.fixture(scope="module")
def images(data, tmp_path_factory):
    decoded = decode_images(data, tmp_path_factory.mktemp("decoded"))
    return load_images(decoded, RECIPE, torch.device("cpu"))


def measure(images, smoothing):
    run = ImageRun("resnet20", "paper", Precision(4, 4), smoothing, 1, RECIPE, "tiny")
    torch.manual_seed(1)
    network = build_image_network(run, torch.device("cpu")).eval()
    return network, FeatureMaps(SMOOTHING).measure(run, network, images)


def test_without_smoothing_the_maps_are_measured_before_and_after_it_is_applied(images):
    network, values = measure(images, None)
    pixels, _ = next(batches(images.test))
    with torch.no_grad(), block_outputs(network) as layers:
        network(pixels)
    shapes = [shape_of(x, 4) for _, x in layers[:-2]]
    assert values["maps"]["range"] == pytest.approx(sum(s.range for s in shapes) / len(shapes))
    assert values["applied"]["range"] < values["maps"]["range"]
    assert values["time_ratio"] == 1.0


def test_a_network_with_smoothing_costs_more_time_than_one_without(images):
    _, values = measure(images, SMOOTHING)
    assert values["applied"] is None
    assert values["time_ratio"] > 1.0


def test_the_ratio_of_times_is_that_of_the_calls():
    def call(seconds):
        def sleeping():
            time.sleep(seconds)
            return torch.zeros(1)

        return sleeping

    assert time_ratio(call(0.02), call(0.005)) == pytest.approx(4.0, rel=0.5)


def test_smoothing_inside_of_a_certified_block_is_refused(images):
    run = ImageRun("stablenet20", "certified", Precision(4, 4), SMOOTHING, 1, RECIPE, "tiny")
    with pytest.raises(LearningError, match="site 'outer'"):
        build_image_network(run, torch.device("cpu"))
