"""File trees and lines of `tegrastats` of four Jetsons, and profiles made of given latencies.

No board was at hand: the trees are written from NVIDIA's Jetson Linux Developer Guide ("Platform
Power and Performance", "Tegrastats Utility") and the kernel's documentation of ina3221, devfreq,
cpufreq and the thermal framework.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from qpde_perception.profiling.histogram import Histogram
from qpde_perception.profiling.schema import (
    Machine,
    Model,
    Opening,
    Profile,
    Round,
    Row,
    Sensors,
    Settings,
    Summary,
)

UNREADABLE = None
"""A sensor that raises as it is read; here a folder in its place, so that root gets an error."""


@dataclass(frozen=True)
class Board:
    """A board: its files by their path, and a line of its tegrastats."""

    files: dict[str, str | None]
    tegrastats: str


def ina3221(device, chip, rails):
    """A power monitor as hwmon shows it: rails by name, with millivolts and milliamperes."""
    folder = f"sys/bus/i2c/devices/{device}/hwmon/{chip}"
    files = {f"sys/bus/i2c/devices/{device}/name": "ina3221\n"}
    for number, (name, millivolts, milliamperes) in enumerate(rails, 1):
        files[f"{folder}/in{number}_label"] = f"{name}\n"
        files[f"{folder}/in{number}_input"] = f"{millivolts}\n"
        files[f"{folder}/curr{number}_input"] = f"{milliamperes}\n"
    files[f"{folder}/in7_label"] = "sum of shunt voltages\n"
    files[f"{folder}/in7_input"] = "5080\n"
    return files


def iio(device, rails):
    """A power monitor as JetPack 4 shows it: rails by name, with milliwatts."""
    folder = f"sys/bus/i2c/devices/{device}/iio:device0"
    files = {}
    for number, (name, milliwatts) in enumerate(rails):
        files[f"{folder}/rail_name_{number}"] = f"{name}\n"
        files[f"{folder}/in_power{number}_input"] = f"{milliwatts}\n"
    return files


def gpu(name, now, low, high, load):
    folder = f"sys/class/devfreq/{name}"
    return {
        f"{folder}/cur_freq": f"{now}\n",
        f"{folder}/min_freq": f"{low}\n",
        f"{folder}/max_freq": f"{high}\n",
        f"{folder}/device/load": f"{load}\n",
    }


def cpus(count, now, low, high):
    files = {}
    for number in range(count):
        folder = f"sys/devices/system/cpu/cpu{number}/cpufreq"
        files[f"{folder}/scaling_cur_freq"] = f"{now}\n"
        files[f"{folder}/scaling_min_freq"] = f"{low}\n"
        files[f"{folder}/scaling_max_freq"] = f"{high}\n"
    return files


def zones(temperatures):
    files = {}
    for number, (name, millidegrees) in enumerate(temperatures.items()):
        files[f"sys/class/thermal/thermal_zone{number}/type"] = f"{name}\n"
        files[f"sys/class/thermal/thermal_zone{number}/temp"] = (
            UNREADABLE if millidegrees is None else f"{millidegrees}\n"
        )
    return files


def coolers(states):
    files = {}
    for number, (name, state) in enumerate(states.items()):
        files[f"sys/class/thermal/cooling_device{number}/type"] = f"{name}\n"
        files[f"sys/class/thermal/cooling_device{number}/cur_state"] = f"{state}\n"
    return files


def over_currents(chip, counts):
    files = {f"sys/class/hwmon/{chip}/name": "soctherm_oc\n"}
    for number, count in enumerate(counts, 1):
        files[f"sys/class/hwmon/{chip}/oc{number}_event_cnt"] = f"{count}\n"
    return files


def identity(model, release, revision, mode, modes, packages):  # noqa: PLR0917
    listed = "".join(f"< POWER_MODEL ID={n} NAME={name} >\n" for n, name in modes.items())
    status = "".join(
        f"Package: {name}\nStatus: install ok installed\nVersion: {version}\n\n"
        for name, version in packages.items()
    )
    return {
        "proc/device-tree/model": f"{model}\0",
        "etc/nv_tegra_release": f"# R{release} (release), REVISION: {revision}, GCID: 1\n",
        "var/lib/nvpmodel/status": f"pmode:{mode:04d}\n",
        "etc/nvpmodel.conf": f"# comment\n{listed}CPU_ONLINE CORE_0 1\n",
        "var/lib/dpkg/status": status,
    }


BOARDS = {
    "orin nano": Board(
        {
            **identity(
                *("NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super", 36, "4.3"),
                *(2, {0: "15W", 1: "25W", 2: "MAXN_SUPER"}),
                {"nvidia-jetpack": "6.2+b77", "libnvinfer-bin": "10.3.0.30-1+cuda12.5"},
            ),
            **ina3221(
                *("1-0040", "hwmon1"),
                [("VDD_IN", 4968, 1520), ("VDD_CPU_GPU_CV", 4960, 496), ("VDD_SOC", 4960, 400)],
            ),
            **gpu("17000000.gpu", 612000000, 306000000, 1020000000, 437),
            **cpus(6, 1728000, 729600, 1728000),
            **zones(
                {
                    "cpu-thermal": 50468,
                    "gpu-thermal": 49125,
                    "cv0-thermal": None,
                    "soc0-thermal": 48437,
                    "tj-thermal": 50468,
                }
            ),
            **coolers({"pwm-fan": 1, "cpu-throttle-alert": 0, "hot-surface-alert": 0}),
            **over_currents("hwmon3", (0, 0, 27)),
        },
        "09-21-2026 15:38:17 RAM 3645/7620MB (lfb 63x4MB) SWAP 236/3810MB (cached 0MB) "
        "CPU [1%@729,4%@729,0%@729,0%@729,off,off] EMC_FREQ 3%@2133 GR3D_FREQ 43%@[612] NVDEC off "
        "NVJPG off VIC off OFA off APE 200 cpu@50.468C soc0@48.437C gpu@49.125C tj@50.468C "
        "VDD_IN 7551mW/7400mW VDD_CPU_GPU_CV 2460mW/2400mW VDD_SOC 1984mW/1900mW",
    ),
    "agx orin": Board(
        {
            **identity(
                *("NVIDIA Jetson AGX Orin Developer Kit", 35, "4.1"),
                *(0, {0: "MAXN", 1: "MODE_15W", 2: "MODE_30W", 3: "MODE_50W"}),
                {"nvidia-jetpack": "5.1.2-b104", "libnvinfer-bin": "8.5.2-1+cuda11.4"},
            ),
            **ina3221(
                *("1-0040", "hwmon3"),
                [
                    ("VDD_GPU_SOC", 19968, 160),
                    ("VDD_CPU_CV", 19968, 60),
                    ("VIN_SYS_5V0", 5000, 720),
                ],
            ),
            **ina3221(
                *("1-0041", "hwmon4"),
                [("NC", 0, 0), ("VDDQ_VDD2_1V8AO", 5000, 120), ("NC", 0, 0)],
            ),
            **gpu("17000000.ga10b", 1300500000, 1300500000, 1300500000, 0),
            **cpus(12, 2201600, 2201600, 2201600),
            **zones({"CPU-therm": 45625, "GPU-therm": -256000, "tj-therm": 45625}),
            **over_currents("hwmon5", (0, 0, 0)),
            "sys/kernel/debug/bpmp/debug/clk/emc/rate": "3199000000\n",
            "sys/kernel/debug/cactmon/mc_all": "319900\n",
        },
        "RAM 7517/62841MB (lfb 15x4MB) SWAP 46/31421MB (cached 0MB) "
        "CPU [0%@2201,3%@2201,off,off] EMC_FREQ 10%@3199 GR3D_FREQ 0%@[1300,1300] VIC_FREQ 115 "
        "NVDLA0_FREQ @1600 APE 174 cpu@45.625C tboard@35.75C gpu@-256C tj@45.625C "
        "VDD_GPU_SOC 3194mW/3190mW VDD_CPU_CV 1198mW/1195mW VIN_SYS_5V0 3600mW/3600mW "
        "VDDQ_VDD2_1V8AO 600mW/600mW",
    ),
    "xavier nx": Board(
        {
            **identity(
                *("NVIDIA Jetson Xavier NX Developer Kit", 35, "5.0"),
                *(8, {0: "MODE_15W_2CORE", 8: "MODE_20W_6CORE"}),
                {"nvidia-jetpack": "5.1.3-b29", "libnvinfer-bin": "8.5.2-1+cuda11.4"},
            ),
            **ina3221(
                *("7-0040", "hwmon2"),
                [("VDD_IN", 4944, 1200), ("VDD_CPU_GPU_CV", 4944, 300), ("VDD_SOC", 4944, 250)],
            ),
            **gpu("17000000.gv11b", 510000000, 114750000, 1109250000, 990),
            **cpus(6, 1420800, 1190400, 1420800),
            **zones({"AO-therm": 41500, "CPU-therm": 43000, "GPU-therm": 42500, "PMIC-Die": 50000}),
        },
        "RAM 2211/6845MB (lfb 210x4MB) SWAP 0/3422MB (cached 0MB) "
        "CPU [21%@1420,18%@1420,12%@1420,10%@1420,off,off] EMC_FREQ 5%@1600 GR3D_FREQ 99%@510 "
        "VIC_FREQ 0%@115 APE 150 AUX@41.5C CPU@43C thermal@42.4C AO@41.5C GPU@42.5C PMIC@50C "
        "VDD_IN 5932mW/5800mW VDD_CPU_GPU_CV 1483mW/1400mW VDD_SOC 1236mW/1200mW",
    ),
    "nano": Board(
        {
            **identity(
                *("NVIDIA Jetson Nano Developer Kit", 32, "7.4"),
                *(0, {0: "MAXN", 1: "5W"}),
                {"nvidia-jetpack": "4.6.4-b39", "libnvinfer-bin": "8.2.1-1+cuda10.2"},
            ),
            **iio("6-0040", [("POM_5V_IN", 2545), ("POM_5V_GPU", 0), ("POM_5V_CPU", 549)]),
            **gpu("57000000.gpu", 76800000, 76800000, 921600000, 0),
            **cpus(4, 1224000, 102000, 1479000),
            **zones(
                {
                    "AO-therm": 33500,
                    "CPU-therm": 25000,
                    "GPU-therm": 23500,
                    "PLL-therm": 21000,
                    "PMIC-Die": 100000,
                    "thermal-fan-est": 24500,
                }
            ),
            "sys/kernel/debug/clk/emc/clk_rate": "1600000000\n",
            "sys/kernel/actmon_avg_activity/mc_all": "32000\n",
        },
        "RAM 1766/3964MB (lfb 197x4MB) SWAP 0/2048MB (cached 0MB) IRAM 0/252kB(lfb 252kB) "
        "CPU [24%@1224,15%@1224,13%@1224,10%@1224] EMC_FREQ 2%@1600 GR3D_FREQ 0%@76 APE 25 "
        "PLL@21C CPU@25C PMIC@100C GPU@23.5C AO@33.5C thermal@24.5C POM_5V_IN 2545/2547 "
        "POM_5V_GPU 0/0 POM_5V_CPU 549/529",
    ),
}


@pytest.fixture
def make_board(tmp_path):
    """Write the tree of a board; returns its root."""

    def make(name):
        for path, content in BOARDS[name].files.items():
            place = tmp_path / name.replace(" ", "-") / path
            place.parent.mkdir(parents=True, exist_ok=True)
            if content is UNREADABLE:
                place.mkdir()
            else:
                place.write_text(content)
        return tmp_path / name.replace(" ", "-")

    return make


@pytest.fixture
def tegrastats_of():
    """Give the line of tegrastats of a board."""
    return lambda name: BOARDS[name].tegrastats


MACHINE = Machine(
    kind="cpu",
    board="a board",
    architecture="x86_64",
    processor="a processor",
    processors=2,
    memory_mib=8000.0,
    system="Linux 6",
    gpu="",
    driver="",
    l4t="",
    jetpack="",
    tensorrt="",
    power_mode="",
    jetson_clocks=None,
)


@pytest.fixture
def make_profile():
    """Make a profile of the latencies of one configuration's rounds, milliseconds."""

    def make(
        rounds_ms,
        *,
        yardstick_ms=1.0,
        engine="openvino",
        version="1.0",
        machine=MACHINE,
        sensors=None,
        **row,
    ):
        histograms = [Histogram.of(np.rint(ms * 1e6).astype(np.int64)) for ms in rounds_ms]
        rounds = tuple(
            Round(
                begin_s=float(n),
                end_s=n + 1.0,
                yardstick_ms=yardstick_ms,
                stages={"infer": each, "total": each},
            )
            for n, each in enumerate(histograms)
        )
        summary = Summary.of(Histogram.merged(histograms))
        values = {
            "energy_mj": None,
            "power_w": None,
            "paced": None,
            "after_idle_ms": (9.0, 7.0, 8.0),
            **row,
        }
        one = Row(
            engine=engine,
            engine_version=version,
            threads=1,
            batch=1,
            source="jpeg 1280x720",
            opening=Opening(build_ms=100.0, first_ms=20.0, first_infer_ms=15.0),
            stages={"infer": summary, "total": summary},
            frames_per_second=100.0,
            memory_mib=50.0,
            rounds=rounds,
            course=((0.5, 5.0), (1.5, 6.0)),
            **values,
        )
        return Profile(
            package_version="1",
            began="2026-01-01T00:00:00+00:00",
            machine=machine,
            model=Model(name="signs", sha256="0" * 64),
            settings=Settings(
                frames=sum(len(ms) for ms in rounds_ms),
                warm_up=0,
                rounds=len(rounds_ms),
                idle_s=0.0,
                sensor_interval_s=1.0,
            ),
            rows=(one,),
            sensors=sensors or Sensors(times_s=(), series={}, power_source=""),
        )

    return make
