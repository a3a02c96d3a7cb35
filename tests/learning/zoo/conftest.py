"""Small networks of the zoo and data that they can learn."""

from __future__ import annotations

import pytest
import torch

from qpde_perception.learning.zoo import Graph, build

RESIDUAL = {"depths": (2, 2), "widths": (8, 16), "size": 8}
SMALL = {
    "resnet20": RESIDUAL,
    "stablenet20": RESIDUAL,
    "mobilenetv2": {
        "stem": 8,
        "widths": (8, 16),
        "depths": (2, 2),
        "expansions": (2, 2),
        "halvings": (False, True),
        "last": 32,
        "size": 8,
    },
    "pde_gcn": {"hidden": 16, "layers": 3, "dropout": 0.0},
}


@pytest.fixture
def small():
    """Build a tiny network of a family and flavour."""

    def make(name, flavour, **options):
        torch.manual_seed(0)
        inputs = 6 if name == "pde_gcn" else 3
        return build(name, flavour, classes=4, inputs=inputs, **SMALL[name], **options)

    return make


@pytest.fixture
def separable():
    """Make arguments of a network's forward, and the classes that they show."""

    def make(name, count=48):
        generator = torch.Generator().manual_seed(1)
        targets = torch.randint(0, 4, (count,), generator=generator)
        shape = (6,) if name == "pde_gcn" else (3, 8, 8)
        prototypes = torch.randn(4, *shape, generator=generator)
        x = prototypes[targets] + 0.3 * torch.randn(count, *shape, generator=generator)
        if name != "pde_gcn":
            return (x,), targets
        # Neighbours are of one class, as in a graph of citations.
        order = targets.argsort(stable=True)
        return (x, Graph.from_edges(torch.stack([order[1:], order[:-1]]), count)), targets

    return make
