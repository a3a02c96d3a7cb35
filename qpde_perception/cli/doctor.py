"""`qpde doctor`: what is installed, what works, and what to do about the rest."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import typer
from rich.table import Table

from qpde_perception.cli.frame import Json, emit
from qpde_perception.engines import ENGINES, engine_status
from qpde_perception.engines.platforms import platform_of
from qpde_perception.version import package_version

_ROS_REMEDY = 'source a ROS 2 installation, or: pip install -e ".[ros]"'
_TORCH_REMEDY = 'needed to train, compile and certify: pip install -e ".[learning]"'
_RAY_REMEDY = 'needed for fleets on several workers: pip install -e ".[fleet]"'
_PARTS = (("ros", _ROS_REMEDY), ("torch", _TORCH_REMEDY), ("ray", _RAY_REMEDY))


def command(as_json: Json = False) -> None:
    """Tell what is installed, which engines work, and what to do about the rest.

    Fails when no engine works.
    """
    engines = [asdict(engine_status(name)) for name in ENGINES]
    payload = {
        "platform": asdict(platform_of()),
        "engines": engines,
        "ros": _ros(),
        "torch": _version("torch"),
        "ray": _version("ray"),
        "python": platform.python_version(),
        "package": package_version(),
    }
    emit(as_json, payload, lambda: _table(payload))
    if not any(engine["works"] for engine in engines):
        raise typer.Exit(1)


def _ros() -> str | None:
    """Return the ROS distribution, or the version of its wheels, or None without rclpy."""
    if find_spec("rclpy") is None:
        return None
    return os.environ.get("ROS_DISTRO") or _version("ros-rclpy") or "installed"


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _table(payload: dict[str, Any]) -> Table:
    table = Table("part", "state", "version", "what to do")
    here = payload["platform"]
    # A Jetson by its Jetson Linux, another machine by its driver.
    system = here["l4t"] or here["driver"]
    table.add_row(f"platform {here['kind']}", here["machine"], system, "")
    table.add_row("python", "works", payload["python"], "")
    table.add_row("qpde_perception", "works", payload["package"], "")
    for engine in payload["engines"]:
        state = "works" if engine["works"] else "does not work"
        table.add_row(f"engine {engine['name']}", state, engine["version"], engine["remedy"])
    for name, remedy in _PARTS:
        found = payload[name]
        table.add_row(name, *(("installed", found, "") if found else ("missing", "", remedy)))
    return table
