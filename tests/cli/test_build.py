"""`qpde build`: engines into the cache, and the gate for TensorRT."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from importlib.util import find_spec

import pytest

from qpde_perception.bundles import golden_of
from qpde_perception.compiling.packing import write_bundle
from qpde_perception.engines import ACCELERATORS, registry
from qpde_perception.engines.cache import VARIABLE, EngineKey
from qpde_perception.engines.onnxruntime import OnnxRuntimeEngine
from qpde_perception.engines.platforms import Platform, platform_of
from qpde_perception.engines.registry import CPU_GRAPH
from qpde_perception.engines.tensorrt_plan import PlanOptions
from qpde_perception.engines.tensorrt_rtx import REMEDY

INSTALLED = find_spec("tensorrt_rtx_bindings") is not None


@pytest.fixture(autouse=True)
def _a_cache_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))


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
    assert call.code == 1
    assert call.err.startswith("error: ")
    assert REMEDY in call.err


def test_an_engine_that_is_not_built_is_wrong_use(qpde):
    call = qpde("build", "--engine", "onnxruntime")
    assert call.code == 2
    assert "known are tensorrt, torch_tensorrt, tensorrt_rtx" in call.err


@pytest.mark.parametrize("options", [("--max-batch", "0"), ("--dla", "-1"), ("--device", "x")])
def test_options_that_make_no_sense_are_wrong_use(qpde, tiny_bundle, options):
    call = qpde("build", "--engine", "tensorrt", "--model", tiny_bundle.path, *options)
    assert call.code == 2
    assert options[0] in call.err


@pytest.mark.skipif(platform_of().gpu, reason="this machine has a GPU")
@pytest.mark.parametrize("engine", ACCELERATORS)
def test_without_a_gpu_one_line_says_so_and_the_check_fails(qpde, tiny_bundle, engine, tmp_path):
    arguments = ("build", "--engine", engine, "--model", tiny_bundle.path, "--cache-dir", tmp_path)
    call = qpde(*arguments)
    assert (call.code, call.out) == (1, "")
    assert call.err == f"error: engine {engine} needs an NVIDIA GPU\n"
    document = qpde(*arguments, "--json").document
    assert document["ok"] is False
    assert document["error"] == f"engine {engine} needs an NVIDIA GPU"
    assert list(tmp_path.iterdir()) == []


class HostEngine(OnnxRuntimeEngine):
    """Tells layers as TensorRT 10 and 11 do."""

    name = "tensorrt"

    def layers(self):
        old = {"Name": "pixels", "Format/Datatype": "Row major Int8 format"}
        new = {"Name": "values", "DataType": "Int8"}
        inside = {"Name": "stem", "LayerType": "CaskConvolution", "Inputs": [old, new]}
        return ({**inside, "Outputs": [new]}, {"Name": "a name alone"})


class Accelerator:
    """Stands for the module of an accelerator: the CPU graph is its plan, kept as plans are."""

    told = ()

    @staticmethod
    def open_kept(bundle, building):
        graph = bundle.read(CPU_GRAPH)
        key = EngineKey(
            *(bundle.manifest.name, hashlib.sha256(graph).hexdigest(), "tensorrt", "10.3.0"),
            *("Orin", "8.7", "540.4.0", {"max_batch": building.options.max_batch}, {}),
        )

        def build():
            Accelerator.told = building.options
            building.progress("Building", 0, 2)
            building.progress("Building", 2, 2)
            return graph

        kept = building.cache.get_or_build(key, build)
        return HostEngine(kept.data, 1), kept


@pytest.fixture
def accelerator(monkeypatch):
    """A machine where tensorrt works."""
    here = Platform("jetpack6", "aarch64", "36.4.3", "540.4.0", gpu=True, system_tensorrt=True)
    monkeypatch.setattr(registry, "platform_of", lambda: here)
    monkeypatch.setitem(sys.modules, "stand_in_accelerator", Accelerator)
    parts = {**registry._PARTS, "tensorrt": ("stand_in_accelerator", "")}
    monkeypatch.setattr(registry, "_PARTS", parts)
    monkeypatch.setattr(registry, "_LIBRARIES", {})


def test_an_engine_is_built_tested_and_kept(qpde, tiny_bundle, accelerator, tmp_path):
    options = ("--max-batch", "4", "--device", "1", "--dla", "0", "--timing-cache", tmp_path / "t")
    arguments = ("build", "--engine", "tensorrt", "--model", tiny_bundle.path, *options)
    call = qpde(*arguments, "--cache-dir", tmp_path / "kept", "--json")
    assert call.code == 0
    found = call.document
    assert (found["cache"], found["ok"], found["faults"]) == ("miss", True, [])
    assert found["reason"] == "no tensorrt engine was kept for tiny"
    assert found["self_test"]["ok"] is True
    assert found["self_test"]["frames"] == 6
    assert found["self_test"]["rms_over_noise"] == 0
    assert found["build_ms"] > 0
    told = PlanOptions(max_batch=4, dla=0, device=1, timing_cache=tmp_path / "t")
    assert Accelerator.told == told
    assert qpde(*arguments, "--cache-dir", tmp_path / "kept", "--json").document["cache"] == "hit"
    shown = qpde(*arguments, "--cache-dir", tmp_path / "kept").out
    assert "cache hit" in shown
    assert "0 of the quantization noise" in shown


def test_layers_are_listed_with_what_they_read_and_write(qpde, tiny_bundle, accelerator):
    arguments = ("build", "--engine", "tensorrt", "--model", tiny_bundle.path, "--inspect")
    stem, named = qpde(*arguments, "--json").document["layers"]
    assert (stem["LayerType"], named) == ("CaskConvolution", {"Name": "a name alone"})
    shown = " ".join(qpde(*arguments).out.split())
    assert "CaskConvolution" in shown
    assert "a name alone" in shown


def test_an_engine_that_tells_no_layers_is_wrong_use_of_inspect(qpde, tiny_bundle):
    call = qpde("build", "--engine", "torch_tensorrt", "--model", tiny_bundle.path, "--inspect")
    assert call.code == 2
    assert "--inspect" in call.err


def test_building_alone_says_that_nothing_was_tested(qpde, tiny_bundle, accelerator):
    arguments = ("build", "--engine", "tensorrt", "--model", tiny_bundle.path, "--build-only")
    assert qpde(*arguments, "--json").document["self_test"] is None
    assert "skipped (--build-only)" in qpde(*arguments).out


def test_an_engine_that_strays_fails_the_build_in_one_line(qpde, tiny_bundle, accelerator):
    golden = golden_of(tiny_bundle)
    wrong = replace(golden, logits=golden.logits + 9 * golden.noise).to_bytes()
    contents = {**tiny_bundle.contents, "golden.npz": wrong}
    other = write_bundle(
        replace(tiny_bundle, path=tiny_bundle.path.parent / "wrong", contents=contents)
    )
    call = qpde("build", "--engine", "tensorrt", "--model", other.path, "--json")
    assert call.code == 1
    assert call.document["ok"] is False
    assert "strays from the integer reference" in call.document["error"]
    assert len(call.err.splitlines()) == 1
