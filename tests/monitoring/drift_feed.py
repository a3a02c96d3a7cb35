"""What the tests of the drift monitor feed it with, and what they ask it."""

from __future__ import annotations

import pytest

from qpde_perception.monitoring import DriftMonitor

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


def said(monitor):
    return [(each.cause, each.rule) for each in monitor.report.causes]
