"""The HTML report of a profile."""

from __future__ import annotations

import pytest

from qpde_perception.bundles import find_model, load_bundle
from qpde_perception.profiling import Configuration, Settings, Source, profile
from qpde_perception.profiling.schema import Sensors
from qpde_perception.reports.profile_report import profile_html


@pytest.fixture(scope="module")
def measured():
    settings = Settings(frames=20, warm_up=0, rounds=2, idle_s=0.01, sensor_interval_s=0.1)
    where = Source("bgr8", 320, 240)
    bundle = load_bundle(find_model(None))
    return profile(bundle, [Configuration("openvino", 1, 1, where)], settings, "1")


def test_the_report_shows_every_configuration_with_distribution_course_and_stages(measured):
    html = profile_html(measured)
    (row,) = measured.rows
    assert html.count("<img") == 3
    assert row.name in html
    assert f"{row.stages['total'].p99_ms:.2f}" in html
    assert "no power sensor here" in html


def test_a_sensor_that_told_nothing_is_a_dash(measured):
    sensors = Sensors(
        times_s=(0.0, 1.0),
        series={"clock_mhz.emc": (None, None), "power_w.VDD_IN": (5.0, None)},
        power_source="VDD_IN",
    )
    html = profile_html(measured.model_copy(update={"sensors": sensors}))
    assert '<td>clock_mhz.emc</td><td></td><td class="number">-</td>' in html
    assert '<td>power_w.VDD_IN</td><td></td><td class="number">5.00</td>' in html


@pytest.mark.parametrize(
    ("series", "warned"),
    [
        ({"throttle.cpu-throttle-alert": (0.0, 1.0)}, True),
        ({"throttle.cpu-throttle-alert": (0.0, 0.0)}, False),
        ({"events.oc3": (27.0, 28.0)}, True),
        ({"events.oc3": (27.0, 27.0)}, False),
    ],
)
def test_throttling_during_the_run_is_said_first(measured, series, warned):
    sensors = Sensors(times_s=(0.0, 1.0), series=series, power_source="")
    html = profile_html(measured.model_copy(update={"sensors": sensors}))
    assert ("The machine was throttled during the run" in html) is warned


def test_clocks_that_are_not_held_are_said_on_a_jetson(measured):
    for held, told in ((False, True), (True, False), (None, False)):
        machine = measured.machine.model_copy(update={"jetson_clocks": held})
        html = profile_html(measured.model_copy(update={"machine": machine}))
        assert ("The clocks were not held" in html) is told
