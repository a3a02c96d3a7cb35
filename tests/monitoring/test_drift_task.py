from __future__ import annotations

from qpde_perception.monitoring import DriftMonitor, Level, drift_task


def monitor_of(calibration) -> DriftMonitor:
    return DriftMonitor(calibration, global_bound=50.0, alpha=0.01)


def test_before_the_first_item_the_task_says_so(calibration) -> None:
    status = drift_task(monitor_of(calibration).report)

    assert (status.name, status.level) == ("quantization_drift", Level.OK)
    assert status.message == "Nothing observed yet."
    assert status.values["noise_ratio"] == status.values["golden_identical"] == "N/A"
    assert status.values["saturation_worst_tap"] == status.values["cause"] == "none"


def test_a_healthy_network_is_ok_with_its_numbers(calibration, drive) -> None:
    monitor = monitor_of(calibration)
    monitor.golden(identical=True, rms_over_noise=0.25, max_over_noise=0.5, within_budget=True)
    monitor.observe(
        drive.broken(squared_distance=3.0, disagrees=True, saturation=(0.01, 0.02), entropy=0.5)
    )
    status = drift_task(monitor.report)

    assert (status.level, status.message) == (Level.OK, "OK")
    expected = {
        "cause": "none",
        "causes": "none",
        "remedy": "none",
        "unwatched": "none",
        "observed": "1",
        "noise_ratio": "1.500",
        "disagreement": "1.000",
        "saturation_worst_tap": "p1",
        "saturation": "0.020",
        "evidence_alarm": "2.000",
        "strongest": "disagreement",
        "golden_checks": "1",
        "golden_identical": "True",
        "golden_rms_over_noise": "0.250",
        "golden_max_over_noise": "0.500",
        "entropy": "0.500",
    }
    assert {key: status.values[key] for key in expected} == expected


def test_what_changed_is_said_worst_first_with_its_remedy(calibration, drive) -> None:
    monitor = monitor_of(calibration)
    for _ in range(150):
        monitor.observe(drive.item(shift=(0.0, 0.0, -1.3, 0.0, -1.0)))
    monitor.golden(identical=False, rms_over_noise=9.0, max_over_noise=9.0, within_budget=False)
    status = drift_task(monitor.report)

    assert status.level == Level.ERROR
    assert status.message.index("engine changed") < status.message.index("camera degraded")
    assert "clean the lens" in status.message
    assert status.values["cause"] == "engine changed"
    assert status.values["rule"] == "exact"
    assert status.values["fault"] == "none"
    assert status.values["causes"] == "engine changed, camera degraded"
    assert status.values["remedy"] in status.message
    assert status.values["golden_identical"] == "False"
    assert float(status.values["strongest_evidence"]) > 2


def test_what_is_not_watched_is_told_without_an_alarm() -> None:
    status = drift_task(DriftMonitor(None, global_bound=None, alpha=0.01).report)

    assert status.level == Level.OK
    assert "qpde calibrate" in status.values["unwatched"]
    assert "certificate" in status.values["unwatched"]
    assert status.values["evidence"] == "N/A"
