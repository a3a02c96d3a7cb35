"""torch-tensorrt's engines: built by who compiles, served on the road from what was kept.

torch-tensorrt itself needs a GPU; what stands for it here executes the CPU graph.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from qpde_perception.bundles import golden_of
from qpde_perception.engines import (
    Building,
    EngineError,
    choose_engine,
    engine_status,
    open_engine,
    registry,
)
from qpde_perception.engines.cache import VARIABLE
from qpde_perception.engines.onnxruntime import OnnxRuntimeEngine
from qpde_perception.engines.platforms import Platform
from qpde_perception.engines.registry import CPU_GRAPH
from qpde_perception.engines.tensorrt_plan import PlanOptions

ROOM = "qpde_perception.engines"
THOR = Platform("jetpack7", "aarch64", "38.2.0", "580.1.2", gpu=True, system_tensorrt=True)
REMEDY = "qpde build --engine torch_tensorrt --model tiny builds it"


class HostEngine(OnnxRuntimeEngine):
    """Stands for torch-tensorrt's engine."""

    name = "torch_tensorrt"
    version = "2.13.0"

    def __init__(self, data, max_batch):
        super().__init__(data, threads=1)
        self.max_batch = max_batch


@pytest.fixture
def thor(monkeypatch, host_gpu, tmp_path):
    """A machine with a GPU, torch-tensorrt and an empty cache; gives the module that opens."""
    stand_in = SimpleNamespace(
        NAME="torch_tensorrt", TorchTensorRtEngine=HostEngine, compile_program=lambda graph: graph
    )
    monkeypatch.setitem(sys.modules, f"{ROOM}.torch_tensorrt", stand_in)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    # A fresh one, which finds the stand-in; the next test's finds its own.
    monkeypatch.delitem(sys.modules, f"{ROOM}.programs", raising=False)
    programs = registry.import_module(f"{ROOM}.programs")
    monkeypatch.setattr(registry, "_LIBRARIES", {})  # the stand-ins are not installed
    for module in (programs, registry):
        monkeypatch.setattr(module, "platform_of", lambda: THOR)
    yield programs
    sys.modules.pop(f"{ROOM}.programs", None)


@pytest.fixture
def building(tiny_bundle):
    """What `qpde build` tells."""
    return Building(program=lambda: tiny_bundle.read(CPU_GRAPH), rebuilds=True)


def test_on_the_road_what_a_build_kept_is_served(tiny_bundle, thor, building):
    with pytest.raises(EngineError, match=f"no torch_tensorrt engine was kept for tiny.*{REMEDY}"):
        open_engine(tiny_bundle, "torch_tensorrt")
    built = choose_engine(tiny_bundle, "torch_tensorrt", building=building)
    assert (built.cache, built.self_test.ok) == ("miss", True)
    kept = choose_engine(tiny_bundle, "torch_tensorrt")
    assert (kept.cache, kept.engine.name) == ("hit", "torch_tensorrt")
    golden = golden_of(tiny_bundle)
    assert golden.distance(kept.engine.infer(golden.pixels)) == (0, 0)
    assert engine_status("torch_tensorrt").version == "2.13.0"


def test_what_changed_since_the_build_is_named(tiny_bundle, thor, building, monkeypatch):
    choose_engine(tiny_bundle, "torch_tensorrt", building=building)
    monkeypatch.setattr(thor, "platform_of", lambda: replace(THOR, driver="580.9.9"))
    with pytest.raises(EngineError, match=rf"\(driver 580\.1\.2 -> 580\.9\.9\).*{REMEDY}"):
        open_engine(tiny_bundle, "torch_tensorrt")


def test_a_bundle_that_names_it_falls_back_where_none_is_kept(tiny_bundle, thor):
    manifest = tiny_bundle.manifest.model_copy(
        update={"engines": ("torch_tensorrt", "tensorrt", "openvino")}
    )
    opened = choose_engine(replace(tiny_bundle, manifest=manifest))
    assert opened.engine.name == "openvino"
    assert [refusal.engine for refusal in opened.refusals] == ["torch_tensorrt", "tensorrt"]
    assert REMEDY in opened.refusals[0].reason


def test_a_kept_engine_that_is_refused_is_built_again_where_it_can_be(
    tiny_bundle, thor, building, monkeypatch
):
    spoilt = replace(building, program=lambda: b"no graph")
    with pytest.raises(EngineError, match="refuses the graph"):
        choose_engine(tiny_bundle, "torch_tensorrt", building=spoilt)
    with pytest.raises(EngineError, match="refuses the graph"):
        open_engine(tiny_bundle, "torch_tensorrt")
    mended = choose_engine(tiny_bundle, "torch_tensorrt", building=building)
    assert mended.reason.startswith("the one kept was refused: ")
    assert choose_engine(tiny_bundle, "torch_tensorrt").cache == "hit"


@pytest.mark.parametrize("options", [PlanOptions(dla=0), PlanOptions(device=1)])
def test_what_it_cannot_do_is_refused(tiny_bundle, thor, building, options):
    with pytest.raises(EngineError, match="takes GPU 0 and no DLA"):
        choose_engine(tiny_bundle, "torch_tensorrt", building=replace(building, options=options))
