"""Specifications for the tests of compiling."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def tiny_network(make_network):
    return make_network()


@pytest.fixture(scope="session")
def tiny_specification(tiny_network):
    from qpde_perception.compiling.folding import fold

    return fold(tiny_network)
