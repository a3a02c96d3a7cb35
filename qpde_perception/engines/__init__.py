"""Engines that execute a bundle."""

from qpde_perception.engines.engine import Engine
from qpde_perception.engines.errors import EngineError
from qpde_perception.engines.registry import ENGINES, EngineStatus, engine_status, open_engine

__all__ = ["ENGINES", "Engine", "EngineError", "EngineStatus", "engine_status", "open_engine"]
