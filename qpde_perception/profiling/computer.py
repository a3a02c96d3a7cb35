"""Sensors of an ordinary computer: psutil, and NVML where there is an NVIDIA card."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable

    from qpde_perception.profiling.jetson import Readings

MIB = 1 << 20


def read_computer() -> Readings:
    """Read clocks, loads, temperatures and memory.

    A load is a mean since the last call; the first has none to tell.
    """
    readings: Readings = {}
    for number, load in enumerate(psutil.cpu_percent(percpu=True)):
        readings[f"load_percent.cpu{number}"] = load
    # Hidden by some virtual machines and systems, each in its own way.
    with suppress(OSError, NotImplementedError, RuntimeError):
        for number, clock in enumerate(psutil.cpu_freq(percpu=True) or ()):
            readings[f"clock_mhz.cpu{number}"] = clock.current or None
    for chip, sensors in getattr(psutil, "sensors_temperatures", dict)().items():
        for number, sensor in enumerate(sensors):
            readings[f"temperature_c.{sensor.label or f'{chip}{number}'}"] = sensor.current
    memory = psutil.virtual_memory()
    readings["memory_mib.ram"] = (memory.total - memory.available) / MIB
    readings["memory_mib.ram_total"] = memory.total / MIB
    return readings


class NvidiaCards:
    """The NVIDIA cards that NVML finds: none without its driver or its Python bindings."""

    def __init__(self) -> None:
        self._nvml: Any = None
        self._cards: list[Any] = []
        if find_spec("pynvml") is None:
            return
        nvml = import_module("pynvml")
        try:
            nvml.nvmlInit()
            self._cards = [
                nvml.nvmlDeviceGetHandleByIndex(number)
                for number in range(nvml.nvmlDeviceGetCount())
            ]
        except nvml.NVMLError:
            # No card, or a Jetson, whose GPU sysfs tells of.
            return
        self._nvml = nvml

    def names(self) -> list[str]:
        """Return the names of the cards."""
        names = [self._nvml.nvmlDeviceGetName(card) for card in self._cards]
        return [name.decode() if isinstance(name, bytes) else str(name) for name in names]

    def read(self) -> Readings:
        """Read the cards; None for what a card does not tell."""
        readings: Readings = {}
        for number, card in enumerate(self._cards):
            readings.update(self._of(f"gpu{number or ''}", card))
        return readings

    def _of(self, name: str, card: Any) -> Readings:
        nvml = self._nvml

        def told(ask: Callable[[], float]) -> float | None:
            try:
                return float(ask())
            except nvml.NVMLError:
                return None

        return {
            f"power_w.{name}": told(lambda: nvml.nvmlDeviceGetPowerUsage(card) / 1e3),
            f"temperature_c.{name}": told(
                lambda: nvml.nvmlDeviceGetTemperature(card, nvml.NVML_TEMPERATURE_GPU)
            ),
            f"clock_mhz.{name}": told(
                lambda: nvml.nvmlDeviceGetClockInfo(card, nvml.NVML_CLOCK_SM)
            ),
            f"clock_mhz.{name}_memory": told(
                lambda: nvml.nvmlDeviceGetClockInfo(card, nvml.NVML_CLOCK_MEM)
            ),
            f"load_percent.{name}": told(lambda: nvml.nvmlDeviceGetUtilizationRates(card).gpu),
            f"memory_mib.{name}": told(lambda: nvml.nvmlDeviceGetMemoryInfo(card).used / MIB),
            f"throttle.{name}": told(
                lambda: (
                    nvml.nvmlDeviceGetCurrentClocksThrottleReasons(card)
                    & ~(nvml.nvmlClocksThrottleReasonGpuIdle | _APPLICATION_CLOCKS)
                )
            ),
        }


# NVML's reason "application clocks setting": no throttling, somebody wished it.
_APPLICATION_CLOCKS = 0x2
