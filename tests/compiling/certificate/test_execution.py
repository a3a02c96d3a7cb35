"""The differentiable execution against the integer reference and the float graph."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from qpde_perception.compiling.certificate.execution import (  # noqa: E402
    LOGITS,
    Execution,
    deployed,
    saturating,
    unquantized,
)
from qpde_perception.compiling.reference import IntegerReference  # noqa: E402
from qpde_perception.compiling.specification import (  # noqa: E402
    PIXELS,
    Conv,
    Document,
    Grid,
    Head,
    Smooth,
    Specification,
)
from qpde_perception.compiling.writer import float_graph  # noqa: E402
from qpde_perception.engines.onnxruntime import OnnxRuntimeEngine  # noqa: E402


def assert_same_codes(specification, pixels):
    execution = Execution(specification)
    found = execution.run(execution.codes(pixels), deployed)
    for name, codes in IntegerReference(specification).tensors(pixels).items():
        values = found[name].numpy()
        values = values.transpose(0, 2, 3, 1) if values.ndim == 4 else values
        if name == LOGITS:
            np.testing.assert_allclose(values, codes, rtol=1e-6, atol=1e-6)
        else:
            np.testing.assert_array_equal(values, codes, err_msg=name)


def test_with_rounding_every_code_is_the_integer_references(tiny_specification, frames):
    assert_same_codes(tiny_specification, frames)


def test_with_rounding_every_code_of_the_shipped_model_is_the_integer_references(
    shipped_specification, shipped_bundle
):
    from qpde_perception.bundles import golden_of

    assert_same_codes(shipped_specification, golden_of(shipped_bundle).pixels[:4])


def test_three_smoothing_steps_and_a_multiplier_that_is_no_power_of_two():
    grid = Grid(scale=0.3, q_min=-128, q_max=127)
    rng = np.random.default_rng(0)
    layers = (
        Conv(name="a", input=PIXELS, output="a", stride=2, padding=1, groups=1),
        Smooth(name="b", input="a", output="b", delta=5, rate=0.125, iterations=3),
        Head(name="head", input="b", multiplier=float(np.float32(4 / 9))),
    )
    arrays = {
        "a.weight": rng.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8),
        "a.scale": np.array([0.01, 0.02, 0.03, 0.04], np.float32),
        "a.bias": rng.integers(-500, 500, 4).astype(np.int32),
        "head.weight": rng.integers(-127, 128, (3, 4)).astype(np.int8),
        "head.scale": np.full(3, 0.01, np.float32),
        "head.bias": np.zeros(3, np.float32),
    }
    grids = {PIXELS: Grid(scale=0.015625, q_min=-128, q_max=127), "a": grid, "b": grid}
    document = Document(input_height=5, input_width=6, grids=grids, layers=layers)
    pixels = rng.integers(0, 256, (6, 5, 6, 3)).astype(np.uint8)
    assert_same_codes(Specification(document, arrays), pixels)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_rounding_and_clipping_it_is_the_float_graph(tiny_specification, frames, dtype):
    execution = Execution(tiny_specification, dtype)
    found = execution.run(execution.codes(frames), unquantized)[LOGITS].numpy()
    graph = OnnxRuntimeEngine(float_graph(tiny_specification), threads=1)
    np.testing.assert_allclose(found, graph.infer(frames), rtol=1e-4, atol=1e-4)


def test_saturating_clips_and_does_not_round(tiny_specification, frames):
    execution = Execution(tiny_specification)
    found = execution.run(execution.codes(frames), saturating)
    site = execution.sites["stem"]
    assert found["stem"].min() >= site.low
    assert found["stem"].max() <= site.high
    assert (found["stem"] != found["stem"].round()).any()


def test_execution_goes_on_from_any_layer(tiny_specification, frames):
    execution = Execution(tiny_specification)
    whole = execution.run(execution.codes(frames), deployed)
    layers = tiny_specification.layers
    for first in range(1, len(layers)):
        again = execution.resume(whole, first, deployed)
        torch.testing.assert_close(again[LOGITS], whole[LOGITS], rtol=0, atol=0)
