"""Temperature: found where it is known, the likeliest of all, and folded into a network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qpde_perception.learning.networks import build_network
from qpde_perception.learning.temperature import COLDEST, HOTTEST, fit_temperature


def softmax(logits):
    return torch.softmax(torch.from_numpy(logits).double(), 1).numpy()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_made_the_labels_is_found(temperature):
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 3, (20_000, 5)).astype(np.float32)
    chances = softmax(logits / temperature).cumsum(axis=1)
    labels = (rng.random((len(logits), 1)) > chances).sum(axis=1).clip(0, 4)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.04)


@given(st.integers(0, 2**32 - 1))
def test_no_other_temperature_is_likelier(seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (50, 4)).astype(np.float32)
    labels = np.where(rng.random(50) < 0.6, logits.argmax(axis=1), rng.integers(0, 4, 50))

    def likelihood(temperature):
        return np.log(softmax(logits / temperature)[np.arange(50), labels]).mean()

    best = likelihood(fit_temperature(logits, labels))
    for other in np.geomspace(COLDEST, HOTTEST, 40):
        assert likelihood(other) <= best + 1e-9


def test_the_temperature_stays_within_its_limits():
    logits = np.eye(3, dtype=np.float32)
    assert fit_temperature(logits, np.array([0, 1, 2])) == pytest.approx(COLDEST)
    assert fit_temperature(logits, np.array([1, 2, 0])) == pytest.approx(HOTTEST)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_a_cooled_network_gives_its_logits_divided_by_the_temperature(temperature):
    network = build_network("symmetric_mobilenet_v2_tiny").eval()
    torch.nn.init.normal_(network.head.weight)
    torch.nn.init.normal_(network.head.bias)
    pixels = torch.randint(0, 256, (3, 3, 16, 16))
    before = network(pixels)
    network.head.cool(temperature)
    torch.testing.assert_close(network(pixels), before / temperature)
