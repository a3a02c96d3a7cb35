"""The noise model: gradients, lattices, and its fit."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from qpde_perception.compiling.certificate.execution import (  # noqa: E402
    LOGITS,
    Execution,
    deployed,
    saturating,
)
from qpde_perception.compiling.certificate.noise import NoiseModel, rounding_variance  # noqa: E402
from qpde_perception.compiling.folding import fold  # noqa: E402


@pytest.mark.parametrize("lattice", [1, 2, 4, 8, 64])
def test_variance_on_a_lattice_is_that_of_its_errors_half_to_even(lattice):
    values = [Fraction(i, lattice) for i in range(2 * lattice)]
    errors = [round(value) - value for value in values]
    expected = float(sum(e**2 for e in errors) / len(errors))
    assert float(rounding_variance(np.array(float(lattice)))) == pytest.approx(expected)


def test_gradients_are_those_of_automatic_differentiation(make_network, frames, flavour):
    specification = fold(make_network(f"{flavour}_mobilenet_v2_tiny"))
    model, execution = NoiseModel(specification), Execution(specification)
    x = execution.codes(frames[8:16])
    leaves = {}

    def put(site, value):
        clipped = saturating(site, value)
        leaves[site.name] = torch.zeros_like(clipped, requires_grad=True)
        return clipped + leaves[site.name]

    logits = execution.run(x, put)[LOGITS]
    noise = model.predict(x)
    for place, name in enumerate(model.names):
        squares = 0.0
        for column in range(logits.shape[1]):
            (gradient,) = torch.autograd.grad(
                logits[:, column].sum(), leaves[name], retain_graph=True
            )
            squares += gradient.flatten(1).square().sum(1)
        step = execution.sites[name].step
        torch.testing.assert_close(noise.gain[place], squares.sqrt() / step, rtol=1e-3, atol=1e-4)


def test_the_worst_change_is_half_a_step_times_the_sum_of_absolute_gradients(
    tiny_specification, frames
):
    model = NoiseModel(tiny_specification)
    noise = model.predict(model.execution.codes(frames[:4]))
    second = noise.logits.topk(2, dim=1).indices[:, 1]
    for place, name in enumerate(model.names):
        expected = 0.5 * noise.direction[name].abs().flatten(1).sum(1)
        torch.testing.assert_close(noise.worst[place, range(4), second], expected)


def test_predicted_and_observed_noise_agree(tiny_specification, images):
    model = NoiseModel(tiny_specification)
    x = model.execution.codes(images(64, tiny_specification.document.input_height, seed=5))
    noise = model.predict(x)
    given = model.execution.run(x, deployed)[LOGITS]
    best = noise.logits.argmax(1, keepdim=True)
    change = (given.gather(1, best) - given) - (noise.logits.gather(1, best) - noise.logits)
    ratio = (change.square().sum() / noise.variance.sum()).sqrt()
    assert 0.85 < float(ratio) < 1.15


def test_nothing_is_predicted_where_nothing_is_rounded(tiny_specification, frames):
    model = NoiseModel(tiny_specification)
    noise = model.predict(model.execution.codes(frames))
    for name, direction in noise.direction.items():
        site = model.execution.sites[name]
        if site.rectifies:
            assert (direction == 0).any()
