"""The watch over a served model: what engines and the float reference say, as numbers."""

from qpde_perception.drift.watch import DriftPolicy, DriftWatch, block_of

__all__ = ["DriftPolicy", "DriftWatch", "block_of"]
