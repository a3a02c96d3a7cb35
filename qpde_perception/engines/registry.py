"""Opening engines: by name, or the first that can serve; none before its self-test."""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from qpde_perception.bundles import BundleError
from qpde_perception.engines.building import Building
from qpde_perception.engines.errors import EngineError
from qpde_perception.engines.platforms import platform_of, remedy
from qpde_perception.engines.self_test import SelfTest, self_test

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qpde_perception.bundles import Bundle
    from qpde_perception.engines.engine import Engine
    from qpde_perception.engines.platforms import Platform

CPU_ENGINES = ("onnxruntime", "openvino")
"""Engines that execute the CPU graph, on every machine, with the same bits."""
ACCELERATORS = ("tensorrt", "torch_tensorrt")
"""Engines that need an NVIDIA GPU, and whose engines are built once and kept."""
ENGINES = (*CPU_ENGINES, *ACCELERATORS)
"""Names of the engines, as users type them."""

PREFERRED = ("tensorrt",)
"""Tried first where there is a GPU, in whatever bundle. Not torch_tensorrt: torch costs seconds and
gigabytes before it can say no, so it serves where it is asked for by name or by the bundle."""

# A class that is made of a graph and a number of threads, or a module of an accelerator.
_PARTS = {
    "onnxruntime": ("qpde_perception.engines.onnxruntime", "OnnxRuntimeEngine"),
    "openvino": ("qpde_perception.engines.openvino", "OpenVinoEngine"),
    "tensorrt": ("qpde_perception.engines.plans", ""),
    "torch_tensorrt": ("qpde_perception.engines.programs", ""),
}

_LIBRARIES = {"tensorrt": ("tensorrt", "cuda"), "torch_tensorrt": ("torch_tensorrt", "cuda")}

CPU_GRAPH = "cpu.onnx"
TENSORRT_GRAPH = "tensorrt.onnx"
FLOAT_GRAPH = "reference_fp32.onnx"
UNROUNDED_GRAPH = "reference_unrounded.onnx"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """Whether an engine can be used here.

    Attributes:
        name: The engine.
        works: Whether its library loads, and for an accelerator whether a GPU is here.
        version: Version of the library, empty where it does not load.
        remedy: The line that mends it, empty where it works.
    """

    name: str
    works: bool
    version: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """An engine that was tried before the one that serves, and why it does not.

    Attributes:
        engine: The engine's name.
        reason: One line, with the remedy.
    """

    engine: str
    reason: str


@dataclass(frozen=True, slots=True)
class OpenedEngine:
    """An engine that may serve, and how it came about.

    Attributes:
        engine: The engine.
        cache: `hit` where it was kept from before, else `miss`; `none` for an engine that is built
            at each start.
        reason: Why it was a hit or a miss.
        build_ms: Milliseconds for building or loading it, the self-test not counted.
        self_test: Its answer to the golden frames; None where it was not asked.
        refusals: Engines that were tried before it, in that order.
    """

    engine: Engine
    cache: str
    reason: str
    build_ms: float
    self_test: SelfTest | None = None
    refusals: tuple[Refusal, ...] = ()


def engine_status(name: str) -> EngineStatus:
    """Say whether an engine can be used here, and what to do if not."""
    here = platform_of()
    try:
        part = _part(name, here)
        version = str(part.version() if name in ACCELERATORS else part.version)
    except EngineError as error:
        # An accelerator that lacks nothing and still does not work says itself why.
        lacks_nothing = name in ACCELERATORS and here.gpu and _installed(name)
        line = str(error) if lacks_nothing else remedy(name, here)
        return EngineStatus(name, works=False, version="", remedy=line)
    return EngineStatus(name, works=True, version=version, remedy="")


def open_engine(bundle: Bundle, name: str | None = None, *, threads: int = 1) -> Engine:
    """Return the engine that `choose_engine` chooses, for whoever asks no further.

    Raises:
        EngineError: If no engine works, or one strays from the integer reference.
    """
    return choose_engine(bundle, name, threads=threads).engine


def choose_engine(
    bundle: Bundle, name: str | None = None, *, threads: int = 1, building: Building | None = None
) -> OpenedEngine:
    """Build or load an engine for a bundle and let it answer the golden frames.

    Args:
        bundle: A verified bundle.
        name: The engine; None takes TensorRT where there is a GPU, else, and if it is refused, the
            first of the bundle's list that works here. Each refusal is a warning in the log.
        threads: Number of threads of a CPU engine; 0 lets the library choose.
        building: How an accelerator's engine is built and where it is kept.

    Raises:
        EngineError: If no engine works, or one strays from the integer reference.
    """
    building = building or Building()
    here = platform_of()
    if name is not None:
        return _tested(bundle, name, threads, building, here)
    refusals: list[Refusal] = []
    for candidate in engines_for(bundle):
        try:
            opened = _tested(bundle, candidate, threads, building, here)
        except EngineError as error:  # noqa: PERF203  (a few engines, once)
            refusals.append(Refusal(candidate, str(error)))
            _log.warning("%s; trying the next engine", error)
        else:
            return replace(opened, refusals=tuple(refusals))
    reasons = "; ".join(refusal.reason for refusal in refusals)
    msg = f"no engine can serve {bundle.manifest.name}: {reasons}"
    raise EngineError(msg)


def engines_for(bundle: Bundle) -> tuple[str, ...]:
    """Return the engines to try for a bundle, best first: see `choose_engine`."""
    listed = bundle.manifest.engines
    gpu = platform_of().gpu
    return (*(one for one in PREFERRED if gpu and one not in listed), *listed)


def build_engine(bundle: Bundle, name: str, *, threads: int) -> Engine:
    """Build an engine without asking it anything: for whoever judges engines.

    Raises:
        EngineError: If the engine cannot be loaded or refuses the graph.
    """
    return _opened(bundle, name, threads, Building(), platform_of()).engine


def build_only(bundle: Bundle, name: str, building: Building) -> OpenedEngine:
    """Build or load an accelerator's engine without its self-test.

    Raises:
        EngineError: If the engine cannot be loaded or refuses the graph.
    """
    return _opened(bundle, name, 1, building, platform_of())


def _tested(
    bundle: Bundle, name: str, threads: int, building: Building, here: Platform
) -> OpenedEngine:
    opened = _opened(bundle, name, threads, building, here)
    try:
        with _foreseen(name):
            test = self_test(bundle, opened.engine)
    except BaseException:
        opened.engine.close()
        raise
    if test.ok:
        return replace(opened, self_test=test)
    opened.engine.close()
    strays = f"strays from the integer reference on the golden frames: {test.told}"
    if opened.cache == "hit":
        if building.rebuilds:
            fresh = replace(building, stale=f"the one kept {strays}")
            return _tested(bundle, name, threads, fresh, here)
        strays += f"; qpde build --engine {name} --model {bundle.manifest.name} builds it again"
    msg = f"engine {name} {opened.engine.version} {strays}; refused"
    raise EngineError(msg)


def _opened(
    bundle: Bundle, name: str, threads: int, building: Building, here: Platform
) -> OpenedEngine:
    part = _part(name, here)
    started = time.perf_counter()
    if name in CPU_ENGINES:
        engine = part(bundle.read(CPU_GRAPH), threads)
        cache, reason = "none", f"{name} is built at each start"
    else:
        with _foreseen(name):
            engine, kept = part.open_kept(bundle, building)
        cache, reason = "hit" if kept.hit else "miss", kept.reason
    return OpenedEngine(engine, cache, reason, (time.perf_counter() - started) * 1e3)


@contextmanager
def _foreseen(name: str) -> Iterator[None]:
    """Make whatever an accelerator raises an error of engines, so that the next one can serve."""
    try:
        yield
    except (EngineError, BundleError):
        raise
    except Exception as error:
        if name in CPU_ENGINES:
            raise
        # A library of another version, a driver: there is more than can be known beforehand.
        msg = f"engine {name} failed: {type(error).__name__}: {error}"
        raise EngineError(msg) from error


def _part(name: str, here: Platform) -> Any:
    if name not in _PARTS:
        msg = f"no engine {name!r}; known are {', '.join(ENGINES)}"
        raise EngineError(msg)
    if name in ACCELERATORS and here.gpu_remedy:
        # Before any library is loaded: that alone can take seconds.
        msg = f"engine {name} {here.gpu_remedy}"
        raise EngineError(msg)
    if not _installed(name):
        msg = f"engine {name} is not installed; {remedy(name, here)}"
        raise EngineError(msg)
    module, attribute = _PARTS[name]
    try:
        part = import_module(module)
    except (ImportError, OSError) as error:
        msg = f"engine {name} cannot be loaded ({error}); {remedy(name, here)}"
        raise EngineError(msg) from None
    return getattr(part, attribute) if attribute else part


def _installed(name: str) -> bool:
    return all(find_spec(library) for library in _LIBRARIES.get(name, ()))
