"""Sensors of a Jetson, read from sysfs: power rails, clocks, loads, temperatures, throttling.

Where they lie: NVIDIA's Jetson Linux Developer Guide, "Platform Power and Performance", and the
Linux kernel's documentation of hwmon (ina3221), devfreq, cpufreq and the thermal framework.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Readings = dict[str, float | None]
"""A reading by its name, with the unit before the dot; None where the sensor gave no number."""

_UNUSED = "NC"
"""Label of a channel that is not connected."""
_TOTALS = ("VDD_IN", "POM_5V_IN")
"""Rails that measure the whole module."""
_PARTS_OF_OTHERS = ("VDDQ_VDD2_1V8AO",)
"""Rails fed from another measured one: VIN_SYS_5V0."""
_EMC = ("debug/bpmp/debug/clk/emc/rate", "debug/clk/emc/clk_rate")
_EMC_ACTIVITY = ("debug/cactmon/mc_all", "actmon_avg_activity/mc_all")
# As devfreq names the GPU of Nano, Xavier, Orin under JetPack 5, and Orin under JetPack 6.
_GPU = re.compile(r"\d+\.(gpu|gm20b|gp10b|gv11b|ga10b)|gpu-gpc-\d+")
_POWER_MODE = re.compile(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+?)\s*>")


def read_jetson(root: Path) -> Readings:
    """Read every sensor that is there.

    Args:
        root: Where the file system begins.
    """
    sys = root / "sys"
    readings: Readings = {}
    for part in (_rails, _clocks, _emc, _temperatures, _throttling):
        readings.update(part(sys))
    return readings


def total_power(readings: Readings) -> tuple[float | None, str]:
    """Return the power of the whole module, watts, and the rails it is the sum of.

    An AGX measures its parts: their sum is meant, without rails that others feed.
    """
    rails = {
        name.partition(".")[2]: value
        for name, value in readings.items()
        if name.startswith("power_w.")
    }
    for total in _TOTALS:
        if total in rails:
            return rails[total], total
    parts = {name: value for name, value in rails.items() if name not in _PARTS_OF_OTHERS}
    if not parts:
        return None, ""
    known = [value for value in parts.values() if value is not None]
    # A sum that lacks a part is not the module's power.
    total_w = sum(known) if len(known) == len(parts) else None
    return total_w, " + ".join(sorted(parts))


def power_mode(root: Path) -> str:
    """Return the power mode by nvpmodel, for example `MAXN (0)`; empty where unknown."""
    match = re.search(r"pmode:(\d+)", _text(root / "var/lib/nvpmodel/status"))
    if match is None:
        return ""
    number = int(match[1])
    names = {
        int(mode): name for mode, name in _POWER_MODE.findall(_text(root / "etc/nvpmodel.conf"))
    }
    return f"{names.get(number, 'mode')} ({number})"


def clocks_held(root: Path) -> bool | None:
    """Say whether CPUs and GPU are held at one frequency, which is what jetson_clocks does."""
    cpus = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq")
    limits = [(cpu / "scaling_min_freq", cpu / "scaling_max_freq") for cpu in cpus]
    limits += [(gpu / "min_freq", gpu / "max_freq") for _, gpu in _gpus(root / "sys")]
    bounds = [(_number(low), _number(high)) for low, high in limits]
    if not bounds or any(None in pair for pair in bounds):
        return None
    return all(low == high for low, high in bounds)


def board(root: Path) -> str:
    """Return what the board calls itself; empty where it does not."""
    return _text(root / "proc/device-tree/model").strip("\0\n ")


def installed_version(root: Path, package: str) -> str:
    """Return the version of a Debian package; empty where it is not installed."""
    entry = re.search(
        rf"^Package: {re.escape(package)}\n(?:.+\n)*?Version: (\S+)",
        _text(root / "var/lib/dpkg/status"),
        re.MULTILINE,
    )
    return entry[1] if entry else ""


def _rails(sys: Path) -> Iterator[tuple[str, float | None]]:
    devices = sys / "bus/i2c/devices"
    for label in sorted(devices.glob("*/hwmon/hwmon*/in[0-9]_label")):
        name, number = _text(label).strip(), label.name[2:-6]
        current = label.with_name(f"curr{number}_input")
        # A label without a current is the sum of the shunts.
        if name in ("", _UNUSED) or not current.exists():
            continue
        volts, amperes = (
            _scaled(path, 1e-3) for path in (label.with_name(f"in{number}_input"), current)
        )
        yield f"power_w.{name}", None if volts is None or amperes is None else volts * amperes
    # JetPack 4 has them under iio.
    for label in sorted(devices.glob("*/iio:device*/rail_name_*")):
        name, number = _text(label).strip(), label.name.rpartition("_")[2]
        if name in ("", _UNUSED):
            continue
        yield f"power_w.{name}", _scaled(label.with_name(f"in_power{number}_input"), 1e-3)


def _clocks(sys: Path) -> Iterator[tuple[str, float | None]]:
    for cpu in sorted((sys / "devices/system/cpu").glob("cpu[0-9]*")):
        clock = cpu / "cpufreq/scaling_cur_freq"
        if clock.exists():
            yield f"clock_mhz.{cpu.name}", _scaled(clock, 1e-3)
    for name, gpu in _gpus(sys):
        yield f"clock_mhz.{name}", _scaled(gpu / "cur_freq", 1e-6)
        load = next((path for path in (gpu / "device/load", gpu / "load") if path.exists()), None)
        if load is not None:
            yield f"load_percent.{name}", _scaled(load, 0.1)


def _gpus(sys: Path) -> Iterator[tuple[str, Path]]:
    """Give the GPU's devices; Thor has several."""
    found = [path for path in sorted((sys / "class/devfreq").glob("*")) if _GPU.match(path.name)]
    for number, path in enumerate(found):
        yield f"gpu{number or ''}", path


def _emc(sys: Path) -> Iterator[tuple[str, float | None]]:
    """Read the memory's clock and load; most of these files only root may read."""
    kernel = sys / "kernel"
    clocks = [_scaled(kernel / path, 1e-6) for path in _EMC]
    clocks += [_scaled(path / "cur_freq", 1e-6) for path in (sys / "class/devfreq").glob("*.emc")]
    clock = next((value for value in clocks if value is not None), None)
    yield "clock_mhz.emc", clock
    activity = [_number(kernel / path) for path in _EMC_ACTIVITY]
    busy_khz = next((value for value in activity if value is not None), None)
    yield "load_percent.emc", None if not clock or busy_khz is None else busy_khz / (clock * 10.0)


def _temperatures(sys: Path) -> Iterator[tuple[str, float | None]]:
    for zone in sorted((sys / "class/thermal").glob("thermal_zone*")):
        name = _text(zone / "type").strip().lower()
        if not name:
            continue
        value = _scaled(zone / "temp", 1e-3)
        # A part without power answers with -256 degrees, or not at all.
        off = value is not None and value <= -200.0
        yield (
            f"temperature_c.{name.removesuffix('-thermal').removesuffix('-therm')}",
            (None if off else value),
        )


def _throttling(sys: Path) -> Iterator[tuple[str, float | None]]:
    for device in sorted((sys / "class/thermal").glob("cooling_device*")):
        name = _text(device / "type").strip()
        if "alert" in name or "throttle" in name:
            yield f"throttle.{name}", _number(device / "cur_state")
    for events in sorted((sys / "class/hwmon").glob("hwmon*/oc[0-9]*_event_cnt")):
        yield f"events.{events.name.removesuffix('_event_cnt')}", _number(events)


def _scaled(path: Path, factor: float) -> float | None:
    value = _number(path)
    return None if value is None else value * factor


def _number(path: Path) -> float | None:
    try:
        return float(_text(path).split()[0])
    except (ValueError, IndexError):
        return None


def _text(path: Path) -> str:
    # Sensors of parts without power raise as they are read.
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
