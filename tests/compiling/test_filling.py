"""Filling hidden channels: more of them, and the same network."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from qpde_perception.compiling.filling import with_filled_channels
from qpde_perception.compiling.folding import fold
from qpde_perception.compiling.reference import IntegerReference
from qpde_perception.compiling.specification import Conv

MULTIPLES = st.integers(1, 50)


def channels(specification):
    return {
        layer.name: len(specification.arrays[f"{layer.name}.weight"])
        for layer in specification.layers
        if isinstance(layer, Conv)
    }


@settings(max_examples=10)
@given(multiple=MULTIPLES)
def test_filling_changes_no_logit(make_network, images, flavour, multiple):
    specification = fold(make_network(f"{flavour}_mobilenet_v2_tiny", seed=multiple))
    pixels = images(8, 16, seed=multiple)
    expected = IntegerReference(specification).infer(pixels)
    filled = with_filled_channels(specification, multiple)
    assert np.array_equal(IntegerReference(filled).infer(pixels), expected)


@settings(max_examples=10)
@given(multiple=MULTIPLES)
def test_hidden_channels_become_a_multiple_and_no_others_change(tiny_specification, multiple):
    before = channels(tiny_specification)
    filled = with_filled_channels(tiny_specification, multiple)
    hidden = {name for name in before if name.endswith((".expand", "depthwise", "depthwise_t"))}
    assert len(hidden) == 6
    for name, count in channels(filled).items():
        expected = -(-before[name] // multiple) * multiple if name in hidden else before[name]
        assert count == expected, name
    for layer in filled.layers:
        if isinstance(layer, Conv) and layer.groups > 1:
            assert layer.groups == len(filled.arrays[f"{layer.name}.weight"])


def test_a_network_that_fits_is_left_as_it_is(tiny_specification):
    assert with_filled_channels(tiny_specification, 1) == tiny_specification


def test_the_specification_that_is_filled_keeps_its_arrays(tiny_specification):
    before = {name: array.copy() for name, array in tiny_specification.arrays.items()}
    with_filled_channels(tiny_specification, 48)
    assert before.keys() == tiny_specification.arrays.keys()
    for name, array in tiny_specification.arrays.items():
        assert np.array_equal(array, before[name]), name
