"""Lines of tegrastats, written from the documented formats."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpde_perception.profiling.jetson import total_power
from qpde_perception.profiling.tegrastats import read_tegrastats


def test_an_orin_nano_line_is_read_whole(tegrastats_of):
    assert read_tegrastats(tegrastats_of("orin nano")) == {
        "memory_mib.ram": 3645,
        "memory_mib.ram_total": 7620,
        "memory_mib.swap": 236,
        "memory_mib.swap_total": 3810,
        **dict(
            zip((f"load_percent.cpu{n}" for n in range(6)), (1, 4, 0, 0, None, None), strict=True)
        ),
        **{f"clock_mhz.cpu{n}": 729 for n in range(4)},
        "clock_mhz.cpu4": None,
        "clock_mhz.cpu5": None,
        "load_percent.emc": 3,
        "clock_mhz.emc": 2133,
        "load_percent.gpu": 43,
        "clock_mhz.gpu": 612,
        "clock_mhz.nvdec": None,
        "clock_mhz.nvjpg": None,
        "clock_mhz.vic": None,
        "clock_mhz.ofa": None,
        "clock_mhz.ape": 200,
        "temperature_c.cpu": 50.468,
        "temperature_c.soc0": 48.437,
        "temperature_c.gpu": 49.125,
        "temperature_c.tj": 50.468,
        "power_w.VDD_IN": 7.551,
        "power_w.VDD_CPU_GPU_CV": 2.46,
        "power_w.VDD_SOC": 1.984,
    }


def test_an_agx_orin_line_tells_clocks_without_loads_and_parts_that_are_off(tegrastats_of):
    readings = read_tegrastats(tegrastats_of("agx orin"))
    assert readings["clock_mhz.nvdla0"] == 1600
    assert readings["clock_mhz.vic"] == 115
    assert readings["clock_mhz.gpu"] == 1300
    assert readings["temperature_c.gpu"] is None
    assert total_power(readings)[0] == pytest.approx(3.194 + 1.198 + 3.6)


def test_a_xavier_nx_line_is_read(tegrastats_of):
    readings = read_tegrastats(tegrastats_of("xavier nx"))
    assert (readings["load_percent.gpu"], readings["clock_mhz.gpu"]) == (99, 510)
    assert readings["temperature_c.thermal"] == pytest.approx(42.4)
    assert total_power(readings) == (5.932, "VDD_IN")


def test_a_nano_line_has_powers_without_a_unit(tegrastats_of):
    readings = read_tegrastats(tegrastats_of("nano"))
    assert total_power(readings) == (2.545, "POM_5V_IN")
    assert readings["memory_mib.iram_total"] == pytest.approx(252 / 1024)
    assert readings["clock_mhz.cpu3"] == 1224


def test_a_line_and_the_files_of_a_board_use_the_same_names(make_board, tegrastats_of):
    from qpde_perception.profiling.jetson import read_jetson

    for name in ("orin nano", "agx orin", "xavier nx", "nano"):
        line, files = read_tegrastats(tegrastats_of(name)), read_jetson(make_board(name))
        shared = line.keys() & files.keys()
        assert {"clock_mhz.gpu", "load_percent.gpu", "temperature_c.cpu"} <= shared
        for key in shared:
            if key.startswith("power_w.") and files[key]:
                assert line[key] == pytest.approx(files[key], rel=0.01)


def test_a_part_of_an_unknown_name_is_kept():
    readings = read_tegrastats(
        "NEWUNIT 12%@345 OTHER_FREQ 678 hbm@41.5C VDD_NEW 1200mW/1100mW/1300mW"
    )
    assert readings == {
        "load_percent.newunit": 12,
        "clock_mhz.newunit": 345,
        "clock_mhz.other": 678,
        "temperature_c.hbm": 41.5,
        "power_w.VDD_NEW": 1.2,
    }


def test_a_clock_common_to_all_cores_is_each_ones():
    readings = read_tegrastats("CPU [7%,off]@1020")
    assert readings["clock_mhz.cpu0"] == 1020
    assert readings["clock_mhz.cpu1"] is None


@given(st.text(max_size=300))
def test_no_line_raises(line):
    read_tegrastats(line)
