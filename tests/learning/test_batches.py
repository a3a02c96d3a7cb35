"""Batches: what they hold depends on their place alone, whoever prepares them."""

from __future__ import annotations

import numpy as np
import pytest

from qpde_perception.frames import InputSpec
from qpde_perception.learning.batches import BatchFeeder, BatchSource
from qpde_perception.learning.signs import SignRecord, SignSet

COUNT, SIZE, BATCH = 22, 12, 4


@pytest.fixture
def source():
    """Pictures of one grey level each; the level tells which picture it is, and so its class."""
    pixels = np.repeat(np.arange(COUNT, dtype=np.uint8) * 10, SIZE * SIZE * 3)
    records = [SignRecord(i * SIZE * SIZE * 3, SIZE, SIZE, i, "t", "train") for i in range(COUNT)]
    signs = SignSet(pixels, records, tuple(map(str, range(COUNT))))
    return BatchSource(signs, InputSpec(height=8, width=8), size=BATCH, seed=3)


def epoch_of(source, epoch, workers=1):
    with BatchFeeder(source, workers) as feeder:
        return list(feeder.epoch(epoch))


@pytest.mark.parametrize("workers", [1, 3])
def test_processes_hand_over_the_batches_of_the_source_in_order(source, workers):
    found = epoch_of(source, 2, workers)
    assert len(found) == len(source) == COUNT // BATCH
    for step, (pixels, classes) in enumerate(found):
        expected = source.make(2, step)
        assert np.array_equal(pixels, expected[0])
        assert np.array_equal(classes, expected[1])


def test_an_epoch_shows_every_picture_at_most_once_and_the_next_in_another_order(source):
    orders = [[c for _, classes in epoch_of(source, epoch) for c in classes] for epoch in (0, 1)]
    assert all(len(set(order)) == len(order) == 20 for order in orders)
    assert orders[0] != orders[1]


def test_pixels_are_rgb_and_ready_for_the_network(source):
    pixels, classes = source.make(0, 0)
    assert pixels.shape == (BATCH, 8, 8, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags["C_CONTIGUOUS"]
    assert classes.dtype == np.int64


def test_an_error_in_a_process_reaches_the_learner(source):
    broken = BatchSource(
        SignSet(source.signs.pixels[:10], source.signs.records, source.signs.names),
        source.spec,
        size=BATCH,
        seed=3,
    )
    with BatchFeeder(broken, 1) as feeder, pytest.raises(ValueError, match="reshape"):
        list(feeder.epoch(0))


def test_a_feeder_that_is_left_early_ends_its_processes(source):
    with BatchFeeder(source, 2) as feeder:
        next(feeder.epoch(0))
    with pytest.raises(RuntimeError, match="shutdown"):
        next(feeder.epoch(1))


def test_every_batch_and_epoch_has_chances_of_its_own():
    pixels = np.tile(np.arange(SIZE * SIZE * 3, dtype=np.uint8), COUNT)
    records = [SignRecord(i * SIZE * SIZE * 3, SIZE, SIZE, 0, "t", "train") for i in range(COUNT)]
    alike = SignSet(pixels, records, ("one",))
    source = BatchSource(alike, InputSpec(height=8, width=8), size=BATCH, seed=3)
    views = [source.make(epoch, step)[0].tobytes() for epoch in (0, 1) for step in (0, 1)]
    assert len(set(views)) == 4
