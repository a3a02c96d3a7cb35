"""Opening engines: by name, in the bundle's order, and never without the golden frames."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from qpde_perception.bundles import golden_of
from qpde_perception.engines import (
    CPU_ENGINES,
    ENGINES,
    EngineError,
    engine_status,
    open_engine,
    registry,
)
from qpde_perception.engines.platforms import Platform

CPU_GRAPH = registry.CPU_GRAPH


def with_graph(bundle, graph):
    return replace(bundle, contents={**bundle.contents, CPU_GRAPH: graph})


def with_wrong_scale(bundle, tensor):
    """The bundle with one activation read at a scale that is wrong by 255 / 127."""
    model = onnx.load_from_string(bundle.read(CPU_GRAPH))
    constants = {constant.name: constant for constant in model.graph.initializer}
    readers = [
        node
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] == f"{tensor}.codes"
    ]
    assert readers
    right = numpy_helper.to_array(constants[readers[0].input[1]])
    wrong = numpy_helper.from_array(np.float32(right * 2.008), "wrong_scale")
    model.graph.initializer.append(wrong)
    for node in readers:
        node.input[1] = "wrong_scale"
    return with_graph(bundle, model.SerializeToString())


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch):
    here = Platform("cpu", "x86_64", "", "", gpu=False, system_tensorrt=False)
    monkeypatch.setattr(registry, "platform_of", lambda: here)


@pytest.fixture
def broken(monkeypatch):
    """Let an engine's library be missing."""

    def break_engine(name):
        table = {**registry._PARTS, name: ("qpde_perception.engines.not_installed", "Engine")}
        monkeypatch.setattr(registry, "_PARTS", table)

    return break_engine


@pytest.mark.parametrize("name", CPU_ENGINES)
def test_every_engine_opens_by_name(tiny_bundle, name):
    engine = open_engine(tiny_bundle, name)
    assert engine.name == name
    assert engine.version == engine_status(name).version != ""


def test_without_a_name_the_first_of_the_bundles_list_serves(tiny_bundle):
    assert open_engine(tiny_bundle).name == tiny_bundle.manifest.engines[0]
    manifest = tiny_bundle.manifest.model_copy(update={"engines": CPU_ENGINES[::-1]})
    assert open_engine(replace(tiny_bundle, manifest=manifest)).name == CPU_ENGINES[-1]


def test_unknown_engine_error_names_the_known_ones(tiny_bundle):
    with pytest.raises(EngineError, match=rf"'tensorflow'.*{', '.join(ENGINES)}"):
        open_engine(tiny_bundle, "tensorflow")


def test_the_next_engine_serves_when_the_first_cannot_be_loaded(tiny_bundle, broken):
    first, second = tiny_bundle.manifest.engines
    broken(first)
    assert open_engine(tiny_bundle).name == second
    with pytest.raises(EngineError, match=f"pip install {first}"):
        open_engine(tiny_bundle, first)


def test_without_any_engine_every_refusal_is_named(tiny_bundle, broken):
    for name in CPU_ENGINES:
        broken(name)
    with pytest.raises(EngineError, match="no engine can serve tiny") as error:
        open_engine(tiny_bundle)
    assert all(f"pip install {name}" in str(error.value) for name in CPU_ENGINES)


def test_status_says_what_works_and_what_to_do_if_not(broken):
    status = engine_status("openvino")
    assert (status.works, status.remedy) == (True, "")
    broken("openvino")
    status = engine_status("openvino")
    assert (status.works, status.version, status.remedy) == (False, "", "pip install openvino")


@pytest.mark.parametrize("name", CPU_ENGINES)
@pytest.mark.parametrize(
    "tensor", ["pixels", "stage0.smooth", "stage1.smooth", "stage2.block3.sum"]
)
def test_a_wrong_scale_is_refused_on_the_golden_frames(shipped_bundle, name, tensor):
    with pytest.raises(EngineError, match=f"{name}.*strays from the integer reference"):
        open_engine(with_wrong_scale(shipped_bundle, tensor), name)


@pytest.mark.parametrize("name", CPU_ENGINES)
def test_a_graph_with_one_other_weight_tensor_is_refused(shipped_bundle, name):
    model = onnx.load_from_string(shipped_bundle.read(CPU_GRAPH))
    weight = next(c for c in model.graph.initializer if c.name == "stem.weight")
    values = numpy_helper.to_array(weight)
    weight.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values[::-1]), weight.name))
    with pytest.raises(EngineError, match="strays"):
        open_engine(with_graph(shipped_bundle, model.SerializeToString()), name)


@pytest.mark.parametrize("name", CPU_ENGINES)
def test_one_logit_alone_may_stray_by_twice_the_noise_and_no_more(shipped_bundle, name):
    golden = golden_of(shipped_bundle)

    def with_one_logit_off(steps):
        logits = golden.logits.copy()
        logits[0, 0] += steps * golden.noise
        moved = replace(golden, logits=logits).to_bytes()
        return replace(shipped_bundle, contents={**shipped_bundle.contents, "golden.npz": moved})

    assert open_engine(with_one_logit_off(1.9), name).name == name
    with pytest.raises(EngineError, match=r"largest 2\.1"):
        open_engine(with_one_logit_off(2.1), name)


@pytest.mark.parametrize("name", CPU_ENGINES)
def test_logits_that_are_no_numbers_are_refused(tiny_bundle, name):
    golden = golden_of(tiny_bundle)
    logits = np.full_like(golden.logits, np.nan)
    contents = {
        **tiny_bundle.contents,
        "golden.npz": replace(golden, logits=logits).to_bytes(),
    }
    with pytest.raises(EngineError, match="strays"):
        open_engine(replace(tiny_bundle, contents=contents), name)


@pytest.mark.parametrize("name", CPU_ENGINES)
@pytest.mark.parametrize("graph", [b"", b"no graph", b"cut off"])
def test_a_graph_that_is_none_is_refused_by_the_engines_name(tiny_bundle, name, graph):
    if graph == b"cut off":
        graph = tiny_bundle.read(CPU_GRAPH)[:5000]
    with pytest.raises(EngineError, match=name):
        open_engine(with_graph(tiny_bundle, graph), name)
