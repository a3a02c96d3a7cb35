"""Building plans with the real builder of TensorRT for RTX, which needs no GPU."""

from __future__ import annotations

import logging

import onnx
import pytest

from qpde_perception.engines import EngineError
from qpde_perception.engines.tensorrt_library import Listener, typed_network
from qpde_perception.engines.tensorrt_plan import (
    PlanOptions,
    _configure,
    _monitor_class,
    build_plan,
    read_plan,
)
from qpde_perception.engines.tensorrt_rtx import REMEDY

GRAPH = "tensorrt.onnx"

library = pytest.importorskip(
    "tensorrt_rtx_bindings", reason=f"TensorRT for RTX is missing; {REMEDY}"
)


@pytest.fixture(scope="module")
def graph(tiny_bundle):
    return tiny_bundle.read(GRAPH)


@pytest.fixture(scope="module")
def plan(graph):
    return build_plan(graph, PlanOptions(), library=library)


def test_the_graph_of_the_model_that_ships_becomes_a_plan(shipped_bundle, plan):
    shipped = build_plan(shipped_bundle.read(GRAPH), PlanOptions(), library=library)
    assert len(shipped) > len(plan) > 0


def test_progress_begins_at_nothing_done_and_every_phase_is_finished(graph):
    told = {}

    def progress(phase, done, steps):
        told.setdefault(phase, []).append((done, steps))

    build_plan(graph, PlanOptions(), progress=progress, library=library)
    assert "Building engine" in told
    for heard in told.values():
        assert heard[0][0] == 0
        assert all(0 <= done <= steps for done, steps in heard)
        assert heard[-1][0] == heard[-1][1]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError("the screen is full")])
def test_what_the_listener_raises_ends_the_build_and_reaches_the_caller(graph, error):
    told = []

    def progress(phase, done, steps):
        told.append(phase)
        raise error

    with pytest.raises(type(error) if isinstance(error, Exception) else error):
        build_plan(graph, PlanOptions(), progress=progress, library=library)
    assert len(told) == 1


def test_the_builder_is_told_to_stop_once_the_listener_has_raised():
    steps = []

    def progress(phase, done, steps_of_phase):
        steps.append(done)
        if done == 2:
            raise KeyboardInterrupt

    monitor = _monitor_class(library)(progress)
    monitor.phase_start("building", None, 5)
    goes_on = [monitor.step_complete("building", step) for step in range(4)]
    assert goes_on == [True, False, False, False]
    assert steps == [0, 1, 2]
    assert isinstance(monitor.stopped_by, KeyboardInterrupt)


def test_the_network_is_strongly_typed_and_floats_are_not_shortened(graph):
    listener = Listener(library)
    builder = library.Builder(listener.logger)
    network = typed_network(library, builder)
    assert network.get_flag(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    assert library.OnnxParser(network, listener.logger).parse(graph)
    config = builder.create_builder_config()
    assert config.get_flag(library.BuilderFlag.TF32)
    options = PlanOptions(max_batch=3, workspace_bytes=1 << 24)
    _configure(library, builder, network, config, options)
    assert not config.get_flag(library.BuilderFlag.TF32)
    assert config.profiling_verbosity == library.ProfilingVerbosity.DETAILED
    assert config.get_memory_pool_limit(library.MemoryPoolType.WORKSPACE) == 1 << 24
    assert config.num_optimization_profiles == 1


def test_a_node_that_the_library_does_not_know_is_named(graph):
    model = onnx.load_from_string(graph)
    node = next(node for node in model.graph.node if node.op_type == "Conv")
    node.op_type = "Convolve"
    with pytest.raises(EngineError, match=rf"refuses the graph at node '{node.name}' \(Convolve\)"):
        build_plan(model.SerializeToString(), PlanOptions(), library=library)


def test_bytes_that_are_no_graph_are_refused_in_one_line(graph):
    for wrong in (b"", b"nothing", graph[:5000]):
        with pytest.raises(EngineError, match="refuses the graph") as error:
            build_plan(wrong, PlanOptions(), library=library)
        assert "\n" not in str(error.value)


def test_a_graph_of_something_else_is_refused_with_what_it_has(tiny_bundle):
    other = tiny_bundle.read(GRAPH).replace(b"logits", b"scores")
    with pytest.raises(EngineError, match=r"gives \['scores'.*\], not pixels and logits"):
        build_plan(other, PlanOptions(), library=library)


def test_a_dla_core_that_is_not_here_is_refused_before_the_build(graph):
    with pytest.raises(EngineError, match=r"DLA core 0 is not here.*build for the GPU"):
        build_plan(graph, PlanOptions(dla=0), library=library)


@pytest.mark.parametrize("options", [{"max_batch": 0}, {"workspace_bytes": 0}])
def test_options_without_sense_are_refused(options):
    with pytest.raises(EngineError, match=r"\b0\b.*; it is 1 or more"):
        PlanOptions(**options)


def test_times_are_kept_in_a_file_that_appears_whole(graph, tmp_path):
    path = tmp_path / "deep" / "times"
    build_plan(graph, PlanOptions(timing_cache=path), library=library)
    assert path.stat().st_size > 0
    assert list(path.parent.iterdir()) == [path]


def test_a_spoilt_file_of_times_is_replaced(graph, tmp_path):
    path = tmp_path / "times"
    path.write_bytes(b"spoilt" * 100)
    build_plan(graph, PlanOptions(timing_cache=path), library=library)
    assert b"spoilt" not in path.read_bytes()


def test_times_that_cannot_be_kept_cost_a_warning_and_no_plan(graph, tmp_path, caplog):
    path = tmp_path / "file" / "times"
    path.parent.write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        assert build_plan(graph, PlanOptions(timing_cache=path), library=library)
    messages = [record.message for record in caplog.records if str(path) in record.message]
    assert len(messages) == 2
    assert "cannot be read" in messages[0]
    assert "cannot be written" in messages[1]


def test_a_plan_cut_off_spoilt_or_empty_is_refused_with_the_remedy(plan):
    spoilt = bytes([plan[0] ^ 1]) + plan[1:]
    for wrong in (plan[: len(plan) // 2], plan[:100], spoilt, b"", b"no plan" * 1000):
        with pytest.raises(EngineError, match=rf"refuses the plan of {len(wrong)} bytes.*build it"):
            read_plan(library, wrong)
