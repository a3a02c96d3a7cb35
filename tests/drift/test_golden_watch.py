"""Golden frames of the live engine: a few at a time, on time, and bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from qpde_perception.bundles import golden_of
from qpde_perception.drift.golden_watch import AT_A_TIME, GoldenWatch
from qpde_perception.engines import EngineError


class Engine:
    """An engine that answers golden frames as the integers do, and can be disturbed."""

    def __init__(self, bundle):
        golden = golden_of(bundle)
        self._pixels, self._logits, self.noise = golden.pixels, golden.logits, golden.noise
        self.sizes, self.off = [], 0.0

    def infer(self, batch):
        self.sizes.append(len(batch))
        found = [
            next(n for n, one in enumerate(self._pixels) if np.array_equal(one, each))
            for each in batch
        ]
        return (self._logits[found] + self.off).astype(np.float32)


@pytest.fixture
def engine(shipped_bundle):
    return Engine(shipped_bundle)


def round_of(watch, engine, now_s, **how):
    """Step until a round ends; its answer and how many steps it took."""
    for steps in range(1, 100):
        answer = watch.step(engine.infer, now_s, **how)
        if answer is not None:
            return answer, steps
        assert watch.under_way
    return pytest.fail("no end")


def test_the_first_round_begins_at_once_and_delays_no_frame_by_more_than_a_few(
    shipped_bundle, engine
):
    watch = GoldenWatch(shipped_bundle, period_s=10.0)
    answer, steps = round_of(watch, engine, 0.0)
    assert steps == len(golden_of(shipped_bundle).pixels) / AT_A_TIME
    assert set(engine.sizes) == {AT_A_TIME}
    assert (answer.identical, answer.rms_over_noise, answer.within_budget) == (True, 0.0, True)
    assert not watch.under_way


def test_rounds_come_by_the_period_or_when_wanted_and_with_period_0_only_then(
    shipped_bundle, engine
):
    watch = GoldenWatch(shipped_bundle, period_s=10.0)
    round_of(watch, engine, 5.0)
    asked = len(engine.sizes)
    assert watch.step(engine.infer, 14.9) is None
    assert len(engine.sizes) == asked  # not even begun
    assert round_of(watch, engine, 15.0)[0].identical
    assert round_of(watch, engine, 15.1, wanted=True)[0].identical
    once = GoldenWatch(shipped_bundle, period_s=0.0)
    round_of(once, engine, 5.0)
    asked = len(engine.sizes)
    assert once.step(engine.infer, 1e9) is None
    assert len(engine.sizes) == asked
    assert round_of(once, engine, 1e9, wanted=True)[0].identical


def test_the_least_change_since_the_first_answer_is_seen_and_a_large_one_is_out_of_budget(
    shipped_bundle, engine
):
    watch = GoldenWatch(shipped_bundle, period_s=0.0)
    engine.off = 1e-3  # an engine of another rounding: its first answer is its own
    assert round_of(watch, engine, 0.0)[0].identical
    engine.off = 0.0
    changed, _ = round_of(watch, engine, 1.0, wanted=True)
    assert (changed.identical, changed.within_budget) == (False, True)
    engine.off = engine.noise
    strayed, _ = round_of(watch, engine, 2.0, wanted=True)
    assert strayed.rms_over_noise == pytest.approx(1.0, rel=1e-3)
    assert not strayed.within_budget
    engine.off = 1e-3
    assert round_of(watch, engine, 3.0, wanted=True)[0].identical


def test_an_engine_that_changes_within_a_round_is_seen(shipped_bundle, engine):
    watch = GoldenWatch(shipped_bundle, period_s=0.0)
    round_of(watch, engine, 0.0)
    watch.begin()
    for _ in range(3):
        assert watch.step(engine.infer, 1.0) is None
    engine.off = 1e-3
    assert not round_of(watch, engine, 1.0)[0].identical


def test_a_round_that_is_begun_anew_asks_every_frame_again(shipped_bundle, engine):
    watch = GoldenWatch(shipped_bundle, period_s=0.0)
    watch.step(engine.infer, 0.0)
    watch.begin()
    _, steps = round_of(watch, engine, 0.0)
    assert steps == len(golden_of(shipped_bundle).pixels) / AT_A_TIME


def test_what_the_engine_raises_is_passed_on(shipped_bundle):
    def fail(_batch):
        msg = "it is gone"
        raise EngineError(msg)

    with pytest.raises(EngineError, match="it is gone"):
        GoldenWatch(shipped_bundle, period_s=0.0).step(fail, 0.0)
