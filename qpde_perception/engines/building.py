"""What an accelerator is told when its engine is built or loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from qpde_perception.engines.cache import EngineCache
    from qpde_perception.engines.tensorrt_plan import PlanOptions, Progress


@dataclass(frozen=True, slots=True)
class Building:
    """How an accelerator's engine is built, and where it is kept.

    Attributes:
        cache: Where; None for the default folder.
        options: What the builder is told; None for its defaults.
        progress: Told a phase of the build, the steps of it that are done, and how many it has.
        stale: Why an engine that is kept must not be used; empty where it may.
        program: Makes the program that torch_tensorrt builds from; None where only what was kept
            may serve, as on the road, which has no part in compiling.
        rebuilds: Whether one that is kept but strays is built again at once: for whoever has the
            minutes. On the road it is refused, and the next engine serves.
    """

    cache: EngineCache | None = None
    options: PlanOptions | None = None
    progress: Progress | None = None
    stale: str = ""
    program: Callable[[], Any] | None = None
    rebuilds: bool = False
