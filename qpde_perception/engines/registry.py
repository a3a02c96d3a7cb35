"""Opening engines by name; none serves before it has answered the golden frames."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qpde_perception.bundles import MAX_OVER_NOISE, MAX_RMS_OVER_NOISE, golden_of
from qpde_perception.engines.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from qpde_perception.bundles import Bundle
    from qpde_perception.engines.engine import Engine

_CLASSES = {
    "onnxruntime": ("qpde_perception.engines.onnxruntime", "OnnxRuntimeEngine"),
    "openvino": ("qpde_perception.engines.openvino", "OpenVinoEngine"),
}
ENGINES = tuple(_CLASSES)
"""Names of the engines, as users type them."""

CPU_GRAPH = "cpu.onnx"


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """Whether an engine can be used here.

    Attributes:
        name: The engine.
        works: Whether its library loads.
        version: Version of the library, empty where it does not load.
        remedy: The line that installs what is missing, empty where nothing is.
    """

    name: str
    works: bool
    version: str
    remedy: str


def engine_status(name: str) -> EngineStatus:
    """Say whether an engine's library loads, and what to do if not."""
    try:
        built = _class_of(name)
    except EngineError:
        return EngineStatus(name, works=False, version="", remedy=f"pip install {name}")
    return EngineStatus(name, works=True, version=str(built.version), remedy="")  # type: ignore[attr-defined]


def open_engine(bundle: Bundle, name: str | None = None, *, threads: int = 1) -> Engine:
    """Build an engine for a bundle and let it answer the golden frames.

    Args:
        bundle: A verified bundle.
        name: The engine; None takes the first of the bundle's list that works here.
        threads: Number of threads; 0 lets the library choose.

    Raises:
        EngineError: If no engine works, or one strays from the integer reference.
    """
    if name is not None:
        return _tested(bundle, name, threads)
    refusals = []
    for candidate in bundle.manifest.engines:
        try:
            return _tested(bundle, candidate, threads)
        except EngineError as error:  # noqa: PERF203  (two engines, once)
            refusals.append(str(error))
    msg = f"no engine can serve {bundle.manifest.name}: " + "; ".join(refusals)
    raise EngineError(msg)


def build_engine(bundle: Bundle, name: str, *, threads: int) -> Engine:
    """Build an engine without asking it anything: for whoever judges engines.

    Raises:
        EngineError: If the engine cannot be loaded or refuses the graph.
    """
    return _class_of(name)(bundle.read(CPU_GRAPH), threads)


def _class_of(name: str) -> Callable[[bytes, int], Engine]:
    if name not in _CLASSES:
        msg = f"no engine {name!r}; known are {', '.join(ENGINES)}"
        raise EngineError(msg)
    module, attribute = _CLASSES[name]
    try:
        built: Callable[[bytes, int], Engine] = getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        msg = f"engine {name} cannot be loaded ({error}); pip install {name}"
        raise EngineError(msg) from None
    return built


def _tested(bundle: Bundle, name: str, threads: int) -> Engine:
    engine = build_engine(bundle, name, threads=threads)
    golden = golden_of(bundle)
    rms, largest = golden.distance(engine.infer(golden.pixels))
    if not (rms <= MAX_RMS_OVER_NOISE and largest <= MAX_OVER_NOISE):
        engine.close()
        msg = (
            f"engine {name} {engine.version} strays from the integer reference on the golden "
            f"frames: {rms:.3g} of the quantization noise (at most {MAX_RMS_OVER_NOISE}), largest "
            f"{largest:.3g} (at most {MAX_OVER_NOISE}); refused"
        )
        raise EngineError(msg)
    return engine
