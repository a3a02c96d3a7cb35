"""The tiny network with its specification and with frames of every kind."""

from __future__ import annotations

import numpy as np
import pytest

from qpde_perception.compiling.specification import Specification


@pytest.fixture(scope="session")
def frames(images, tiny_specification):
    """Soft blobs, noise, and the flattest and harshest pictures there are."""
    size = tiny_specification.document.input_height
    rng = np.random.default_rng(3)
    harsh = rng.choice(np.array([0, 255], np.uint8), (4, size, size, 3))
    flat = np.full((2, size, size, 3), [[[[0]]], [[[255]]]], np.uint8)
    return np.concatenate([images(16, size, seed=7), harsh, flat])


@pytest.fixture(scope="session")
def shipped_specification(shipped_bundle):
    from qpde_perception.compiling.specification import SPECIFICATION, WEIGHTS

    return Specification.from_files(
        shipped_bundle.read(SPECIFICATION), shipped_bundle.read(WEIGHTS)
    )


@pytest.fixture(scope="session")
def changed():
    """Return a specification with one array changed by a function."""

    def change(specification, name, function):
        arrays = dict(specification.arrays)
        arrays[name] = function(arrays[name].copy())
        return Specification(specification.document, arrays)

    return change


@pytest.fixture(scope="session")
def flip_high_bit():
    """Flip the second highest bit of the weight nearest to zero: 64 steps at once."""

    def flip(weight):
        flat = weight.reshape(-1)
        flat[np.abs(flat.astype(int)).argmin()] ^= 64
        return weight

    return flip
