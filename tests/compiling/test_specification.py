"""The specification's two files: what is written is what is read, or it is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpde_perception.compiling.errors import CompilingError
from qpde_perception.compiling.specification import Specification

TEXT, WEIGHTS = "specification.json", "weights.safetensors"


def test_files_give_back_the_specification(tiny_specification):
    files = tiny_specification.to_files()
    assert set(files) == {TEXT, WEIGHTS}
    read = Specification.from_files(files[TEXT], files[WEIGHTS])
    assert read.document == tiny_specification.document
    assert set(read.arrays) == set(tiny_specification.arrays)
    for name, array in tiny_specification.arrays.items():
        assert read.arrays[name].dtype == array.dtype
        assert np.array_equal(read.arrays[name], array)
    assert read.to_files() == files


@given(st.data())
def test_cut_off_files_are_refused(tiny_specification, data):
    files = tiny_specification.to_files()
    name = data.draw(st.sampled_from([TEXT, WEIGHTS]))
    # The last byte of the text is its line end.
    files[name] = files[name][: data.draw(st.integers(0, len(files[name]) - 2))]
    with pytest.raises(CompilingError, match="damaged"):
        Specification.from_files(files[TEXT], files[WEIGHTS])


@pytest.mark.parametrize("text", [b"", b"[]", b"null", b"\xff\xfe", b'{"layers": []}'])
def test_text_of_another_kind_is_refused(tiny_specification, text):
    with pytest.raises(CompilingError, match="damaged"):
        Specification.from_files(text, tiny_specification.to_files()[WEIGHTS])


@pytest.mark.parametrize(
    ("layer", "key", "value"),
    [
        ("stem", "kind", "pool"),
        ("stem", "stride", "two"),
        ("stage0.smooth", "rate", 0.3),
        ("stage0.smooth", "rate", 0.1),
        ("stage0.smooth", "delta", 0),
        ("stage0.smooth", "iterations", 9),
        ("head", "multiplier", -1),
        ("stem", "surprise", 1),
    ],
)
def test_layer_outside_its_range_is_refused(tiny_specification, layer, key, value):
    files = tiny_specification.to_files()
    document = json.loads(files[TEXT])
    next(entry for entry in document["layers"] if entry["name"] == layer)[key] = value
    with pytest.raises(CompilingError, match="damaged"):
        Specification.from_files(json.dumps(document).encode(), files[WEIGHTS])


@pytest.mark.parametrize("scale", [0.0, -1.0])
def test_grid_without_a_positive_step_is_refused(tiny_specification, scale):
    files = tiny_specification.to_files()
    document = json.loads(files[TEXT])
    document["grids"]["stem"]["scale"] = scale
    with pytest.raises(CompilingError, match="damaged"):
        Specification.from_files(json.dumps(document).encode(), files[WEIGHTS])
