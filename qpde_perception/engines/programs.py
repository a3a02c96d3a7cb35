"""torch-tensorrt's engines of a bundle: built by `qpde build`, and served from the cache."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from qpde_perception.engines.cache import EngineCache, EngineKey
from qpde_perception.engines.cuda import device_of
from qpde_perception.engines.errors import EngineError
from qpde_perception.engines.platforms import platform_of
from qpde_perception.engines.registry import TENSORRT_GRAPH
from qpde_perception.engines.tensorrt_library import tensorrt_version
from qpde_perception.engines.tensorrt_plan import PlanOptions
from qpde_perception.engines.torch_tensorrt import NAME, TorchTensorRtEngine, compile_program

if TYPE_CHECKING:
    from qpde_perception.bundles import Bundle
    from qpde_perception.engines.building import Building
    from qpde_perception.engines.cache import CachedEngine


def version() -> str:
    """Return the version of torch-tensorrt.

    Raises:
        EngineError: If no GPU answers.
    """
    device_of()
    return TorchTensorRtEngine.version


def open_kept(bundle: Bundle, building: Building) -> tuple[TorchTensorRtEngine, CachedEngine]:
    """Return a torch-tensorrt engine of a bundle that was kept, or is built now.

    Args:
        bundle: A verified bundle.
        building: How to build it, and where it is kept.

    Returns:
        The engine, and where it comes from.

    Raises:
        EngineError: If none is kept and none can be built here, or it cannot be loaded.
    """
    options = building.options or PlanOptions()
    if options.dla is not None or options.device:
        msg = f"engine {NAME} takes GPU 0 and no DLA; choose a GPU with CUDA_VISIBLE_DEVICES"
        raise EngineError(msg)
    if TENSORRT_GRAPH not in bundle.contents:
        msg = f"engine {NAME}: {bundle.path} has no {TENSORRT_GRAPH}; compile the model again"
        raise EngineError(msg)
    cache = building.cache or EngineCache()
    key = _key(bundle, options)

    def build() -> bytes:
        if building.program is None:
            why = building.stale or cache.why(key)
            msg = (
                f"no {NAME} engine is kept for {bundle.manifest.name} ({why}); "
                f"qpde build --engine {NAME} --model {bundle.manifest.name} builds it"
            )
            raise EngineError(msg)
        return compile_program(building.program())

    kept = cache.get_or_build(key, build, stale=building.stale)
    try:
        return TorchTensorRtEngine(kept.data, max_batch=options.max_batch), kept
    except EngineError as error:
        if not kept.hit or building.program is None:
            raise
        return open_kept(bundle, replace(building, stale=f"the one kept was refused: {error}"))


def _key(bundle: Bundle, options: PlanOptions) -> EngineKey:
    device = device_of()
    return EngineKey(
        model=bundle.manifest.name,
        # The program is made of the same integers as this graph and computes the same.
        graph_sha256=hashlib.sha256(bundle.read(TENSORRT_GRAPH)).hexdigest(),
        engine=NAME,
        engine_version=f"{TorchTensorRtEngine.version} on TensorRT {tensorrt_version()}",
        gpu=device.name,
        compute_capability=device.capability,
        driver=platform_of().driver or f"CUDA {device.driver}",
        shapes={"max_batch": options.max_batch},
        options={},
    )
