"""`qpde build`: the gate for TensorRT."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import pytest

from qpde_perception.compiling.packing import write_bundle
from qpde_perception.engines.tensorrt_rtx import REMEDY

INSTALLED = find_spec("tensorrt_rtx_bindings") is not None


@pytest.mark.skipif(not INSTALLED, reason=f"TensorRT for RTX is missing; {REMEDY}")
def test_inspection_has_the_promised_keys(qpde, tiny_bundle):
    call = qpde(
        *("build", "--engine", "tensorrt_rtx", "--model", tiny_bundle.path, "--inspect", "--json")
    )
    assert call.code == 0
    found = call.document
    assert (found["engine"], found["cache"], found["self_test"]) == ("tensorrt_rtx", "miss", None)
    assert found["version"].count(".") == 3
    assert found["build_ms"] > 0
    assert found["convolutions"] == found["convolutions_int8"] > 5
    assert found["float_islands"] == 0
    assert {"name", "kind", "inputs", "outputs", "nodes"} <= found["layers"][0].keys()
    assert found["ok"] is True


@pytest.mark.skipif(not INSTALLED, reason=f"TensorRT for RTX is missing; {REMEDY}")
def test_a_bundle_without_the_graph_is_built_from_its_integers(qpde, tiny_bundle, tmp_path):
    contents = {name: data for name, data in tiny_bundle.contents.items() if ".onnx" not in name}
    older = write_bundle(replace(tiny_bundle, path=tmp_path / "older", contents=contents))
    call = qpde("build", "--engine", "tensorrt_rtx", "--model", older.path, "--json")
    assert (call.code, call.document["faults"]) == (0, [])


@pytest.mark.skipif(INSTALLED, reason="TensorRT for RTX is installed")
def test_a_missing_builder_is_named_with_the_line_that_installs_it(qpde, tiny_bundle):
    call = qpde("build", "--engine", "tensorrt_rtx", "--model", tiny_bundle.path)
    assert call.code == 2
    assert REMEDY in call.err


def test_an_engine_that_is_not_built_is_wrong_use(qpde):
    call = qpde("build", "--engine", "onnxruntime")
    assert call.code == 2
    assert "known are tensorrt_rtx" in call.err
