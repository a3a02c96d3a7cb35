"""Sensors of Jetsons, on trees written from the documented formats."""

from __future__ import annotations

import pytest

from qpde_perception.profiling.jetson import clocks_held, read_jetson, total_power
from qpde_perception.profiling.machine import machine_of


def test_an_orin_nano_tells_rails_clocks_load_and_temperatures(make_board):
    readings = read_jetson(make_board("orin nano"))
    assert readings["power_w.VDD_IN"] == pytest.approx(4.968 * 1.520)
    assert readings["clock_mhz.gpu"] == pytest.approx(612.0)
    assert readings["load_percent.gpu"] == pytest.approx(43.7)
    assert readings["clock_mhz.cpu5"] == pytest.approx(1728.0)
    assert readings["temperature_c.tj"] == pytest.approx(50.468)
    assert readings["throttle.cpu-throttle-alert"] == 0
    assert readings["events.oc3"] == 27
    assert not [name for name in readings if "sum of" in name or "fan" in name]


def test_a_sensor_that_raises_or_is_off_is_a_dash(make_board):
    assert read_jetson(make_board("orin nano"))["temperature_c.cv0"] is None
    assert read_jetson(make_board("agx orin"))["temperature_c.gpu"] is None


def test_what_only_root_may_read_is_a_dash(make_board):
    readings = read_jetson(make_board("orin nano"))
    assert readings["clock_mhz.emc"] is None
    assert readings["load_percent.emc"] is None


@pytest.mark.parametrize(("name", "clock", "load"), [("agx orin", 3199, 10), ("nano", 1600, 2)])
def test_the_memory_tells_clock_and_load_to_root(make_board, name, clock, load):
    readings = read_jetson(make_board(name))
    assert readings["clock_mhz.emc"] == pytest.approx(clock)
    assert readings["load_percent.emc"] == pytest.approx(load)


@pytest.mark.parametrize("name", ["orin nano", "xavier nx", "nano"])
def test_the_power_of_a_module_is_its_input_rail(make_board, name):
    readings = read_jetson(make_board(name))
    power_w, source = total_power(readings)
    assert source in {"VDD_IN", "POM_5V_IN"}
    assert power_w == readings[f"power_w.{source}"]


def test_the_power_of_an_agx_is_the_sum_of_its_rails_without_those_that_others_feed(make_board):
    readings = read_jetson(make_board("agx orin"))
    assert readings["power_w.VDDQ_VDD2_1V8AO"] == pytest.approx(0.6)
    assert "power_w.NC" not in readings
    power_w, source = total_power(readings)
    assert source == "VDD_CPU_CV + VDD_GPU_SOC + VIN_SYS_5V0"
    assert power_w == pytest.approx(19.968 * 0.22 + 3.6)


def test_a_sum_that_lacks_a_rail_is_no_power(make_board):
    root = make_board("agx orin")
    (root / "sys/bus/i2c/devices/1-0040/hwmon/hwmon3/curr2_input").write_text("")
    assert total_power(read_jetson(root)) == (None, "VDD_CPU_CV + VDD_GPU_SOC + VIN_SYS_5V0")


def test_jetpack_4_has_its_rails_under_iio(make_board):
    readings = read_jetson(make_board("nano"))
    assert readings["power_w.POM_5V_IN"] == pytest.approx(2.545)
    assert readings["power_w.POM_5V_GPU"] == 0.0


@pytest.mark.parametrize(
    ("name", "held"), [("orin nano", False), ("agx orin", True), ("xavier nx", False)]
)
def test_jetson_clocks_are_known_by_equal_limits(make_board, name, held):
    assert clocks_held(make_board(name)) is held


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "orin nano",
            ("jetpack6", "36.4.3", "6.2+b77", "10.3.0.30-1+cuda12.5", "MAXN_SUPER (2)", False),
        ),
        ("agx orin", ("jetpack5", "35.4.1", "5.1.2-b104", "8.5.2-1+cuda11.4", "MAXN (0)", True)),
        (
            "xavier nx",
            ("jetpack5", "35.5.0", "5.1.3-b29", "8.5.2-1+cuda11.4", "MODE_20W_6CORE (8)", False),
        ),
        ("nano", ("jetpack5", "32.7.4", "4.6.4-b39", "8.2.1-1+cuda10.2", "MAXN (0)", False)),
    ],
)
def test_the_board_is_named_with_its_software_and_power_mode(make_board, name, told):
    machine = machine_of(make_board(name))
    assert machine.board.startswith("NVIDIA Jetson")
    assert name.split()[-1] in machine.board.lower()
    assert told == (
        machine.kind,
        machine.l4t,
        machine.jetpack,
        machine.tensorrt,
        machine.power_mode,
        machine.jetson_clocks,
    )


def test_a_tree_without_sensors_gives_dashes_and_no_error(tmp_path):
    assert set(read_jetson(tmp_path).values()) == {None}
    assert total_power(read_jetson(tmp_path)) == (None, "")
    assert clocks_held(tmp_path) is None
    assert machine_of(tmp_path).power_mode == ""


def test_a_power_mode_that_the_configuration_does_not_name_keeps_its_number(make_board):
    root = make_board("orin nano")
    (root / "etc/nvpmodel.conf").unlink()
    assert machine_of(root).power_mode == "mode (2)"


def test_a_rail_of_an_unknown_name_is_kept(make_board):
    root = make_board("orin nano")
    (root / "sys/bus/i2c/devices/1-0040/hwmon/hwmon1/in3_label").write_text("VDD_NEW\n")
    assert read_jetson(root)["power_w.VDD_NEW"] == pytest.approx(4.96 * 0.4)
