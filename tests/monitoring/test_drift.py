from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from qpde_perception.bundles import Cause
from qpde_perception.monitoring import DriftMonitor, Level, MonitoringError

FOG = (1.0, -2.0, -0.5, 0.0, 0.0)
BLUR = (0.0, 0.0, -1.3, 0.0, -1.0)
SWAPPED = (0.0, 0.0, 0.0, -2.2, 0.0)
STRANGE = (0.0, 0.0, 0.0, 0.0, 2.5)
SUBTLE = (0.0, 0.7, 0.0, 0.0, 0.0)


def monitor_of(calibration, *, bound=50.0, alpha=0.01) -> DriftMonitor:
    return DriftMonitor(calibration, global_bound=bound, alpha=alpha)


def feed(monitor, drive, count, **kinds) -> None:
    for _ in range(count):
        monitor.observe(drive.item(**kinds))


def until_raised(monitor, drive, limit=2000, **kinds) -> int:
    for delay in range(1, limit):
        monitor.observe(drive.item(**kinds))
        if monitor.report.causes:
            return delay
    pytest.fail(f"nothing in {limit} items: {monitor.report.evidence}")


def asked(monitor, *, identical=True, within_budget=True) -> None:
    monitor.golden(
        identical=identical, rms_over_noise=0.1, max_over_noise=0.4, within_budget=within_budget
    )


def said(monitor) -> list[tuple[Cause, str]]:
    return [(each.cause, each.rule) for each in monitor.report.causes]


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
