"""The drift watch over a drive: outside of the frames' time, by the drive's clock, repeatable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qpde_perception.bags import open_drive
from qpde_perception.bags.cameras import cameras_of
from qpde_perception.bags.drift import DriveWatch
from qpde_perception.bags.replay import Dropped, Published, replay
from qpde_perception.engines import open_engine
from qpde_perception.monitoring import Accounting, Level
from qpde_perception.perception import Classifier, ExponentialFilter

SAMPLE = Path(__file__).parents[2] / "samples" / "traffic_signs.mcap"


class Changing:
    """The real engine, whose logits change from some item on."""

    def __init__(self, bundle, change=0.0, after=10**9):
        self._engine, self._change, self._after = open_engine(bundle), np.float32(change), after
        self.name, self.version, self.items = self._engine.name, self._engine.version, 0

    def infer(self, batch):
        logits = self._engine.infer(batch)
        logits[max(self._after - self.items, 0) :] += self._change
        self.items += len(batch)
        return logits

    def close(self):
        self._engine.close()


def watch_drive(bundle, engine, **how):
    """Replay the sample; what the frames said, and the watch."""
    watch = DriveWatch(bundle, **how)
    with open_drive(SAMPLE) as drive:
        (camera,) = cameras_of(drive.topics, (), regions=None)
        temporal = ExponentialFilter(time_constant_s=0.3, reset_after_s=1.0)
        classifier = Classifier(bundle, engine, temporal, watch.observe)
        watch.begin(classifier)
        said = []
        for outcome in replay(drive, {camera: classifier}, Accounting(), duration_s=20.0):
            if isinstance(outcome, Published | Dropped):
                watch.after(outcome, classifier)
                said.append(
                    outcome.perception.regions
                    if isinstance(outcome, Published)
                    else outcome.reason.value
                )
        watch.end(classifier)
    engine.close()
    return said, watch


def test_equal_drives_give_equal_courses_and_the_watch_changes_no_result(shipped_bundle):
    plain, unwatched = watch_drive(shipped_bundle, Changing(shipped_bundle), share=0.0)
    first, watched = watch_drive(shipped_bundle, Changing(shipped_bundle), share=0.5)
    second, again = watch_drive(shipped_bundle, Changing(shipped_bundle), share=0.5)
    assert plain == first == second
    assert watched.document() == again.document()
    assert watched.course.evidence == again.course.evidence
    items = sum(len(regions) for regions in plain)
    assert 0.3 * items < watched.sampled == watched.document()["observed"] < 0.7 * items
    assert unwatched.document()["observed"] == 0
    assert watched.course.times_s == pytest.approx(sorted(watched.course.times_s))
    assert watched.course.times_s[-1] == pytest.approx(20.0, abs=1.0)


def test_golden_frames_are_asked_at_both_ends_and_by_the_clock_of_the_drive(shipped_bundle):
    _, watch = watch_drive(shipped_bundle, Changing(shipped_bundle), share=0.0)
    assert watch.document()["golden_checks"] == 2
    _, watch = watch_drive(shipped_bundle, Changing(shipped_bundle), share=0.0, golden_period_s=4.0)
    # A round takes eight frames and is next due four seconds after its end.
    assert watch.document()["golden_checks"] == 4
    assert watch.course.level is Level.OK


def test_an_engine_that_changes_on_the_way_is_named_with_its_time(shipped_bundle):
    engine = Changing(shipped_bundle, change=1e-3, after=60)
    said, watch = watch_drive(shipped_bundle, engine, share=0.0, golden_period_s=5.0)
    (episode,) = watch.course.episodes
    assert (episode.verdict.cause.value, episode.verdict.rule) == ("engine changed", "exact")
    assert 5.0 < episode.begin_s < 20.0
    assert episode.end_s is None
    assert watch.task().level is Level.ERROR
    assert len(said) > 40


def test_an_engine_that_fails_is_named_and_the_replay_goes_on(shipped_bundle):
    engine = Changing(shipped_bundle, change=float("nan"), after=60)
    said, watch = watch_drive(shipped_bundle, engine, share=0.0)
    assert said[-1] == "engine_down"
    (episode,) = (each for each in watch.course.episodes if each.verdict.rule == "exact")
    assert episode.verdict.cause.value == "engine changed"
    assert "not finite" in episode.verdict.message
    # With the first frame that was lost to it, and not only with the last golden frames.
    assert episode.begin_s < watch.course.times_s[-1] - 1.0
