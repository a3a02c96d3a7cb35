"""The machine that a profile was measured on, by name."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import psutil

from qpde_perception.engines.platforms import platform_of
from qpde_perception.profiling.computer import MIB, NvidiaCards
from qpde_perception.profiling.jetson import board, clocks_held, installed_version, power_mode
from qpde_perception.profiling.schema import Machine

_TENSORRT = ("libnvinfer-bin", "libnvinfer10", "libnvinfer8")


def machine_of(root: Path = Path("/")) -> Machine:
    """Describe a machine; what it does not tell stays empty.

    Args:
        root: Where the file system begins.
    """
    here = platform_of(root)
    versions = (installed_version(root, package) for package in _TENSORRT)
    jetson = here.kind.startswith("jetpack")
    return Machine(
        kind=here.kind,
        board=board(root) or _line(root / "sys/class/dmi/id/product_name"),
        architecture=here.machine,
        processor=_processor(root),
        processors=len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1,
        memory_mib=psutil.virtual_memory().total / MIB,
        system=f"{platform.system()} {platform.release()}",
        gpu="integrated" if jetson else ", ".join(NvidiaCards().names()),
        driver=here.driver,
        l4t=here.l4t,
        jetpack=installed_version(root, "nvidia-jetpack"),
        tensorrt=next((version for version in versions if version), ""),
        power_mode=power_mode(root),
        jetson_clocks=clocks_held(root) if jetson else None,
    )


def _processor(root: Path) -> str:
    match = re.search(
        r"^model name\s*:\s*(.+)$", _line(root / "proc/cpuinfo", whole=True), re.MULTILINE
    )
    return match[1].strip() if match else platform.processor()


def _line(path: Path, *, whole: bool = False) -> str:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return text if whole else text.strip()
