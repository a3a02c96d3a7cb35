"""Choosing among engines where a GPU is, on a stand-in for it: kept, tested, fallen back from."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from importlib.util import find_spec

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from qpde_perception.bundles import golden_of
from qpde_perception.engines import (
    Building,
    EngineError,
    build_only,
    choose_engine,
    engine_status,
    open_engine,
    plans,
    registry,
)
from qpde_perception.engines.cache import VARIABLE, EngineCache
from qpde_perception.engines.platforms import Platform, remedy
from qpde_perception.engines.tensorrt import TensorRtEngine
from qpde_perception.engines.tensorrt_plan import PlanOptions

GRAPH = registry.TENSORRT_GRAPH
ORIN = Platform("jetpack6", "aarch64", "36.4.3", "540.4.0", gpu=True, system_tensorrt=True)


class Builder:
    """Stands for the builder: notes what it built, and builds what it is told."""

    def __init__(self, make_plan):
        self.make_plan = make_plan
        self.built = []
        self.spoil = lambda graph: graph
        self.fails = None

    def __call__(self, graph, options, *, progress):
        if progress is not None:
            progress("Building", 0, 1)
        self.built.append(options)
        if self.fails:
            raise self.fails
        return self.make_plan(self.spoil(graph), largest=options.max_batch)


@pytest.fixture
def orin(monkeypatch, host_gpu, make_plan, tmp_path):
    """A machine with a GPU, a builder and an empty cache."""
    builder = Builder(make_plan)
    monkeypatch.setattr(plans, "build_plan", builder)
    monkeypatch.setattr(registry, "_LIBRARIES", {})  # the stand-in is not installed
    for module in (plans, registry):
        monkeypatch.setattr(module, "platform_of", lambda: ORIN)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    host_gpu.builder = builder
    return host_gpu


@pytest.fixture
def no_plans(monkeypatch):
    """Fail the test when the library of an accelerator is loaded."""
    load = registry.import_module

    def watch(name):
        assert name not in ("qpde_perception.engines.plans", "qpde_perception.engines.programs")
        return load(name)

    monkeypatch.setattr(registry, "import_module", watch)


def with_wrong_weights(graph, start=""):
    """The graph with the weights of the first convolution so named in another order."""
    model = onnx.load_from_string(graph)
    weights = [one for one in model.graph.initializer if len(one.dims) == 4]
    weight = next(one for one in weights if one.name.startswith(start))
    values = np.ascontiguousarray(numpy_helper.to_array(weight)[::-1])
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    return model.SerializeToString()


def test_where_a_gpu_is_tensorrt_serves_before_the_bundles_engines(tiny_bundle, orin):
    assert "tensorrt" not in tiny_bundle.manifest.engines
    opened = choose_engine(tiny_bundle)
    assert opened.engine.name == "tensorrt"
    assert opened.self_test.ok
    assert opened.self_test.frames == 6
    assert opened.refusals == ()
    assert engine_status("tensorrt").version == opened.engine.version == "10.3.0"


def test_a_bundle_that_names_tensorrt_itself_decides_its_place(tiny_bundle, orin):
    manifest = tiny_bundle.manifest.model_copy(update={"engines": ("openvino", "tensorrt")})
    assert open_engine(replace(tiny_bundle, manifest=manifest)).name == "openvino"


def test_without_a_gpu_no_library_of_an_accelerator_is_loaded(tiny_bundle, no_plans):
    if registry.platform_of().gpu:
        pytest.skip("this machine has a GPU")
    assert choose_engine(tiny_bundle).refusals == ()
    manifest = tiny_bundle.manifest.model_copy(update={"engines": ("tensorrt", "openvino")})
    opened = choose_engine(replace(tiny_bundle, manifest=manifest))
    assert opened.engine.name == "openvino"
    (refusal,) = opened.refusals
    assert (refusal.engine, refusal.reason) == ("tensorrt", "engine tensorrt needs an NVIDIA GPU")
    with pytest.raises(EngineError, match="engine tensorrt needs an NVIDIA GPU"):
        open_engine(tiny_bundle, "tensorrt")


def test_the_second_start_loads_what_the_first_built(tiny_bundle, orin):
    first, second = (choose_engine(tiny_bundle) for _ in range(2))
    assert (first.cache, first.reason) == ("miss", "no tensorrt engine was kept for tiny")
    assert (second.cache, second.reason) == ("hit", "the same graph, engine, device and options")
    assert len(orin.builder.built) == 1
    assert choose_engine(tiny_bundle, "openvino").cache == "none"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("version", "engine_version 10.3.0 -> 10.7.0"),
        ("driver", "driver 540.4.0 -> 540.5.0"),
        ("device", "compute_capability 8.7 -> 8.8"),
        ("batch", "shapes.max_batch 8 -> 2"),
        ("graph", "graph_sha256 "),
    ],
)
def test_what_an_engine_depends_on_changes_and_it_is_built_again(
    tiny_bundle, orin, monkeypatch, change, reason
):
    choose_engine(tiny_bundle)
    options = PlanOptions()
    if change == "version":
        monkeypatch.setattr(orin.tensorrt, "__version__", "10.7.0", raising=False)
        orin.builder.make_plan = partial(orin.builder.make_plan, version="10.7.0")
    elif change == "driver":
        newer = replace(ORIN, driver="540.5.0")
        monkeypatch.setattr(plans, "platform_of", lambda: newer)
    elif change == "device":
        options = PlanOptions(device=1)
    elif change == "batch":
        options = PlanOptions(max_batch=2)
    else:
        model = onnx.load_from_string(tiny_bundle.read(GRAPH))
        model.doc_string = "compiled again"
        contents = {**tiny_bundle.contents, GRAPH: model.SerializeToString()}
        tiny_bundle = replace(tiny_bundle, contents=contents)
    opened = choose_engine(tiny_bundle, building=Building(options=options))
    assert (opened.engine.name, opened.cache) == ("tensorrt", "miss")
    assert opened.reason.startswith(reason)
    assert len(orin.builder.built) == 2


def test_an_engine_that_strays_is_refused_closed_and_the_next_serves(tiny_bundle, orin, caplog):
    orin.builder.spoil = with_wrong_weights
    opened = choose_engine(tiny_bundle)
    assert opened.engine.name == tiny_bundle.manifest.engines[0]
    (refusal,) = opened.refusals
    assert refusal.engine == "tensorrt"
    assert "tensorrt 10.3.0 strays from the integer reference" in refusal.reason
    (warning,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert warning == f"{refusal.reason}; trying the next engine"
    assert orin.cuda.held == {}


@pytest.mark.parametrize("block", ["stage0.block1", "stage2.block3"])
def test_the_message_names_the_first_tap_that_differs(shipped_bundle, orin, block):
    """Of a fault in a block, it is the block's own tap; what is before is as it was."""
    orin.builder.spoil = partial(with_wrong_weights, start=f"{block}.depthwise.")
    with pytest.raises(EngineError, match=rf"first tap that differs is {block}\.\w+; refused"):
        open_engine(shipped_bundle, "tensorrt")


def test_an_engine_that_serves_names_no_tap(shipped_bundle, orin):
    test = choose_engine(shipped_bundle, "tensorrt").self_test
    assert (test.ok, test.strange_tap) == (True, "")
    assert "tap" not in test.told


def test_a_bundle_from_before_the_taps_is_tested_by_its_logits(tiny_bundle, orin):
    golden = golden_of(tiny_bundle)
    older = replace(golden, taps=(), saturation=golden.saturation[:, :0]).to_bytes()
    contents = {**tiny_bundle.contents, "golden.npz": older}
    orin.builder.spoil = with_wrong_weights
    with pytest.raises(EngineError, match=r"largest [^;]*; refused"):
        open_engine(replace(tiny_bundle, contents=contents), "tensorrt")


def test_a_kept_engine_that_strays_is_refused_at_a_start_and_mended_by_a_build(tiny_bundle, orin):
    orin.builder.spoil = with_wrong_weights
    build_only(tiny_bundle, "tensorrt", Building())
    orin.builder.spoil = lambda graph: graph
    with pytest.raises(EngineError, match="qpde build --engine tensorrt --model tiny builds it"):
        open_engine(tiny_bundle, "tensorrt")
    assert len(orin.builder.built) == 1
    mended = choose_engine(tiny_bundle, "tensorrt", building=Building(rebuilds=True))
    assert (mended.cache, len(orin.builder.built)) == ("miss", 2)
    assert mended.reason.startswith("the one kept strays from the integer reference")
    assert open_engine(tiny_bundle, "tensorrt").name == "tensorrt"


def test_an_engine_that_strays_when_built_again_is_refused(tiny_bundle, orin):
    orin.builder.spoil = with_wrong_weights
    build_only(tiny_bundle, "tensorrt", Building())
    with pytest.raises(EngineError, match=r"strays.*refused"):
        choose_engine(tiny_bundle, "tensorrt", building=Building(rebuilds=True))
    assert len(orin.builder.built) == 2


def test_a_kept_plan_that_the_library_refuses_is_built_again(tiny_bundle, orin, make_plan):
    orin.builder.make_plan = partial(make_plan, version="8.6.1")
    with pytest.raises(EngineError, match="refuses the plan"):
        build_only(tiny_bundle, "tensorrt", Building())
    orin.builder.make_plan = make_plan
    opened = choose_engine(tiny_bundle, "tensorrt")
    assert opened.cache == "miss"
    assert opened.reason.startswith("the one kept was refused: tensorrt 10.3.0 refuses the plan")
    assert choose_engine(tiny_bundle, "tensorrt").cache == "hit"


def test_memory_that_is_full_costs_no_kept_plan(tiny_bundle, orin):
    open_engine(tiny_bundle, "tensorrt").close()
    orin.cuda.allocations_left = 1
    opened = choose_engine(tiny_bundle)
    assert opened.engine.name == tiny_bundle.manifest.engines[0]
    assert "out of memory" in opened.refusals[0].reason
    orin.cuda.allocations_left = None
    assert choose_engine(tiny_bundle).cache == "hit"
    assert len(orin.builder.built) == 1


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (EngineError("tensorrt: no memory"), "tensorrt: no memory"),
        (AttributeError("no such flag"), "engine tensorrt failed: AttributeError: no such flag"),
        (MemoryError(), "engine tensorrt failed: MemoryError"),
    ],
)
def test_whatever_a_builder_raises_the_next_engine_serves(tiny_bundle, orin, error, told):
    orin.builder.fails = error
    opened = choose_engine(tiny_bundle)
    assert opened.engine.name == tiny_bundle.manifest.engines[0]
    assert told in opened.refusals[0].reason


def test_whatever_an_engine_raises_in_its_self_test_the_next_serves(tiny_bundle, orin, monkeypatch):
    def observe(engine, batch):
        msg = "illegal memory access"
        raise RuntimeError(msg)

    monkeypatch.setattr(TensorRtEngine, "observe", observe)
    opened = choose_engine(tiny_bundle)
    assert opened.engine.name == tiny_bundle.manifest.engines[0]
    assert opened.refusals[0].reason == (
        "engine tensorrt failed: RuntimeError: illegal memory access"
    )
    assert orin.cuda.held == {}


def test_a_dla_that_is_not_here_is_refused_as_the_plan_is_loaded(tiny_bundle, orin):
    with pytest.raises(EngineError, match="DLA core 0 is not here"):
        choose_engine(tiny_bundle, "tensorrt", building=Building(options=PlanOptions(dla=0)))


def test_an_interrupted_build_is_interrupted_and_not_fallen_back_from(tiny_bundle, orin):
    orin.builder.fails = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        choose_engine(tiny_bundle)


def test_a_bundle_without_the_graph_is_refused_with_the_remedy(tiny_bundle, orin):
    contents = {name: data for name, data in tiny_bundle.contents.items() if name != GRAPH}
    opened = choose_engine(replace(tiny_bundle, contents=contents))
    assert opened.engine.name == tiny_bundle.manifest.engines[0]
    assert f"has no {GRAPH}; compile the model again" in opened.refusals[0].reason


def test_a_cache_that_cannot_be_used_keeps_no_engine_from_serving(tiny_bundle, orin, tmp_path):
    (tmp_path / "file").write_text("")
    cache = EngineCache(tmp_path / "file")
    for _ in range(2):
        assert choose_engine(tiny_bundle, building=Building(cache)).engine.name == "tensorrt"
    assert len(orin.builder.built) == 2


def with_twice_the_classes(graph):
    model = onnx.load_from_string(graph)
    last = next(node for node in model.graph.node if "logits" in node.output)
    last.output[0] = "half"
    model.graph.node.append(onnx.helper.make_node("Concat", ["half", "half"], ["logits"], axis=1))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value *= 2
    return model.SerializeToString()


@pytest.fixture
def graphs_of_others(tiny_bundle, shipped_bundle, make_network, make_bundle):
    other_weights = make_bundle(make_network(seed=5), tiny_bundle.path)
    return {
        "another network": shipped_bundle.read(GRAPH),
        "other classes": with_twice_the_classes(tiny_bundle.read(GRAPH)),
        "other weights": other_weights.read(GRAPH),
    }


@pytest.mark.parametrize("of", ["another network", "other classes", "other weights"])
def test_a_graph_of_another_bundle_is_refused(tiny_bundle, graphs_of_others, orin, of):
    other = graphs_of_others[of]
    opened = choose_engine(replace(tiny_bundle, contents={**tiny_bundle.contents, GRAPH: other}))
    assert opened.engine.name == tiny_bundle.manifest.engines[0]
    told = {
        "another network": "cannot run uint8(6, 16, 16, 3)",
        "other classes": "logits of shape (6, 10) for golden frames that have (6, 5)",
        "other weights": "strays from the integer reference",
    }
    assert told[of] in opened.refusals[0].reason
    assert orin.cuda.held == {}


def test_a_missing_library_is_told_with_the_line_for_this_machine(tiny_bundle, monkeypatch):
    if find_spec("tensorrt") or find_spec("cuda"):
        pytest.skip("a library of TensorRT is installed")
    monkeypatch.setattr(registry, "platform_of", lambda: ORIN)
    line = remedy("tensorrt", ORIN)
    opened = choose_engine(tiny_bundle)
    assert opened.refusals[0].reason == f"engine tensorrt is not installed; {line}"
    assert engine_status("tensorrt").remedy == line


def test_building_alone_asks_no_golden_frame(tiny_bundle, orin):
    orin.builder.spoil = with_wrong_weights
    opened = build_only(tiny_bundle, "tensorrt", Building())
    assert (opened.cache, opened.self_test) == ("miss", None)
