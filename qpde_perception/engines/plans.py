"""TensorRT plans of a bundle, through the cache: built once, on the device that runs them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from qpde_perception.engines.cache import EngineCache, EngineKey
from qpde_perception.engines.cuda import device_of
from qpde_perception.engines.errors import EngineError
from qpde_perception.engines.platforms import platform_of
from qpde_perception.engines.registry import TENSORRT_GRAPH
from qpde_perception.engines.tensorrt import TensorRtEngine
from qpde_perception.engines.tensorrt_library import NAME, tensorrt_version
from qpde_perception.engines.tensorrt_plan import REBUILD, PlanOptions, build_plan

if TYPE_CHECKING:
    from qpde_perception.bundles import Bundle
    from qpde_perception.engines.building import Building
    from qpde_perception.engines.cache import CachedEngine


def version() -> str:
    """Return the version of TensorRT.

    Raises:
        EngineError: If it, or what it runs with, cannot be loaded or is too old, or no GPU answers.
    """
    device_of()
    return tensorrt_version()


def open_kept(bundle: Bundle, building: Building) -> tuple[TensorRtEngine, CachedEngine]:
    """Return a TensorRT engine of a bundle, built now if it was not kept from before.

    Args:
        bundle: A verified bundle.
        building: How to build it, and where it is kept.

    Returns:
        The engine, and where its plan comes from.

    Raises:
        EngineError: If the bundle has no graph for it, or the plan cannot be built or loaded.
    """
    if TENSORRT_GRAPH not in bundle.contents:
        msg = f"engine {NAME}: {bundle.path} has no {TENSORRT_GRAPH}; compile the model again"
        raise EngineError(msg)
    graph = bundle.read(TENSORRT_GRAPH)
    options = building.options or PlanOptions()
    # The same GPU for building, for the key and for running.
    options = replace(options, device=options.device or 0)
    cache = building.cache or EngineCache()
    key = _key(bundle.manifest.name, graph, options)
    kept = cache.get_or_build(
        key,
        lambda: build_plan(graph, options, progress=building.progress),
        stale=building.stale,
    )
    try:
        return TensorRtEngine(kept.data, device=options.device or 0, dla=options.dla), kept
    except EngineError as error:
        # Only what building again can mend: not memory that is full, say.
        if not (kept.hit and str(error).endswith(REBUILD)):
            raise
        return open_kept(bundle, replace(building, stale=f"the one kept was refused: {error}"))


def _key(model: str, graph: bytes, options: PlanOptions) -> EngineKey:
    device = device_of(options.device or 0)
    return EngineKey(
        model=model,
        graph_sha256=hashlib.sha256(graph).hexdigest(),
        engine=NAME,
        engine_version=tensorrt_version(),
        gpu=device.name,
        compute_capability=device.capability,
        # The kernel's version of it says more than the CUDA that it serves, where it can be read.
        driver=platform_of().driver or f"CUDA {device.driver}",
        shapes={"max_batch": options.max_batch},
        # Not the file of measured times, and not which of several equal cards.
        options={"dla": options.dla, "workspace_bytes": options.workspace_bytes},
    )
