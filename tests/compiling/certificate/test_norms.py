"""Spectral norms against singular values of dense matrices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from qpde_perception.compiling.certificate.norms import (  # noqa: E402
    convolution_norm,
    measured_norm,
    symmetric_norm,
)
from qpde_perception.compiling.specification import Conv  # noqa: E402


def matrix_of(operator, shape):
    """Return the matrix of a linear operator on maps of a shape."""
    identity = torch.eye(int(np.prod(shape)), dtype=torch.float64).reshape(-1, *shape)
    return operator(identity).flatten(1).T.numpy()


def conv(layer, weight):
    return lambda x: torch.nn.functional.conv2d(
        x,
        torch.from_numpy(weight),
        stride=layer.stride,
        padding=layer.padding,
        groups=layer.groups,
    )


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    kernel=st.integers(1, 3),
    layer=st.builds(
        Conv,
        name=st.just("c"),
        input=st.just("x"),
        output=st.just("c"),
        stride=st.integers(1, 3),
        padding=st.integers(0, 2),
        groups=st.sampled_from([1, 2, 4]),
    ),
    outputs=st.sampled_from([4, 8]),
    size=st.tuples(st.integers(3, 6), st.integers(3, 6)),
)
def test_a_bound_is_never_below_the_largest_singular_value(seed, kernel, layer, outputs, size):
    weight = np.random.default_rng(seed).normal(size=(outputs, 4 // layer.groups, kernel, kernel))
    exact = np.linalg.norm(matrix_of(conv(layer, weight), (4, *size)), 2)
    assert convolution_norm(weight, layer, *size) >= exact
    assert measured_norm(weight, layer, *size) <= exact * (1 + 1e-9)


def test_the_bound_closes_in_on_the_norm_as_maps_grow():
    layer = Conv(name="c", input="x", output="c", stride=1, padding=1, groups=1)
    weight = np.random.default_rng(0).normal(size=(3, 3, 3, 3))
    gaps = []
    for size in (3, 6, 9):
        exact = np.linalg.norm(matrix_of(conv(layer, weight), (3, size, size)), 2)
        gaps.append(convolution_norm(weight, layer, size, size) / exact)
    assert gaps[0] > gaps[-1]
    assert gaps[-1] < 1.05
    assert measured_norm(weight, layer, 9, 9) == pytest.approx(exact, rel=0.01)


def test_two_by_two_pooling_halves():
    layer = Conv(name="p", input="x", output="p", stride=2, padding=0, groups=3)
    assert convolution_norm(np.full((3, 1, 2, 2), 0.25), layer, 6, 6) == pytest.approx(0.5)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), separable=st.booleans(), side=st.integers(2, 5))
def test_the_norm_of_a_symmetric_block_takes_both_convolutions_and_diagonals_together(
    seed, separable, side
):
    rng = np.random.default_rng(seed)
    kernel = 1 if separable else 3
    expand = rng.normal(size=(6, 3, kernel, kernel))
    depthwise = rng.normal(size=(6, 1, 3, 3)) if separable else None
    inner, outer = rng.uniform(0.1, 2.0, 6), rng.uniform(0.1, 2.0, 3)

    def operator(x):
        y = torch.nn.functional.conv2d(
            x * torch.from_numpy(np.sqrt(outer))[:, None, None],
            torch.from_numpy(expand),
            padding=kernel // 2,
        )
        if depthwise is not None:
            y = torch.nn.functional.conv2d(y, torch.from_numpy(depthwise), padding=1, groups=6)
        return y * torch.from_numpy(np.sqrt(inner))[:, None, None]

    exact = np.linalg.norm(matrix_of(operator, (3, side, side)), 2) ** 2
    bound = symmetric_norm(expand, depthwise, (inner, outer), (side, side))
    assert exact <= bound
    assert side < 5 or bound < 1.6 * exact
