"""Engines that execute a bundle."""

from qpde_perception.engines.engine import Engine
from qpde_perception.engines.errors import EngineError

__all__ = ["Engine", "EngineError"]
