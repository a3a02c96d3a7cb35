"""The TensorRT engine's own steps on a stand-in for the GPU, and what is said where all is missing.

What the real libraries answer on a GPU stands in tests/gpu.
"""

from __future__ import annotations

import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from ctypes.util import find_library
from importlib.util import find_spec

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpde_perception.bundles import MAX_OVER_NOISE, MAX_RMS_OVER_NOISE, golden_of
from qpde_perception.engines import EngineError, cuda
from qpde_perception.engines.tensorrt import TensorRtEngine, parts
from qpde_perception.engines.tensorrt_library import tensorrt_version

GRAPH = "tensorrt.onnx"


@pytest.fixture(scope="module")
def graph(tiny_bundle):
    return tiny_bundle.read(GRAPH)


@pytest.fixture
def make_engine(host_gpu, make_plan, graph):
    """Make engines of the tiny graph, four images at most at once."""

    def make(plan=None, **options):
        return TensorRtEngine(make_plan(graph) if plan is None else plan, **options)

    return make


def silent(graph):
    """The graph with logits alone."""
    model = onnx.load_from_string(graph)
    for output in [one for one in model.graph.output if one.name != "logits"]:
        model.graph.output.remove(output)
    return model.SerializeToString()


@given(count=st.integers(1, 200), most=st.integers(1, 50))
def test_parts_are_every_row_once_in_order_and_none_is_too_large(count, most):
    found = list(parts(count, most))
    assert [row for part in found for row in range(count)[part]] == list(range(count))
    assert all(1 <= part.stop - part.start <= most for part in found)
    assert len(found) == -(-count // most)


@pytest.mark.parametrize("cuda_graphs", [True, False])
def test_golden_frames_are_answered_as_the_integer_reference_does(
    tiny_bundle, make_engine, cuda_graphs
):
    engine = make_engine(cuda_graphs=cuda_graphs)
    golden = golden_of(tiny_bundle)
    for _ in range(3):
        rms, largest = golden.distance(engine.infer(golden.pixels))
        assert rms <= MAX_RMS_OVER_NOISE
        assert largest <= MAX_OVER_NOISE


def test_batches_of_every_size_in_any_order_equal_single_images(make_engine, images):
    pixels = images(11, 16, seed=21)
    engine = make_engine()
    singles = np.concatenate([engine.infer(pixels[i : i + 1]) for i in range(11)])
    for size in (11, 1, 4, 2, 5, 3, 9, 4, 1, 8, 11):
        assert np.array_equal(engine.infer(pixels[:size]), singles[:size])
    assert singles.shape == (11, 5)
    assert singles.dtype == np.float32


def test_a_batch_need_not_be_contiguous_and_is_left_as_it_is(make_engine, images):
    pixels = images(6, 16, seed=22)
    kept = pixels.copy()
    engine = make_engine()
    assert np.array_equal(engine.infer(pixels[::-2]), engine.infer(pixels[::-2].copy()))
    assert np.array_equal(pixels, kept)


def test_layers_are_told_by_name_and_not_of_a_closed_engine(make_engine):
    engine = make_engine()
    assert {"Name": "logits"} in engine.layers()
    assert engine.layers()[-1] == {"Name": "a name alone"}
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.layers()


def test_logits_survive_the_next_call(make_engine, images):
    pixels = images(2, 16, seed=23)
    engine = make_engine()
    first = engine.infer(pixels[:1])
    kept = first.copy()
    assert not np.array_equal(engine.infer(pixels[1:]), kept)
    assert np.array_equal(first, kept)


def test_every_size_is_recorded_once_and_replayed_from_then_on(make_engine, host_gpu, images):
    pixels = images(4, 16, seed=24)
    engine = make_engine()
    for size in (1, 2, 1, 1, 2, 4):
        engine.infer(pixels[:size])
    called = host_gpu.cuda.called
    assert called["cudaGraphInstantiateWithFlags"] == host_gpu.tensorrt.contexts == 3
    assert called["cudaGraphLaunch"] == 3


def test_without_cuda_graphs_nothing_is_recorded(make_engine, host_gpu, images):
    engine = make_engine(cuda_graphs=False)
    for _ in range(3):
        engine.infer(images(2, 16, seed=25))
    assert "cudaStreamBeginCapture" not in host_gpu.cuda.called


def test_where_recording_fails_the_engine_runs_without_and_says_why_once(
    make_engine, host_gpu, images, caplog
):
    pixels = images(3, 16, seed=26)
    expected = make_engine().infer(pixels)
    host_gpu.tensorrt.unrecordable = True
    engine = make_engine()
    with caplog.at_level(logging.WARNING):
        for size in (3, 3, 2, 1, 3):
            assert np.array_equal(engine.infer(pixels[:size]), expected[:size])
    assert [record.message for record in caplog.records] == [
        (
            "tensorrt runs without CUDA graphs: tensorrt cannot run a batch of 3: operation not "
            "permitted when stream is capturing"
        )
    ]


def test_a_plan_for_one_size_of_batch_serves_all(make_engine, make_plan, host_gpu, graph, images):
    """As a DLA has it."""
    pixels = images(9, 16, seed=27)
    expected = make_engine().infer(pixels)
    host_gpu.tensorrt.contexts = 0
    engine = make_engine(make_plan(graph, smallest=4, largest=4))
    for size in (1, 3, 4, 9):
        assert np.array_equal(engine.infer(pixels[:size]), expected[:size])
    assert host_gpu.tensorrt.contexts == 1


def test_observing_gives_the_same_logits_and_the_saturation_of_the_reference(
    make_engine, tiny_bundle
):
    golden = golden_of(tiny_bundle)
    engine = make_engine()
    logits, saturation = engine.observe(golden.pixels)
    assert np.array_equal(logits, engine.infer(golden.pixels))
    assert saturation.dtype == np.float32
    assert saturation.any()
    np.testing.assert_allclose(saturation, golden.saturation, atol=0.005)


def test_a_graph_without_taps_cannot_be_observed(make_engine, make_plan, graph, images):
    engine = make_engine(make_plan(silent(graph)))
    with pytest.raises(EngineError, match=r"saturation.*compile"):
        engine.observe(images(1, 16, seed=29))
    assert len(engine.infer(images(1, 16, seed=29))) == 1


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ((1, 15, 16, 3), np.uint8),
        ((0, 16, 16, 3), np.uint8),
        ((16, 16, 3), np.uint8),
        ((), np.uint8),
        ((1, 16, 16, 3), np.float32),
    ],
)
def test_a_batch_of_another_shape_or_type_is_refused_and_the_engine_goes_on(
    make_engine, images, shape, kind
):
    pixels = images(2, 16, seed=30)
    engine = make_engine()
    before = engine.infer(pixels)
    with pytest.raises(EngineError, match=r"tensorrt cannot run .*takes uint8 \(n, 16, 16, 3\)"):
        engine.infer(np.zeros(shape, kind))
    assert np.array_equal(engine.infer(pixels), before)


def test_closing_gives_everything_back_and_the_engine_answers_no_more(
    make_engine, host_gpu, images
):
    engine = make_engine()
    for size in (1, 2, 4):
        engine.infer(images(size, 16, seed=31))
    assert host_gpu.cuda.held
    engine.close()
    engine.close()
    assert host_gpu.cuda.held == {}
    with pytest.raises(EngineError, match="closed"):
        engine.infer(images(1, 16, seed=31))


def test_memory_is_taken_once(make_engine, host_gpu, images):
    engine = make_engine()
    for size in (1, 2, 3, 4):
        engine.infer(images(4, 16, seed=32)[:size])
    taken = len(host_gpu.cuda.held)
    for size in (9, 4, 1, 2, 3):
        engine.infer(images(12, 16, seed=32)[:size])
    assert len(host_gpu.cuda.held) == taken


@pytest.mark.parametrize("fitting", range(5))
def test_full_memory_is_told_with_a_remedy_and_leaves_nothing_taken(make_engine, host_gpu, fitting):
    host_gpu.cuda.allocations_left = fitting
    with pytest.raises(EngineError, match=r"out of memory.*smaller largest batch"):
        make_engine()
    assert host_gpu.cuda.held == {}


def test_threads_get_the_answers_to_their_own_questions(make_engine, images):
    pixels = images(32, 16, seed=33)
    engine = make_engine()
    expected = [engine.infer(pixels[i : i + 1]) for i in range(32)]
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda i: engine.infer(pixels[i : i + 1]), range(32))
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_the_engine_tells_its_version_and_its_gpu(make_engine):
    engine = make_engine(device=1)
    assert (engine.name, engine.version, engine.max_batch) == ("tensorrt", "10.3.0", 4)
    assert engine.device == cuda.Device(1, "Stand-in", "8.8", "12.6")


@pytest.mark.parametrize("device", [2, -1])
def test_a_gpu_that_is_not_here_is_refused_with_the_number_of_those_that_are(make_engine, device):
    with pytest.raises(EngineError, match=f"GPU {device} is not here; CUDA finds 2"):
        make_engine(device=device)


def test_a_dla_core_that_is_not_here_is_refused(make_engine, host_gpu):
    with pytest.raises(EngineError, match="DLA core 0 is not here; tensorrt finds 0"):
        make_engine(dla=0)
    assert host_gpu.cuda.held == {}


def test_a_plan_cut_off_or_of_another_version_is_refused_in_one_line(
    make_engine, make_plan, graph, host_gpu
):
    for plan in (make_plan(graph)[:-5], make_plan(graph, version="10.4.0")):
        with pytest.raises(
            EngineError, match=r"refuses the plan.*parsePlan.*build it again"
        ) as error:
            make_engine(plan)
        assert "\n" not in str(error.value)
    assert host_gpu.cuda.held == {}


def test_a_plan_of_another_graph_is_refused_with_what_it_has(make_engine, make_plan, host_gpu):
    values = onnx.helper.make_tensor_value_info
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            [onnx.helper.make_node("Relu", ["image"], ["boxes"])],
            "another",
            [values("image", onnx.TensorProto.FLOAT, ["n", 3])],
            [values("boxes", onnx.TensorProto.FLOAT, ["n", 3])],
        ),
        opset_imports=[onnx.helper.make_opsetid("", 17)],
        ir_version=8,
    )
    with pytest.raises(EngineError, match=r"another graph: it has image, boxes"):
        make_engine(make_plan(model.SerializeToString()))
    assert host_gpu.cuda.held == {}


def test_a_version_older_than_the_oldest_is_refused(host_gpu):
    host_gpu.tensorrt.__version__ = "8.6.1"
    with pytest.raises(EngineError, match=r"8\.6\.1 is too old; it takes 10\.3"):
        tensorrt_version()
    host_gpu.tensorrt.__version__ = "11.4.0.106"
    assert tensorrt_version() == "11.4.0.106"


@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="TensorRT is installed")
def test_without_the_library_the_error_says_how_to_get_it():
    with pytest.raises(EngineError, match=r"tensorrt cannot be loaded.*pip install tensorrt"):
        TensorRtEngine(b"")


def test_without_cudas_bindings_the_error_says_how_to_get_them(host_gpu, monkeypatch):
    for name in ("cuda.bindings.runtime", "cuda.cudart"):
        monkeypatch.setitem(sys.modules, name, None)  # what import calls a missing module
    with pytest.raises(EngineError, match=r"bindings cannot be loaded.*pip install .cuda-python"):
        cuda.device_of(0)


def test_the_older_name_of_cudas_bindings_serves(host_gpu, monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    monkeypatch.setitem(sys.modules, "cuda.cudart", host_gpu.cuda)
    assert cuda.device_of(0).name == "Stand-in"


@pytest.mark.skipif(find_library("cuda") is not None, reason="there is an NVIDIA driver")
def test_without_a_driver_the_error_says_so():
    pytest.importorskip("cuda.bindings.runtime", reason="CUDA's bindings are missing")
    cuda.runtime.cache_clear()
    with pytest.raises(EngineError, match=r"no NVIDIA driver is loaded.*install.*CPU engine"):
        cuda.device_of(0)


def test_the_stand_in_has_no_function_that_cuda_lacks(host_gpu, monkeypatch):
    monkeypatch.delitem(sys.modules, "cuda.bindings.runtime")
    real = pytest.importorskip("cuda.bindings.runtime", reason="CUDA's bindings are missing")
    names = {name for name in vars(type(host_gpu.cuda)) if name.startswith("cuda")}
    assert names
    assert {name for name in names if not hasattr(real, name)} == set()
