"""Lines of NVIDIA's `tegrastats`, as readings.

Format: Jetson Linux Developer Guide, "Tegrastats Utility". It differs from board to board and from
release to release, so a line is read token by token, and what is not known is kept by its name.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qpde_perception.profiling.jetson import Readings

_NUMBER = r"-?\d+(?:\.\d+)?"
_MEMORY = re.compile(r"\b(RAM|SWAP|IRAM) (\d+)/(\d+)([kM])B")
_CPUS = re.compile(r"\bCPU \[([^\]]*)\](?:@(\d+))?")
_CORE = re.compile(r"(\d+)%(?:@(\d+))?")
_TEMPERATURE = re.compile(rf"(?<=\s)(\w+)@({_NUMBER})C(?:/{_NUMBER}C)?(?=\s|$)")
# Now, mean since the start and, since Jetson Linux 39, peak; with the unit since JetPack 5.
_POWER = re.compile(rf"(?<=\s)(\w+) ({_NUMBER})(?:mW)?(?:/{_NUMBER}(?:mW)?)+(?=\s|$)")
_UNIT = re.compile(r"(?<=\s)([A-Z]\w*) (\d+)%(?:@\[?(\d+)(?:,\d+)*\]?)?(?=\s|$)")
_CLOCK = re.compile(r"(?<=\s)([A-Z]\w*) @?\[?(\d+)(?:,\d+)*\]?(?=\s|$)")
_OFF = re.compile(r"(?<=\s)([A-Z]\w*) off(?=\s|$)")
_NAMES = {"GR3D": "gpu", "GR3D2": "gpu2", "EMC": "emc"}


def read_tegrastats(line: str) -> Readings:
    """Return the readings of one line; a line that holds none gives none."""
    text = f" {line.strip()}"
    readings: Readings = {}
    for name, used, total, unit in _MEMORY.findall(text):
        kilo = 1024.0 if unit == "k" else 1.0
        readings[f"memory_mib.{name.lower()}"] = int(used) / kilo
        readings[f"memory_mib.{name.lower()}_total"] = int(total) / kilo
    cpus = _CPUS.search(text)
    if cpus:
        readings.update(_cores(cpus[1], cpus[2]))
    # What is read stands in the way of the less definite forms.
    for pattern in (_MEMORY, _CPUS, re.compile(r"\((?:lfb|cached)[^)]*\)")):
        text = pattern.sub(" ", text)
    for name, degrees in _TEMPERATURE.findall(text):
        off = float(degrees) <= -200.0
        readings[f"temperature_c.{name.lower()}"] = None if off else float(degrees)
    text = _TEMPERATURE.sub(" ", text)
    for name, milliwatts in _POWER.findall(text):
        readings[f"power_w.{name}"] = float(milliwatts) / 1e3
    text = _POWER.sub(" ", text)
    for name, percent, clock in _UNIT.findall(text):
        readings[f"load_percent.{_name(name)}"] = float(percent)
        if clock:
            readings[f"clock_mhz.{_name(name)}"] = float(clock)
    text = _UNIT.sub(" ", text)
    readings.update(
        (f"clock_mhz.{_name(name)}", float(clock)) for name, clock in _CLOCK.findall(text)
    )
    readings.update((f"clock_mhz.{_name(name)}", None) for name in _OFF.findall(text))
    return readings


def _cores(listed: str, clock: str | None) -> Readings:
    readings: Readings = {}
    for number, core in enumerate(listed.split(",")):
        match = _CORE.fullmatch(core.strip())
        # `off`, where the power mode switches the core off.
        readings[f"load_percent.cpu{number}"] = float(match[1]) if match else None
        mhz = (match[2] or clock) if match else None
        readings[f"clock_mhz.cpu{number}"] = float(mhz) if mhz else None
    return readings


def _name(name: str) -> str:
    stem = name.removesuffix("_FREQ")
    return _NAMES.get(stem, stem.lower())
