"""Verdicts on evidence: what is off, and who is blamed for it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from drift_feed import (
    BLUR,
    FOG,
    STRANGE,
    SUBTLE,
    SWAPPED,
    asked,
    feed,
    monitor_of,
    said,
    until_raised,
)

from qpde_perception.bundles import Cause
from qpde_perception.monitoring import DriftMonitor, Level


@pytest.mark.parametrize(
    ("kinds", "rule", "limit"),
    [({"noise": 4}, "noise", 40), ({"disagreement": 0.5}, "disagreement", 40)],
)
def test_noise_and_disagreement_blame_the_engine_while_inputs_are_normal(
    calibration, drive, kinds, rule, limit
) -> None:
    monitor = monitor_of(calibration)
    feed(monitor, drive, 500)

    assert until_raised(monitor, drive, **kinds) < limit
    assert said(monitor) == [(Cause.ENGINE_CHANGED, rule)]
    assert monitor.report.level == Level.ERROR
    assert monitor.report.combined_evidence >= monitor.report.alarm_at


def test_the_engine_is_not_blamed_before_inputs_could_have_shown_that_they_changed(
    calibration, drive
) -> None:
    monitor = monitor_of(calibration)
    feed(monitor, drive, 500)
    for _ in range(13):
        monitor.observe(drive.item(noise=50, disagreement=1.0))

    assert monitor.report.combined_evidence >= monitor.report.alarm_at
    assert said(monitor) == []
    assert until_raised(monitor, drive, noise=50, disagreement=1.0) < 10


def test_a_scale_wrong_by_a_little_is_found_in_time(calibration, drive) -> None:
    monitor = monitor_of(calibration)

    assert until_raised(monitor, drive, noise=1.3, limit=1000) > 30
    assert said(monitor) == [(Cause.ENGINE_CHANGED, "noise")]


@pytest.mark.parametrize(
    ("shift", "expected"),
    [
        (FOG, (Cause.WORLD_CHANGED, "fog", Level.WARN)),
        (BLUR, (Cause.CAMERA_DEGRADED, "blur", Level.WARN)),
        (SWAPPED, (Cause.PREPROCESSING_WRONG, "channels swapped", Level.ERROR)),
        (STRANGE, (Cause.WORLD_CHANGED, "", Level.WARN)),
    ],
)
def test_inputs_that_are_off_explain_what_the_engine_does_with_them(
    calibration, drive, shift, expected
) -> None:
    monitor = monitor_of(calibration)
    feed(monitor, drive, 500)
    until_raised(monitor, drive, shift=shift, noise=3, disagreement=0.3)

    for _ in range(100):
        (found,) = monitor.report.causes
        assert (found.cause, found.fault, found.level) == expected
        assert found.rule == "inputs"
        assert monitor.report.level == found.level
        monitor.observe(drive.item(shift=shift, noise=3, disagreement=0.3))


def test_the_fault_is_named_anew_when_another_takes_its_place(calibration, drive) -> None:
    monitor = monitor_of(calibration)
    until_raised(monitor, drive, shift=FOG)
    feed(monitor, drive, 150, shift=BLUR)

    assert [each.fault for each in monitor.report.causes] == ["blur"]


def test_a_fault_is_judged_by_the_frames_since_it_began_and_again_as_it_grows(
    calibration, drive
) -> None:
    heavy = (0.0, 0.0, -2.5, 0.0, -2.0)
    at_once, growing = monitor_of(calibration), monitor_of(calibration)
    feed(at_once, drive, 500)
    until_raised(at_once, drive, shift=heavy)
    assert "blur of severity 4" in at_once.report.causes[0].message

    feed(growing, drive, 300, shift=BLUR)
    assert "blur of severity 2" in growing.report.causes[0].message
    feed(growing, drive, 80, shift=heavy)
    assert "blur of severity 4" in growing.report.causes[0].message


def test_where_the_distance_is_first_and_golden_frames_are_fine_the_inputs_give_the_cause(
    calibration, drive
) -> None:
    """A distance can have its evidence before the inputs that made it have theirs."""
    monitor = monitor_of(calibration)
    feed(monitor, drive, 500)
    first = None
    while first is None:
        monitor.observe(drive.item(shift=SWAPPED, noise=5))
        if monitor.wants_golden:
            asked(monitor)
        first = next(iter(monitor.report.causes), None)

    assert (first.cause, first.rule) == (Cause.PREPROCESSING_WRONG, "noise")
    assert first.fault == "channels swapped"


def test_a_distance_that_no_inputs_explain_is_the_engines_whatever_golden_frames_say(
    calibration, drive
) -> None:
    """An engine that was wrong from the start answers golden frames as at first."""
    monitor = monitor_of(calibration)
    asked(monitor)
    for _ in range(60):
        monitor.observe(drive.item(shift=FOG, noise=1000))
        if monitor.wants_golden:
            asked(monitor)

    assert (Cause.ENGINE_CHANGED, "noise") in said(monitor)
    assert (Cause.WORLD_CHANGED, "inputs") in said(monitor)
    assert monitor.report.level == Level.ERROR


def test_items_of_a_track_that_are_alike_are_one_for_the_evidence(calibration, drive) -> None:
    """Every track has its own brightness; over tracks it is that of the calibration."""
    each, together = (
        monitor_of(calibration),
        DriftMonitor(calibration, global_bound=None, alpha=0.01, block=30),
    )
    rng, alarmed = np.random.default_rng(3), False
    for _ in range(300):
        own = float(rng.standard_normal())
        for _ in range(30):
            item = drive.item()
            item = replace(item, statistics=(own, *item.statistics[1:]))
            each.observe(item)
            alarmed |= bool(each.report.causes)
            together.observe(item)
            if together.report.causes:
                pytest.fail("a track that is not the mean of all is no change")
    assert alarmed
    assert together.report.observed == 9_000

    for _ in range(40 * 30):
        together.observe(drive.item(shift=FOG))
    assert said(together) == [(Cause.WORLD_CHANGED, "inputs")]


def test_a_changed_world_is_at_no_time_taken_for_a_changed_engine(calibration, drive) -> None:
    """The distance rises at once and much, the inputs slowly."""
    monitor = monitor_of(calibration)
    asked(monitor)
    feed(monitor, drive, 500)
    seen = set()
    for _ in range(500):
        monitor.observe(drive.item(shift=SUBTLE, noise=4, disagreement=0.4))
        if monitor.wants_golden:
            asked(monitor)
        seen |= set(said(monitor))

    assert {cause for cause, _ in seen} == {Cause.WORLD_CHANGED}
    assert (Cause.WORLD_CHANGED, "noise") in seen
    assert said(monitor) == [(Cause.WORLD_CHANGED, "inputs")]


def test_golden_frames_do_not_speak_for_an_engine_that_was_off_from_the_start(
    calibration, drive
) -> None:
    monitor = monitor_of(calibration)
    asked(monitor)
    for _ in range(200):
        monitor.observe(drive.item(noise=3))
        if monitor.wants_golden:
            asked(monitor)

    assert said(monitor) == [(Cause.ENGINE_CHANGED, "noise")]


def test_golden_frames_and_inputs_under_suspicion_speak_for_an_engine_that_is_new(
    calibration, drive
) -> None:
    monitor = monitor_of(calibration)
    seen = set()
    for _ in range(80):
        monitor.observe(drive.item(noise=2.5, shift=(0.0, 1.6, 0.0, 0.0, 0.0)))
        if monitor.wants_golden:
            asked(monitor)
        seen |= set(said(monitor))

    assert seen == {(Cause.WORLD_CHANGED, "noise"), (Cause.WORLD_CHANGED, "inputs")}


@pytest.mark.parametrize("answer", [{"identical": False}, {"within_budget": False}])
def test_golden_frames_that_are_answered_otherwise_do_not_speak_for_the_engine(
    calibration, drive, answer
) -> None:
    monitor = monitor_of(calibration)
    feed(monitor, drive, 500)
    feed(monitor, drive, 60, noise=4)
    asked(monitor, **answer)
    asked(monitor, **answer)
    feed(monitor, drive, 20, noise=4)

    assert said(monitor) == [(Cause.ENGINE_CHANGED, "exact"), (Cause.ENGINE_CHANGED, "noise")]


def test_an_engine_that_was_blamed_first_stays_so_when_fog_comes_later(calibration, drive) -> None:
    monitor = monitor_of(calibration)
    feed(monitor, drive, 300)
    feed(monitor, drive, 200, noise=4)
    assert said(monitor) == [(Cause.ENGINE_CHANGED, "noise")]
    feed(monitor, drive, 200, noise=4, shift=FOG)

    assert said(monitor) == [(Cause.ENGINE_CHANGED, "noise"), (Cause.WORLD_CHANGED, "inputs")]


def test_inputs_that_were_off_before_the_engine_was_blamed_take_the_blame(
    calibration, drive
) -> None:
    monitor = monitor_of(calibration)
    feed(monitor, drive, 300)
    until_raised(monitor, drive, shift=SUBTLE, noise=4)
    assert said(monitor) == [(Cause.ENGINE_CHANGED, "noise")]  # nobody could ask golden frames
    feed(monitor, drive, 500, shift=SUBTLE, noise=4)

    assert said(monitor) == [(Cause.WORLD_CHANGED, "inputs")]


def test_saturation_alone_means_the_world(calibration, drive) -> None:
    monitor = monitor_of(calibration)
    feed(monitor, drive, 300)
    until_raised(monitor, drive, saturation=0.2, noise=3)
    feed(monitor, drive, 50, saturation=0.2, noise=3)

    assert said(monitor) == [(Cause.WORLD_CHANGED, "saturation")]
    assert "saturation of stem" in monitor.report.causes[0].message


def test_golden_frames_are_wanted_before_the_verdict_once_and_again_with_it(
    calibration, drive
) -> None:
    monitor = monitor_of(calibration)
    asked(monitor)
    feed(monitor, drive, 300)
    assert not monitor.wants_golden
    moments = []
    for moment in range(60):
        monitor.observe(drive.item(disagreement=0.4))
        if monitor.wants_golden:
            moments.append((moment, bool(monitor.report.causes)))
            asked(monitor)
            assert not monitor.wants_golden

    assert len(moments) == 2
    assert not moments[0][1]


def test_golden_frames_are_wanted_anew_for_a_suspicion_that_comes_back(calibration, drive) -> None:
    monitor = monitor_of(calibration)
    for _ in range(2):
        feed(monitor, drive, 300)
        assert not monitor.wants_golden
        for _ in range(30):
            if not monitor.wants_golden:
                monitor.observe(drive.item(noise=5))
        assert monitor.wants_golden
        assert not monitor.report.causes
        asked(monitor)


def test_a_verdict_stays_while_evidence_falls_and_goes_when_it_is_gone(calibration, drive) -> None:
    monitor = monitor_of(calibration)
    feed(monitor, drive, 300)
    until_raised(monitor, drive, noise=4)
    feed(monitor, drive, 30, noise=4)
    seen = []
    for _ in range(400):
        monitor.observe(drive.item())
        seen.append((bool(monitor.report.causes), monitor.report.evidence["noise"]))

    gone = [raised for raised, _ in seen].index(False)
    assert 5 < gone < 200
    assert min(log for _, log in seen[:gone]) < monitor.report.alarm_at
    assert all(log >= 0 for _, log in seen[:gone])
    assert not any(raised for raised, _ in seen[gone:])
    assert monitor._suspicion._evidence._frames[0] == 400 - gone - 1  # begun anew
    assert until_raised(monitor, drive, noise=4) < 40


def test_the_average_decides_and_names_the_one_with_the_most_evidence(calibration, drive) -> None:
    monitor = monitor_of(calibration)
    needed = math.log10(14 / 0.01)  # what one of fourteen needs to carry it alone
    still = {"statistics": (math.nan,) * 5, "disagrees": False, "squared_distance": 2.2}
    while monitor.report.evidence["saturation of stem"] < needed - 0.3:
        monitor.observe(drive.broken(**still, saturation=(0.03, 0.015)))
    while not monitor.report.causes:
        assert monitor.report.combined_evidence < 2
        monitor.observe(drive.broken(**still, saturation=(0.015, 0.03)))

    report = monitor.report
    assert 2 <= report.combined_evidence < 2.3
    assert max(report.evidence.values()) < needed
    values = [10**log for log in report.evidence.values()]
    assert report.combined_evidence == pytest.approx(math.log10(sum(values) / 14))
    strongest = max(report.evidence, key=lambda name: report.evidence[name])
    assert report.causes[0].message.endswith(f"serves: {strongest}.")


def test_who_does_not_carry_the_average_alone_is_not_named_with_the_one_that_does(
    calibration, drive
) -> None:
    monitor = monitor_of(calibration)
    feed(monitor, drive, 300)
    until_raised(monitor, drive, noise=4, disagreement=0.2)

    assert 0 < monitor.report.evidence["disagreement"] < math.log10(14 / 0.01)
    assert said(monitor) == [(Cause.ENGINE_CHANGED, "noise")]


def test_recent_numbers_forget_what_was_long_ago(calibration, drive) -> None:
    monitor = monitor_of(calibration)
    feed(monitor, drive, 1000)
    for _ in range(600):
        monitor.observe(replace(drive.item(noise=3), class_index=0))

    assert monitor.report.noise_ratio == pytest.approx(3, abs=0.5)
    assert monitor.report.class_mix_distance == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("alpha", [0.1, 0.001])
def test_a_stricter_level_takes_longer(calibration, drive, alpha) -> None:
    monitor = monitor_of(calibration, alpha=alpha)
    delay = until_raised(monitor, drive, noise=1.6)

    assert monitor.report.combined_evidence >= -math.log10(alpha) - 0.5
    assert delay > 10
    if alpha == 0.001:
        other = monitor_of(calibration, alpha=0.1)
        assert until_raised(other, type(drive)(0), noise=1.6) < delay
