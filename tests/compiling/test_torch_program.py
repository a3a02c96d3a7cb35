"""The torch program: the reference's bits on a CPU, in a form that torch-tensorrt converts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qpde_perception.bundles import golden_of
from qpde_perception.compiling.errors import CompilingError
from qpde_perception.compiling.parity import reference_of
from qpde_perception.compiling.reference import IntegerReference
from qpde_perception.compiling.specification import Conv, Specification
from qpde_perception.compiling.torch_program import convolution, program_of, quantize


@pytest.fixture(scope="module")
def program(tiny_specification):
    return program_of(tiny_specification, 5)


def run(program, pixels):
    return tuple(tensor.numpy() for tensor in program.module()(torch.from_numpy(pixels.copy())))


def test_every_batch_up_to_the_largest_has_the_references_bits(program, tiny_specification, images):
    pixels = images(5, 16, seed=7)
    expected = IntegerReference(tiny_specification).observe(pixels)
    assert expected[0].std() > 0.1
    assert expected[1].max(axis=0).all()
    for count in (1, 2, 5):
        for found, wanted in zip(run(program, pixels[:count]), expected, strict=True):
            assert np.array_equal(found, wanted[:count])


def test_a_larger_batch_than_the_largest_is_refused(program, images):
    with pytest.raises((AssertionError, RuntimeError), match="5"):
        run(program, images(6, 16, seed=7))


def test_the_shipped_model_has_the_references_bits(shipped_bundle):
    golden = golden_of(shipped_bundle)
    specification = reference_of(shipped_bundle)._specification
    logits, saturation = run(program_of(specification, len(golden.pixels)), golden.pixels)
    assert np.array_equal(logits, golden.logits)
    assert np.array_equal(saturation, golden.saturation)


def test_every_convolution_holds_int8_codes_and_reads_quantized_values(program, tiny_specification):
    convolutions = [layer for layer in tiny_specification.layers if isinstance(layer, Conv)]
    nodes = [n for n in program.graph.nodes if n.target == torch.ops.qpde.convolution.default]
    assert len(nodes) == len(convolutions)
    buffers = program.graph_signature.inputs_to_buffers
    for node in nodes:
        assert node.args[0].target == torch.ops.qpde.quantize.default
        assert program.state_dict[buffers[node.args[1].name]].dtype == torch.int8


def test_a_network_without_relu_has_no_taps(tiny_specification, images):
    document = tiny_specification.document
    signed = {
        name: grid.model_copy(update={"q_min": -128, "q_max": 127})
        for name, grid in document.grids.items()
    }
    other = Specification(document.model_copy(update={"grids": signed}), tiny_specification.arrays)
    pixels = images(1, 16, seed=3)
    logits, saturation = run(program_of(other, 1), pixels)
    assert np.array_equal(logits, IntegerReference(other).infer(pixels))
    assert saturation.shape == (1, 0)


def test_quantizing_rounds_half_to_even_and_saturates_at_int8():
    values = torch.tensor([0.25, 0.75, -0.25, -0.75, 63.75, 1e9, -1e9])
    assert quantize(values, 0.5).tolist() == [0.0, 1.0, 0.0, -1.0, 63.5, 63.5, -64.0]


def test_the_operators_keep_the_rules_of_torch():
    """Schema, shapes under tracing, and no aliasing."""
    values = torch.rand(2, 4, 5, 5)
    codes = torch.randint(-127, 128, (6, 2, 3, 3), dtype=torch.int8)
    parameters = (codes, torch.rand(6), torch.rand(6))
    torch.library.opcheck(quantize, (values, 0.25))
    options = {"stride": 2, "padding": 1, "groups": 2}
    torch.library.opcheck(convolution, (values, *parameters), options)


def test_a_grid_whose_saturation_is_not_that_of_int8_is_refused(tiny_specification):
    document = tiny_specification.document
    grids = {n: g.model_copy(update={"q_max": 15}) for n, g in document.grids.items()}
    other = Specification(document.model_copy(update={"grids": grids}), tiny_specification.arrays)
    with pytest.raises(CompilingError, match="not those of int8"):
        program_of(other, 1)
