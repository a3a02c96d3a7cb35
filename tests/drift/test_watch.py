"""The drift watch: each engine judged for itself, and nothing silently left unwatched."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from qpde_perception.bundles import CALIBRATION, CERTIFICATE, BundleError, Cause, golden_of
from qpde_perception.drift import DriftPolicy, DriftWatch, block_of
from qpde_perception.engines import REFERENCE, EngineError, open_engine
from qpde_perception.engines.reference import open_reference
from qpde_perception.engines.registry import UNROUNDED_GRAPH
from qpde_perception.monitoring import Level
from qpde_perception.perception import Classifier, NoFilter

EVERYTHING = DriftPolicy(share=1.0, golden_period_s=120.0, alpha=0.001)


class Changeable:
    """A real engine with something added to its logits."""

    def __init__(self, bundle, name="onnxruntime"):
        self._engine = open_engine(bundle, "onnxruntime")
        self.name, self.version, self.off = name, self._engine.version, np.float32(0.0)

    def infer(self, batch):
        return self._engine.infer(batch) + self.off

    def close(self):
        self._engine.close()


@pytest.fixture
def watched(shipped_bundle):
    """Make watches in the foreground, each with a classifier; the clock is a list."""
    made = []

    def make(policy=EVERYTHING, bundle=shipped_bundle, engine=None):
        now_s = [0.0]
        watch = DriftWatch(bundle, policy, background=False, clock=lambda: now_s[0])
        engine = engine or Changeable(shipped_bundle)
        made.append((watch, engine))
        return watch, Classifier(shipped_bundle, engine, NoFilter(), watch.observe), now_s

    yield make
    for watch, engine in made:
        watch.close()
        engine.close()


def rounds(watch, classifier):
    while watch.between(classifier):
        pass


def show(watch, classifier, pixels):
    for each in pixels:
        watch.observe(each[None], classifier.infer(each[None]))
        watch.between(classifier)


def without(bundle, *names):
    kept = {name: content for name, content in bundle.contents.items() if name not in names}
    return replace(bundle, contents=kept)


def test_a_healthy_engine_gives_numbers_and_no_verdict(watched, shipped_bundle):
    watch, classifier, _ = watched()
    rounds(watch, classifier)
    show(watch, classifier, golden_of(shipped_bundle).pixels)
    report = watch.report
    assert (report.level, report.unwatched, watch.worst) == (Level.OK, (), None)
    assert (report.observed, report.golden_checks, report.golden_identical) == (16, 1, True)
    assert watch.sampling.sampled == 16
    assert 0.1 < report.noise_ratio < 10.0


def test_golden_frames_come_by_the_clock_that_is_given(watched):
    watch, classifier, now_s = watched()
    rounds(watch, classifier)
    now_s[0] = 119.9
    assert not watch.between(classifier)
    now_s[0] = 120.0
    assert watch.between(classifier)
    rounds(watch, classifier)
    assert watch.report.golden_checks == 2


def test_an_engine_that_changes_is_proved_and_the_next_one_starts_without_suspicion(
    watched, shipped_bundle
):
    watch, classifier, _ = watched()
    rounds(watch, classifier)
    classifier.engine.off = np.float32(1e-3)
    watch.ask_golden()
    rounds(watch, classifier)
    assert (watch.worst.cause, watch.worst.rule) == (Cause.ENGINE_CHANGED, "exact")
    told = watch.told
    classifier.engine = Changeable(shipped_bundle, "another")
    rounds(watch, classifier)
    assert (watch.worst, watch.engine_name) == (None, "another")
    assert (watch.report.golden_checks, watch.report.golden_identical) == (1, True)
    assert watch.told > told
    classifier.engine.close()


def test_what_an_engine_answered_is_not_held_against_the_one_after_it(shipped_bundle, monkeypatch):
    free = threading.Event()
    reference = open_reference(shipped_bundle)
    observe = reference.observe

    def slow(batch):
        assert free.wait(10.0)
        return observe(batch)

    reference.observe = slow
    monkeypatch.setattr("qpde_perception.drift.watch.open_reference", lambda _bundle: reference)
    watch = DriftWatch(shipped_bundle, EVERYTHING)
    classifier = Classifier(shipped_bundle, Changeable(shipped_bundle), NoFilter())
    pixels = golden_of(shipped_bundle).pixels[:4]
    rounds(watch, classifier)
    # Further than any engine can be: a proof.
    watch.observe(pixels, classifier.infer(pixels) + np.float32(1e18))
    classifier.engine = Changeable(shipped_bundle, "another")
    rounds(watch, classifier)
    watch.observe(pixels, classifier.infer(pixels))
    free.set()
    for _ in range(1000):
        if watch.report.observed == 4:
            break
        threading.Event().wait(0.01)
    assert (watch.report.observed, watch.worst) == (4, None)
    watch.close()


def test_renewed_it_forgets_suspicion_but_not_the_first_golden_answer(watched):
    watch, classifier, _ = watched()
    rounds(watch, classifier)
    watch.fail("it coughed")
    assert watch.worst.rule == "exact"
    watch.renew()
    assert watch.worst is None
    rounds(watch, classifier)
    assert watch.report.golden_identical
    classifier.engine.off = np.float32(1e-3)
    watch.renew()
    rounds(watch, classifier)
    assert watch.report.golden_identical is False


def test_logits_that_are_not_finite_fail_the_engine_and_are_named(watched):
    watch, classifier, _ = watched()
    classifier.engine.off = np.float32("nan")
    with pytest.raises(EngineError, match="not finite") as fault:
        rounds(watch, classifier)
    watch.fail(str(fault.value))
    assert watch.worst.cause is Cause.ENGINE_CHANGED
    assert "not finite" in watch.worst.message


def test_the_reference_that_serves_is_not_asked_golden_frames(watched, shipped_bundle):
    watch, classifier, _ = watched(engine=open_reference(shipped_bundle))
    assert not watch.between(classifier)
    show(watch, classifier, golden_of(shipped_bundle).pixels[:2])
    report = watch.report
    assert (watch.engine_name, report.golden_checks, report.observed) == (REFERENCE, 0, 2)
    assert report.unwatched == ("golden frames: the float reference serves, which does not round",)


def test_a_model_without_parts_says_what_is_not_watched(watched, shipped_bundle):
    watch, classifier, _ = watched(bundle=without(shipped_bundle, CALIBRATION, CERTIFICATE))
    rounds(watch, classifier)
    show(watch, classifier, golden_of(shipped_bundle).pixels[:2])
    assert [each.split(":")[0] for each in watch.report.unwatched] == [
        "noise, disagreement, saturation and inputs",
        "global bound",
    ]
    assert (watch.report.observed, watch.worst) == (2, None)
    watch, classifier, _ = watched(replace(EVERYTHING, share=0.0))
    rounds(watch, classifier)
    show(watch, classifier, golden_of(shipped_bundle).pixels[:2])
    assert watch.report.unwatched == ("everything but golden frames: no frame is sampled",)
    assert (watch.report.observed, watch.report.golden_checks) == (0, 1)


@pytest.mark.parametrize("graph", [None, b"no graph"])
def test_a_reference_that_cannot_load_is_a_warning_for_every_engine(watched, shipped_bundle, graph):
    bundle = without(shipped_bundle, UNROUNDED_GRAPH)
    if graph is not None:
        bundle.contents[UNROUNDED_GRAPH] = graph
    watch, classifier, _ = watched(bundle=bundle)
    rounds(watch, classifier)
    for _ in range(2):
        assert (watch.worst.cause, watch.worst.level) == (Cause.REFERENCE_UNAVAILABLE, Level.WARN)
        assert watch.report.golden_identical
        watch.renew()
        rounds(watch, classifier)


def test_an_observation_that_does_not_fit_the_calibration_loses_the_reference(
    watched, shipped_bundle
):
    class Tapless:
        def observe(self, _batch):
            return np.zeros((1, 43), np.float32), np.empty((1, 0), np.float32)

    watch, classifier, _ = watched()
    watch._shadow._reference = Tapless()
    show(watch, classifier, golden_of(shipped_bundle).pixels[:2])
    assert watch.worst.cause is Cause.REFERENCE_UNAVAILABLE
    assert "calibrate the model again" in watch.worst.message


def test_a_damaged_calibration_or_certificate_is_refused_by_name(shipped_bundle):
    for name in (CALIBRATION, CERTIFICATE):
        damaged = replace(shipped_bundle, contents={**shipped_bundle.contents, name: b"{}"})
        with pytest.raises(BundleError, match=name):
            DriftWatch(damaged, EVERYTHING)


@pytest.mark.parametrize(("share", "block"), [(0.0, 1), (0.01, 1), (0.1, 4), (1.0, 32)])
def test_the_more_is_sampled_the_more_items_are_one_for_the_evidence(share, block):
    assert block_of(share) == block


def test_of_everything_sampled_the_evidence_moves_once_a_block(watched, shipped_bundle):
    watch, classifier, _ = watched()
    rounds(watch, classifier)
    pixels = golden_of(shipped_bundle).pixels
    at_the_start = watch.report.combined_evidence
    show(watch, classifier, [pixels[0]] * 31)
    assert (watch.report.observed, watch.report.combined_evidence) == (31, at_the_start)
    show(watch, classifier, pixels[:1])
    assert watch.report.combined_evidence != at_the_start
