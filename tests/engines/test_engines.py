"""What every engine does with a batch."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from qpde_perception.engines import CPU_ENGINES, EngineError, open_engine

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=CPU_ENGINES)
def engine(request, tiny_bundle):
    return open_engine(tiny_bundle, request.param)


def test_batches_of_one_to_five_equal_single_images(engine, images):
    pixels = images(5, 16, seed=12)
    singles = np.concatenate([engine.infer(pixels[i : i + 1]) for i in range(5)])
    for size in range(1, 6):
        assert np.array_equal(engine.infer(pixels[:size]), singles[:size])


@pytest.mark.parametrize("size", [7, 16, 32, 33])
def test_large_batches_equal_single_images(engine, images, size):
    pixels = images(size, 16, seed=12)
    singles = np.concatenate([engine.infer(pixels[i : i + 1]) for i in range(size)])
    assert np.array_equal(engine.infer(pixels), singles)


def test_calls_from_several_threads_wait_for_each_other(engine, images):
    batches = [images(size, 16, seed=size) for size in (1, 2, 3, 5)]
    expected = [engine.infer(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(50):
            answers = list(pool.map(engine.infer, batches))
            assert all(map(np.array_equal, answers, expected))


def test_logits_are_float32_with_one_row_per_image(engine, images):
    logits = engine.infer(images(3, 16, seed=13))
    assert logits.shape == (3, 5)
    assert logits.dtype == np.float32


def test_logits_survive_the_next_call(engine, images):
    pixels = images(2, 16, seed=14)
    first = engine.infer(pixels[:1])
    kept = first.copy()
    second = engine.infer(pixels[1:])
    assert np.array_equal(first, kept)
    assert not np.array_equal(first, second)


def test_the_batch_is_left_as_it_is(engine, images):
    pixels = images(2, 16, seed=15)
    kept = pixels.copy()
    engine.infer(pixels)
    assert np.array_equal(pixels, kept)


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ((1, 15, 16, 3), np.uint8),
        ((1, 3, 16, 16), np.uint8),
        ((1, 16, 16, 1), np.uint8),
        ((16, 16, 3), np.uint8),
        ((1, 16, 16, 3), np.float32),
        ((1, 16, 16, 3), np.int8),
    ],
)
def test_a_batch_of_another_shape_or_type_is_refused_and_the_engine_goes_on(
    engine, images, shape, kind
):
    pixels = images(2, 16, seed=16)
    before = engine.infer(pixels)
    with pytest.raises(EngineError, match=engine.name):
        engine.infer(np.zeros(shape, kind))
    assert np.array_equal(engine.infer(pixels), before)


def test_two_engines_of_one_bundle_do_not_disturb_each_other(tiny_bundle, images):
    pixels = images(4, 16, seed=17)
    engines = [open_engine(tiny_bundle, name) for name in CPU_ENGINES for _ in range(2)]
    answers = [engine.infer(pixels[i : i + 1]) for i in range(4) for engine in engines]
    for i in range(4):
        assert all(np.array_equal(a, answers[4 * i]) for a in answers[4 * i : 4 * i + 4])


def test_a_closed_engine_answers_no_more(engine, images):
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.infer(images(1, 16, seed=18))


SIGNAL_AFTER_TWO_ENGINES = """
import signal
from qpde_perception.bundles import find_model, load_bundle
from qpde_perception.engines import open_engine

bundle = load_bundle(find_model(None))
older, younger = (open_engine(bundle, "openvino", threads=2) for _ in range(2))
older.close()
del older
younger.close()
del younger
# A shell's background job inherits that the signal is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_a_signal_is_still_handled_after_the_older_of_two_openvino_engines_has_gone_first():
    """Where two cores end in this order on a processor with AMX, the signal kills the process."""
    done = subprocess.run(
        [sys.executable, "-c", SIGNAL_AFTER_TWO_ENGINES],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert (done.returncode, done.stdout) == (0, "interrupted\n")
