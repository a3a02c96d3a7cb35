"""The shadow: it chooses without a look, keeps nobody waiting, and is silent when it is lost."""

from __future__ import annotations

import os
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpde_perception.bundles import golden_of
from qpde_perception.drift.shadow import Sampling, Shadow
from qpde_perception.engines import EngineError, open_reference
from qpde_perception.frames.statistics import input_statistics

CLASSES, TAPS = 3, 2


class Reference:
    """A float reference whose logits and shares are known, and that can be kept waiting."""

    def __init__(self):
        self.asked, self.policy = [], None
        self.free = threading.Event()
        self.free.set()
        self.fault = None

    def observe(self, batch):
        assert self.free.wait(10.0)
        if hasattr(os, "sched_getscheduler"):
            self.policy = os.sched_getscheduler(0)
        if self.fault is not None:
            raise self.fault
        self.asked.append(int(batch[0, 0, 0, 0]))
        return np.zeros((1, CLASSES), np.float32), np.full((1, TAPS), 0.25, np.float32)


def batch_of(*numbers):
    """Pictures that carry their number."""
    return np.stack([np.full((12, 12, 3), number, np.uint8) for number in numbers])


def logits_of(batch):
    return np.tile(np.arange(CLASSES, dtype=np.float32), (len(batch), 1))


def wait_until(condition):
    end = time.monotonic() + 10.0
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def in_turn(share, batches, seed=0):
    """Show batches to a shadow without a thread; the numbers that it chose, and what it told."""
    reference, told, lost = Reference(), [], []
    shadow = Shadow(reference, lost.append, share=share, seed=seed, background=False)
    shadow.tell = told.append
    for batch in batches:
        shadow(batch, logits_of(batch))
        shadow.catch_up()
    assert lost == []
    assert shadow.sampling == Sampling(len(told), 0)
    return reference.asked, told


@given(st.lists(st.integers(0, 5), max_size=30), st.floats(0.0, 1.0), st.integers(0, 99))
def test_the_choice_depends_on_the_count_of_items_alone(sizes, share, seed):
    numbers = iter(range(sum(sizes)))
    batches = [batch_of(*(next(numbers) for _ in range(size))) for size in sizes if size]
    chosen, _ = in_turn(share, batches, seed)
    inverted = [255 - batch for batch in batches]
    assert [255 - each for each in in_turn(share, inverted, seed)[0]] == chosen
    one_by_one = [batch[index : index + 1] for batch in batches for index in range(len(batch))]
    assert in_turn(share, one_by_one, seed)[0] == chosen
    assert chosen == sorted(set(chosen))


def test_the_share_that_is_asked_for_is_chosen():
    batches = [batch_of(*range(40)) for _ in range(100)]
    assert len(in_turn(0.1, batches)[0]) == pytest.approx(400, abs=60)  # three deviations
    assert len(in_turn(1.0, batches)[0]) == 4000
    assert in_turn(0.0, batches)[0] == []


def test_an_observation_holds_the_answer_against_the_reference(shipped_bundle):
    pixels = golden_of(shipped_bundle).pixels[:3]
    reference = open_reference(shipped_bundle)
    truth, saturation = reference.observe(pixels)
    live = truth.copy()
    live[0, 5] += 3.0
    live[0, 7] -= 4.0
    live[1, (truth[1].argmax() + 1) % 43] = truth[1].max() + 1.0
    told = []
    shadow = Shadow(reference, pytest.fail, share=1.0, background=False)
    shadow.tell = told.append
    shadow(pixels, live)
    shadow.catch_up()
    first, second, third = told
    assert first.squared_distance == pytest.approx(25.0, rel=1e-4)
    assert third.squared_distance == pytest.approx(0.0, abs=1e-6)
    assert [each.disagrees for each in told] == [False, True, False]
    assert [each.class_index for each in told] == live.argmax(1).tolist()
    shares = np.exp(live[1] - live[1].max())
    shares /= shares.sum()
    assert second.entropy == pytest.approx(-(shares * np.log(shares)).sum(), rel=1e-5)
    for each, taps, picture in zip(told, saturation, pixels, strict=True):
        assert each.saturation == pytest.approx(taps)
        assert each.statistics == tuple(input_statistics(picture[None])[0])


def test_a_slow_reference_keeps_nobody_waiting_and_what_it_misses_is_counted():
    reference, told = Reference(), []
    reference.free.clear()
    shadow = Shadow(reference, pytest.fail, share=1.0)
    shadow.tell = told.append
    began_s = time.monotonic()
    for number in range(100):
        batch = batch_of(number)
        shadow(batch, logits_of(batch))
        batch[:] = 255  # whoever made it may use it again
    assert time.monotonic() - began_s < 1.0
    reference.free.set()
    sampling = shadow.sampling
    wait_until(lambda: len(told) == sampling.sampled - sampling.skipped)
    assert (sampling.sampled, 8 <= len(told) <= 10) == (100, True)
    assert reference.asked == list(range(8)) + reference.asked[8:]
    shadow.close()


def test_what_waits_is_told_to_whoever_was_told_when_it_was_chosen():
    reference = Reference()
    reference.free.clear()
    shadow = Shadow(reference, pytest.fail, share=1.0)
    before, after = [], []
    for told in (before, after):
        shadow.tell = told.append
        shadow(batch_of(1, 2), logits_of(batch_of(1, 2)))
    reference.free.set()
    wait_until(lambda: len(before) + len(after) == 4)
    assert (len(before), len(after)) == (2, 2)
    shadow.close()


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize(
    "fault", [EngineError("out of\n memory"), RuntimeError("out of memory"), None]
)
def test_a_reference_that_fails_is_told_once_and_not_asked_again(background, fault):
    reference, told, lost = Reference(), [], []
    reference.fault = fault
    shadow = Shadow(reference, lost.append, share=1.0, background=background)
    shadow.tell = told.append
    if fault is None:
        reference.observe = lambda _: (np.full((1, CLASSES), np.nan), np.zeros((1, TAPS)))
    for number in range(5):
        shadow(batch_of(number), logits_of(batch_of(number)))
        shadow.catch_up()
    wait_until(lambda: lost)
    expected = "out of memory" if fault else f"its logits, of shape (1, {CLASSES}), are no answer"
    shadow.close()
    assert (lost, told) == ([expected], [])


def test_nothing_is_told_and_no_thread_is_left_once_it_is_closed():
    before = set(threading.enumerate())
    reference, told = Reference(), []
    shadow = Shadow(reference, pytest.fail, share=1.0)
    shadow.tell = told.append
    reference.free.clear()
    for number in range(5):
        shadow(batch_of(number), logits_of(batch_of(number)))
    assert len(set(threading.enumerate()) - before) == 1
    timer = threading.Timer(0.05, reference.free.set)
    timer.start()
    shadow.close()
    assert set(threading.enumerate()) - before <= {timer}
    timer.join()
    assert told == []


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="this system has no SCHED_BATCH")
def test_the_reference_gives_way_and_is_never_starved_while_it_may_hold_a_lock():
    reference, told = Reference(), []
    shadow = Shadow(reference, pytest.fail, share=1.0)
    shadow.tell = told.append
    shadow(batch_of(1), logits_of(batch_of(1)))
    wait_until(lambda: told)
    shadow.close()
    assert reference.policy == os.SCHED_BATCH
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
