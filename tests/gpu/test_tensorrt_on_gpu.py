"""TensorRT on a GPU: right, the same bits in every way of asking, steady, and strict."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from qpde_perception.bundles import MAX_OVER_NOISE, MAX_RMS_OVER_NOISE, golden_of
from qpde_perception.compiling.parity import compare, in_batches, reference_of
from qpde_perception.engines import EngineError
from qpde_perception.engines.cuda import call
from qpde_perception.engines.tensorrt import TensorRtEngine
from qpde_perception.engines.tensorrt_plan import PlanOptions, build_plan
from qpde_perception.learning.signs import prepared_pixels

GRAPH = "tensorrt.onnx"
FRAMES = 100_000
MEBIBYTE = 1 << 20


@pytest.fixture(params=[True, False], ids=["CUDA graphs", "no CUDA graphs"])
def engine(request, make_engine):
    return make_engine(cuda_graphs=request.param)


def test_golden_frames_are_within_the_budget(engine, shipped_bundle, record_property):
    golden = golden_of(shipped_bundle)
    for _ in range(3):
        rms, largest = golden.distance(engine.infer(golden.pixels))
        record_property("rms over noise", rms)
        record_property("largest over noise", largest)
        assert rms <= MAX_RMS_OVER_NOISE
        assert largest <= MAX_OVER_NOISE


def test_every_test_image_is_in_parity_with_the_integer_reference(
    make_engine, published_signs, shipped_bundle, record_property
):
    signs = published_signs.split("test-a")
    pixels = prepared_pixels(signs, shipped_bundle.manifest.input)
    expected = in_batches(reference_of(shipped_bundle), pixels)
    logits = in_batches(make_engine(), pixels)
    parity = compare(expected, logits, golden_of(shipped_bundle).noise)
    record_property("identical logits", parity.identical_share)
    assert parity.ok, parity


def test_batches_of_every_size_in_any_order_are_within_the_budget_of_single_images(
    engine, shipped_bundle, images
):
    pixels = images(20, 48, seed=41)
    noise = golden_of(shipped_bundle).noise
    singles = np.concatenate([engine.infer(pixels[i : i + 1]) for i in range(20)])
    for size in (20, 1, 8, 2, 7, 3, 6, 4, 5, 9, 17, 1, 8):
        logits = engine.infer(pixels[:size])
        assert logits.shape == singles[:size].shape
        assert compare(singles[:size], logits, noise).ok


def test_cuda_graphs_change_no_bit(make_engine, images):
    pixels = images(20, 48, seed=42)
    plain, graphed = make_engine(cuda_graphs=False), make_engine(cuda_graphs=True)
    for size in (1, 8, 3, 20, 1, 8, 3, 20, 1, 2, 4):
        expected = plain.infer(pixels[:size])
        assert np.array_equal(graphed.infer(pixels[:size]), expected)
    assert graphed.cuda_graphs, "recording failed; the log says why"


def test_two_engines_at_once_do_not_disturb_each_other(make_engine, images):
    pixels = images(4, 48, seed=43)
    engines = [make_engine(), make_engine()]
    answers = [engine.infer(pixels[i : i + 1]) for i in range(4) for engine in engines]
    for i in range(4):
        assert np.array_equal(answers[2 * i], answers[2 * i + 1])


def test_observing_gives_the_same_logits_and_the_saturation_of_the_reference(
    make_engine, shipped_bundle
):
    golden = golden_of(shipped_bundle)
    engine = make_engine()
    logits, saturation = engine.observe(golden.pixels)
    assert np.array_equal(logits, engine.infer(golden.pixels))
    assert saturation.shape == golden.saturation.shape
    # A value at the border of two codes may take either.
    np.testing.assert_allclose(saturation, golden.saturation, atol=0.005)


def resident_bytes():
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_memory_is_steady_over_many_frames(engine, images, record_property):
    pixels = images(16, 48, seed=45)
    sizes = (1, 8, 3, 16, 2, 5)

    def run(frames):
        done = 0
        while done < frames:
            for size in sizes:
                engine.infer(pixels[:size])
                done += size

    run(FRAMES // 20)
    free, resident = call("cudaMemGetInfo")[0], resident_bytes()
    run(FRAMES)
    of_gpu, of_host = free - call("cudaMemGetInfo")[0], resident_bytes() - resident
    record_property("bytes of the GPU", of_gpu)
    record_property("bytes of the host", of_host)
    assert of_gpu <= 4 * MEBIBYTE
    assert of_host <= 8 * MEBIBYTE


def test_closing_gives_the_memory_back(shipped_plan, images):
    pixels = images(8, 48, seed=46)

    def once():
        engine = TensorRtEngine(shipped_plan)
        for size in range(1, 9):
            engine.infer(pixels[:size])
        engine.close()

    once()
    free = call("cudaMemGetInfo")[0]
    for _ in range(5):
        once()
    assert free - call("cudaMemGetInfo")[0] <= 4 * MEBIBYTE


def test_a_plan_cut_off_or_spoilt_is_refused(shipped_plan):
    spoilt = bytes([shipped_plan[0] ^ 1]) + shipped_plan[1:]
    for wrong in (shipped_plan[: len(shipped_plan) // 2], spoilt, b"", b"no plan" * 1000):
        with pytest.raises(EngineError, match=r"refuses the plan.*build it again"):
            TensorRtEngine(wrong)


def test_a_plan_of_another_model_takes_no_golden_frame(gpu, shipped_bundle, tiny_bundle):
    other = TensorRtEngine(build_plan(tiny_bundle.read(GRAPH), PlanOptions(max_batch=2)))
    with pytest.raises(EngineError, match=r"cannot run .*takes uint8 \(n, 16, 16, 3\)"):
        other.infer(golden_of(shipped_bundle).pixels)
    assert len(other.infer(golden_of(tiny_bundle).pixels)) == 6
    other.close()
