"""torch-tensorrt: the real conversion without a GPU, and what is said where it cannot work."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from qpde_perception.bundles import MAX_OVER_NOISE, MAX_RMS_OVER_NOISE, golden_of
from qpde_perception.compiling.parity import reference_of
from qpde_perception.compiling.specification import Conv
from qpde_perception.engines import EngineError
from qpde_perception.engines.tensorrt_rtx import REMEDY

SCRIPT = Path(__file__).parent / "convert_without_gpu.py"
ROOT = Path(__file__).parents[2]
NEEDED = ("torch_tensorrt", "tensorrt_rtx_bindings")
MISSING = [name for name in NEEDED if find_spec(name) is None]
NOT_HERE = 77


@pytest.fixture(scope="module", params=["shipped_bundle", "tiny_bundle"])
def bundle(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def converted(bundle):
    """What was built of a model, in a process of its own."""
    if MISSING:
        wheels = f"pip install --no-deps torch-tensorrt-rtx==2.13.0; {REMEDY}"
        pytest.skip(f"not installed: {', '.join(MISSING)}; {wheels}")
    call = subprocess.run(
        [sys.executable, SCRIPT, bundle.path, "8"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if call.returncode == NOT_HERE:
        pytest.skip(call.stderr.splitlines()[-1])
    assert call.returncode == 0, call.stderr
    return json.loads(call.stdout.splitlines()[-1])


def test_every_convolution_becomes_int8_and_no_float_stands_between(
    bundle, converted, record_property
):
    layers = reference_of(bundle)._specification.layers
    convolutions = sum(isinstance(layer, Conv) for layer in layers)
    for key in ("version", "convolutions", "layers", "bytes"):
        record_property(key, converted[key])
    assert converted["read"] == {"Int8": convolutions}
    assert converted["float_islands"] == []


def test_the_engine_has_the_tensors_that_are_served(converted):
    assert converted["bytes"] > 10_000
    assert converted["tensors"] == converted["served"]


def test_without_a_gpu_the_engine_is_refused_in_a_line(converted):
    assert "needs an NVIDIA GPU" in converted["refusal"]


@pytest.fixture(scope="module")
def engine(shipped_bundle):
    """The shipped model, built on a GPU for batches up to four."""
    if find_spec("torch_tensorrt") is None or not torch.cuda.is_available():
        pytest.skip("needs torch-tensorrt and an NVIDIA GPU")
    from qpde_perception.compiling.torch_program import program_of
    from qpde_perception.engines.torch_tensorrt import TorchTensorRtEngine, compile_program

    program = program_of(reference_of(shipped_bundle)._specification, 4)
    engine = TorchTensorRtEngine(compile_program(program), max_batch=4)
    yield engine
    engine.close()
    with pytest.raises(EngineError, match="is closed"):
        engine.infer(golden_of(shipped_bundle).pixels)


def test_on_a_gpu_the_golden_frames_stay_within_the_budget(engine, shipped_bundle):
    golden = golden_of(shipped_bundle)
    assert len(golden.pixels) > engine.max_batch
    logits, saturation = engine.observe(golden.pixels)
    rms, largest = golden.distance(logits)
    assert rms <= MAX_RMS_OVER_NOISE
    assert largest <= MAX_OVER_NOISE
    assert np.abs(saturation - golden.saturation).max() < 1e-3
    assert np.array_equal(engine.infer(golden.pixels), logits)


@pytest.mark.parametrize("shape", [(1, 48, 48, 1), (1, 32, 48, 3)])
def test_on_a_gpu_pixels_of_another_shape_or_type_are_refused(engine, shape):
    for kind in (np.uint8, np.float32):
        with pytest.raises(EngineError, match="cannot run"):
            engine.infer(np.zeros(shape, kind))


@pytest.mark.skipif(find_spec("torch_tensorrt") is not None, reason="torch-tensorrt is installed")
def test_a_missing_library_is_named_with_the_line_that_installs_it():
    with pytest.raises(ImportError, match=r"torch_tensorrt.*pip install torch"):
        importlib.import_module("qpde_perception.engines.torch_tensorrt")
