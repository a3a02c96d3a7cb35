"""Engines that execute a bundle."""

from qpde_perception.engines.building import Building
from qpde_perception.engines.engine import Engine
from qpde_perception.engines.errors import EngineError
from qpde_perception.engines.reference import REFERENCE, open_reference
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
    engines_for,
    open_engine,
)
from qpde_perception.engines.self_test import Observing, SelfTest

__all__ = [
    "ACCELERATORS",
    "CPU_ENGINES",
    "ENGINES",
    "REFERENCE",
    "Building",
    "Engine",
    "EngineError",
    "EngineStatus",
    "Observing",
    "OpenedEngine",
    "Refusal",
    "SelfTest",
    "build_only",
    "choose_engine",
    "engine_status",
    "engines_for",
    "open_engine",
    "open_reference",
]
