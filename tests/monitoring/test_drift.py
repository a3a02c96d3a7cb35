"""The drift monitor: proofs, what is missing, and what it reports."""

from __future__ import annotations

import math

import pytest
from drift_feed import FOG, SWAPPED, asked, feed, monitor_of, said

from qpde_perception.bundles import Cause
from qpde_perception.monitoring import Level, MonitoringError


def test_a_healthy_drive_says_nothing_and_speaks_for_health(calibration, drive) -> None:
    monitor = monitor_of(calibration)
    asked(monitor)
    feed(monitor, drive, 1500)

    report = monitor.report
    assert (report.level, report.causes, report.unwatched) == (Level.OK, (), ())
    assert not monitor.wants_golden
    assert report.observed == 1500
    assert report.combined_evidence < 0
    assert report.alarm_at == pytest.approx(2)
    assert report.noise_ratio == pytest.approx(1, abs=0.15)
    assert report.disagreement < 0.03
    assert report.saturation == pytest.approx({"stem": 0.01, "p1": 0.01}, abs=0.003)
    assert report.entropy == pytest.approx(0.3)
    assert report.class_mix_distance < 0.15
    assert (report.golden_checks, report.golden_identical) == (1, True)
    assert (report.golden_rms_over_noise, report.golden_max_over_noise) == (0.1, 0.4)


def test_numbers_are_absent_before_anything_was_observed(calibration) -> None:
    report = monitor_of(calibration).report

    assert report.noise_ratio is report.disagreement is report.entropy is None
    assert report.class_mix_distance is report.golden_identical is None
    assert report.saturation == {}
    assert report.combined_evidence == 0
    assert set(report.evidence.values()) == {0.0}


def test_a_distance_above_the_bound_is_a_proof_that_stays(calibration, drive) -> None:
    monitor = monitor_of(calibration, bound=6.0)
    monitor.observe(drive.broken(squared_distance=35.9))
    assert said(monitor) == []
    monitor.observe(drive.broken(squared_distance=36.1))

    assert said(monitor) == [(Cause.ENGINE_CHANGED, "proof")]
    assert monitor.report.level == Level.ERROR
    assert monitor.wants_golden
    asked(monitor)
    feed(monitor, drive, 50)
    assert said(monitor) == [(Cause.ENGINE_CHANGED, "proof")]
    assert not monitor.wants_golden


@pytest.mark.parametrize("answer", [{"identical": False}, {"within_budget": False}])
def test_golden_frames_that_are_answered_otherwise_prove_it(calibration, drive, answer) -> None:
    monitor = monitor_of(calibration)
    asked(monitor)
    assert said(monitor) == []
    asked(monitor, **answer)

    assert said(monitor) == [(Cause.ENGINE_CHANGED, "exact")]
    assert not monitor.wants_golden
    asked(monitor)
    assert said(monitor) == [(Cause.ENGINE_CHANGED, "exact")]
    assert monitor.report.golden_checks == 3


@pytest.mark.parametrize("distance", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_a_fault_of_the_engine(calibration, drive, distance) -> None:
    monitor = monitor_of(calibration)
    feed(monitor, drive, 10)
    before = monitor.report.evidence
    monitor.observe(drive.broken(squared_distance=distance))

    assert said(monitor) == [(Cause.ENGINE_CHANGED, "exact")]
    assert "not finite" in monitor.report.causes[0].message
    assert monitor.report.evidence == before
    assert monitor.wants_golden


def test_an_engine_that_raises_is_named(calibration) -> None:
    monitor = monitor_of(None, bound=None)
    monitor.fail("CUDA error 700")

    assert said(monitor) == [(Cause.ENGINE_CHANGED, "exact")]
    assert "CUDA error 700" in monitor.report.causes[0].message


def test_a_missing_calibration_or_certificate_is_told_and_the_rest_is_watched(drive) -> None:
    monitor = monitor_of(None, bound=None)
    feed(monitor, drive, 20, noise=100, disagreement=1.0)

    report = monitor.report
    assert report.causes == ()
    assert [line.split(":")[0] for line in report.unwatched] == [
        "noise, disagreement, saturation and inputs",
        "global bound",
    ]
    assert (report.disagreement, report.noise_ratio, report.evidence) == (1.0, None, {})
    assert (report.combined_evidence, report.class_mix_distance) == (None, None)
    asked(monitor, identical=False)
    assert said(monitor) == [(Cause.ENGINE_CHANGED, "exact")]


def test_a_reference_that_is_lost_is_told_until_it_answers_again(calibration, drive) -> None:
    monitor = monitor_of(calibration)
    monitor.lose_reference("reference_fp32.onnx is damaged")

    assert said(monitor) == [(Cause.REFERENCE_UNAVAILABLE, "reference")]
    assert monitor.report.level == Level.WARN
    assert "is damaged" in monitor.report.causes[0].message
    assert any("is damaged" in line for line in monitor.report.unwatched)
    monitor.observe(drive.item())
    assert (said(monitor), monitor.report.unwatched) == ([], ())


def test_the_worst_comes_first_and_each_says_what_to_do(calibration, drive) -> None:
    monitor = monitor_of(calibration)
    feed(monitor, drive, 150, shift=FOG)
    monitor.lose_reference("gone")
    asked(monitor, identical=False)

    assert said(monitor) == [
        (Cause.ENGINE_CHANGED, "exact"),
        (Cause.REFERENCE_UNAVAILABLE, "reference"),
        (Cause.WORLD_CHANGED, "inputs"),
    ]
    levels = [each.level for each in monitor.report.causes]
    assert levels == sorted(levels, reverse=True)
    assert monitor.report.level == Level.ERROR
    assert len({each.remedy for each in monitor.report.causes}) == 3


def test_a_blamed_engine_comes_before_a_lost_reference(calibration, drive) -> None:
    monitor = monitor_of(calibration)
    feed(monitor, drive, 60, noise=4)
    monitor.lose_reference("gone")

    assert [cause for cause, _ in said(monitor)] == [
        Cause.ENGINE_CHANGED,
        Cause.REFERENCE_UNAVAILABLE,
    ]


def test_statistics_that_are_no_numbers_neither_alarm_nor_hide_the_others(
    calibration, drive
) -> None:
    monitor = monitor_of(calibration)
    for _ in range(200):
        item = drive.item(shift=SWAPPED)
        holed = (math.nan, *item.statistics[1:])
        monitor.observe(drive.broken(statistics=holed, saturation=(math.nan, 0.01)))

    assert said(monitor) == [(Cause.PREPROCESSING_WRONG, "inputs")]
    assert monitor.report.saturation["stem"] == 0
    assert monitor.report.evidence["brightness high"] == pytest.approx(0)
    assert monitor.report.evidence["saturation of stem"] == pytest.approx(0)


@pytest.mark.parametrize(
    ("numbers", "named"),
    [({"saturation": (0.1,)}, "1 taps"), ({"statistics": (0.1,) * 6}, "6 statistics")],
)
def test_an_observation_of_another_model_is_refused_and_changes_nothing(
    calibration, drive, numbers, named
) -> None:
    monitor = monitor_of(calibration)
    with pytest.raises(MonitoringError, match=f"{named}.*calibrate the model again"):
        monitor.observe(drive.broken(**numbers))

    assert monitor.report.observed == 0


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"alpha": 0.0}, "alpha is 0"), ({"alpha": 1.0}, "alpha"), ({"alpha": math.nan}, "alpha")]
    + [({"bound": bad}, "global bound") for bad in (0.0, -1.0, math.nan)],
)
def test_settings_that_mean_nothing_are_refused(calibration, settings, named) -> None:
    with pytest.raises(MonitoringError, match=named):
        monitor_of(calibration, **settings)
