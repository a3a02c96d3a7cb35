"""The streams of the benchmark: within the null where they say so, and tracks in their order."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from drift_alarms import (
    adversary,
    by_track,
    independent_at_null,
    largest_evidence,
    markov_modulated,
)

NULLS = np.array([0.05, 0.3, 0.6])


@pytest.mark.parametrize("make", [independent_at_null, markov_modulated, adversary])
def test_no_stream_expects_more_than_its_null_whatever_the_evidence(make) -> None:
    rng = np.random.default_rng(0)
    step = make(NULLS, 500, rng)
    combined = np.where(np.arange(500) < 250, 5.0, 0.01)
    drawn = np.stack([step(combined) for _ in range(800)])

    assert drawn.min() >= 0
    assert drawn.max() <= 1
    for half in (drawn[:, :250], drawn[:, 250:]):
        assert (half.mean((0, 1)) <= NULLS + 0.01).all()


def test_an_adversary_alarms_more_rarely_than_alpha_and_a_broken_null_alarms_always() -> None:
    rng = np.random.default_rng(0)
    largest = largest_evidence(NULLS, 400, 300, adversary(NULLS, 400, rng))
    assert (largest >= 1 / 0.1).mean() <= 0.1
    assert largest.max() > 1

    above = np.minimum(NULLS + 0.3, 1)
    assert largest_evidence(NULLS, 50, 300, independent_at_null(above, 50, rng)).min() >= 1 / 0.001


def test_a_track_is_walked_in_order_and_the_share_that_is_asked_for_is_sampled() -> None:
    tracks = np.repeat(["a", "b", "c"], 30)
    bank = np.arange(90.0)[:, None]
    rng = np.random.default_rng(0)

    whole = by_track(bank, tracks, streams=1, share=1.0, rng=rng)
    seen = np.array([whole(np.ones(1))[0, 0] for _ in range(90)])
    assert (seen % 30 == np.arange(90) % 30).all()

    part = by_track(bank, tracks, streams=200, share=0.1, rng=rng)
    steps = np.stack([part(np.ones(200))[:, 0] for _ in range(100)])
    same = (steps[1:] // 30 == steps[:-1] // 30) & (steps[1:] > steps[:-1])
    # Within a track the next sampled frame is ten on average, less where the track ends before.
    assert 5 < (steps[1:] - steps[:-1])[same].mean() < 10
    assert {int(each) // 30 for each in steps.reshape(-1)} == {0, 1, 2}
