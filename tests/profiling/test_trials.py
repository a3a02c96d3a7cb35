"""Figures of trials through ROS, from stamps alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpde_perception.profiling import ProfilingError
from qpde_perception.profiling.sampling import Samples
from qpde_perception.profiling.trials import (
    BASIC,
    LATENCY,
    NODE,
    RESOURCE,
    Trial,
    basic_metrics,
    concluded,
    latency_metrics,
    resource_metrics,
)

START_NS = 1_780_000_000_123_456_789
MS = 1_000_000


def trial(sent_ms, latencies_ms, **more):
    """A trial; a latency of None is a frame that was lost."""
    sent = [START_NS + round(at * MS) for at in sent_ms]
    answers = {
        stamp: stamp + round(late * MS)
        for stamp, late in zip(sent, latencies_ms, strict=True)
        if late is not None
    }
    return Trial(100.0, tuple(sent), answers, **more)


def basic(of):
    return {name.removeprefix(BASIC): value for name, value in basic_metrics(of).items()}


def test_the_figures_of_a_trial_reckoned_by_hand():
    found = basic(trial([0, 10, 20, 30, 40], [5, 6, None, 9, 5]))
    assert found == pytest.approx(
        {
            "NUM_FRAMES_SENT": 5,
            "NUM_MISSED_FRAMES": 1,
            "MEAN_PLAYBACK_FRAME_RATE": 5 / 0.040,
            "MEAN_FRAME_RATE": 4 / 0.040,  # answers at 5, 16, 39 and 45 ms
            "RECEIVED_DURATION": 40,
            "FIRST_SENT_RECEIVED_LATENCY": 5,
            "LAST_SENT_RECEIVED_LATENCY": 5,
            "FIRST_INPUT_LATENCY": 5,
            "LAST_INPUT_LATENCY": 5,
            "MAX_LATENCY": 9,
            "MIN_LATENCY": 5,
            "MEAN_LATENCY": 6.25,
            "MAX_JITTER": 17,  # 11, 23, 6 ms between answers
            "MIN_JITTER": 12,
            "MEAN_JITTER": 14.5,
            "STD_DEV_JITTER": 2.5,
        }
    )


def test_a_node_that_is_not_there_misses_every_frame():
    silent = trial(range(20), [None] * 20)
    assert basic(silent) == pytest.approx(
        {"NUM_FRAMES_SENT": 20, "NUM_MISSED_FRAMES": 20, "MEAN_PLAYBACK_FRAME_RATE": 20 / 0.019}
    )
    assert LATENCY + "P50_LATENCY" not in latency_metrics([silent])


def test_answers_to_what_was_not_sent_in_this_trial_do_not_count():
    one = trial([0, 10], [5, None])
    late = Trial(100.0, one.sent_ns, one.published_ns | {START_NS - 77: START_NS + 1})
    assert basic(late) == basic(one)
    assert late.missed == 1


@given(
    st.lists(
        st.tuples(st.floats(0.1, 50.0), st.none() | st.floats(0.0, 500.0)), min_size=2, max_size=60
    )
)
def test_every_frame_is_answered_or_missed_and_latencies_keep_their_order(frames):
    gaps, latencies = zip(*frames, strict=True)
    one = trial(np.cumsum(gaps), latencies)
    found = basic(one)
    answered = [late for late in latencies if late is not None]
    assert found["NUM_MISSED_FRAMES"] + len(answered) == found["NUM_FRAMES_SENT"] == len(frames)
    if answered:
        assert found["MIN_LATENCY"] <= found["MEAN_LATENCY"] + 1e-6
        assert found["MEAN_LATENCY"] <= found["MAX_LATENCY"] + 1e-6
        assert found["MAX_LATENCY"] == pytest.approx(max(answered), abs=1e-5)
        quantiles = [latency_metrics([one])[f"{LATENCY}{p}_LATENCY"] for p in ("P50", "P99_9")]
        assert quantiles[0] <= quantiles[1] <= found["MAX_LATENCY"] + 1e-5


@given(st.floats(1.0, 500.0), st.integers(3, 50), st.floats(0.0, 100.0))
def test_a_steady_node_has_no_jitter_and_the_rate_of_its_frames(rate_hz, count, latency_ms):
    found = basic(trial(np.arange(count) * 1e3 / rate_hz, [latency_ms] * count))
    assert found["MAX_JITTER"] == pytest.approx(0.0, abs=1e-5)
    assert found["MEAN_FRAME_RATE"] == pytest.approx(found["MEAN_PLAYBACK_FRAME_RATE"], rel=1e-6)
    assert found["MEAN_FRAME_RATE"] == pytest.approx(rate_hz * count / (count - 1), rel=1e-3)


def test_a_clock_that_was_set_back_is_said_and_not_averaged():
    with pytest.raises(ProfilingError, match="clock was set back"):
        basic(trial([0, 10], [5, -3]))


def test_trials_are_concluded_without_their_best_and_worst():
    trials = [
        {"A.MEAN_X": x, "A.MAX_X": x, "A.MIN_X": x, "A.MEAN_JITTER": x} for x in (1, 2, 3, 5, 9)
    ]
    assert concluded(trials) == {"A.MEAN_X": 10 / 3, "A.MAX_X": 5, "A.MIN_X": 2, "A.MEAN_JITTER": 5}
    assert concluded(trials[:2]) == {
        "A.MEAN_X": 1.5,
        "A.MAX_X": 2,
        "A.MIN_X": 1,
        "A.MEAN_JITTER": 2,
    }
    assert concluded(trials[:1]) == trials[0]
    assert "A.MAX_X" not in concluded([*trials, {"A.MEAN_X": 1}])


@given(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=9))
def test_one_wild_trial_does_not_move_a_concluded_figure_beyond_the_others(values):
    (found,) = concluded([{"A.MEAN_X": value} for value in values]).values()
    inner = sorted(values)[1:-1]
    assert min(inner) - 1e-6 <= found <= max(inner) + 1e-6


def test_percentiles_and_processor_time_are_over_the_frames_of_all_trials():
    first = trial([0, 10, 20], [1, 1, 1], cpu_s=0.010, memory_mib=50)
    second = trial([0, 10], [9, None], cpu_s=0.006, memory_mib=70)
    found = latency_metrics([first, second])
    assert found[f"{LATENCY}P50_LATENCY"] == pytest.approx(1, rel=0.01)
    assert found[f"{LATENCY}P90_LATENCY"] == pytest.approx(9, rel=0.01)
    assert found[f"{NODE}CPU_MS_PER_FRAME"] == pytest.approx(4)
    assert found[f"{NODE}MAX_MEMORY_MIB"] == 70


def test_resources_are_those_read_during_the_trial():
    def reading(load, used, events):
        return {
            "load_percent.cpu0": load,
            "load_percent.cpu1": load + 20,
            "memory_mib.ram": used,
            "memory_mib.ram_total": 1000.0,
            "events.oc1": events,
        }

    samples = Samples([(t, reading(10 * t, 100 * t, t)) for t in (1.0, 2.0, 3.0, 4.0)])
    found = resource_metrics(samples, trial([0, 1], [1, 1], begin_s=1.5, end_s=3.5))
    told = {name.removeprefix(RESOURCE): value for name, value in found.items()}
    assert told == pytest.approx(
        {
            "BASELINE_OVERALL_CPU_UTILIZATION": 30,
            "MAX_OVERALL_CPU_UTILIZATION": 40,
            "MIN_OVERALL_CPU_UTILIZATION": 30,
            "MEAN_OVERALL_CPU_UTILIZATION": 35,
            "STDDEV_OVERALL_CPU_UTILIZATION": 5,
            "BASELINE_HOST_MEMORY_UTILIZATION": 20,
            "MAX_HOST_MEMORY_UTILIZATION": 30,
            "MIN_HOST_MEMORY_UTILIZATION": 20,
            "MEAN_HOST_MEMORY_UTILIZATION": 25,
            "STDDEV_HOST_MEMORY_UTILIZATION": 5,
            "OC_EVENT_COUNT": 1,
        }
    )
    assert resource_metrics(Samples(), trial([0, 1], [1, 1])) == {}
