"""Engines that execute a bundle."""

from qpde_perception.engines.building import Building
from qpde_perception.engines.engine import Engine
from qpde_perception.engines.errors import EngineError
from qpde_perception.engines.registry import (
    ACCELERATORS,
    CPU_ENGINES,
    ENGINES,
    EngineStatus,
    OpenedEngine,
    Refusal,
    build_only,
    choose_engine,
    engine_status,
    open_engine,
)
from qpde_perception.engines.self_test import SelfTest

__all__ = [
    "ACCELERATORS",
    "CPU_ENGINES",
    "ENGINES",
    "Building",
    "Engine",
    "EngineError",
    "EngineStatus",
    "OpenedEngine",
    "Refusal",
    "SelfTest",
    "build_only",
    "choose_engine",
    "engine_status",
    "open_engine",
]
