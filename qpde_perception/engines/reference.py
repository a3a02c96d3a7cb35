"""Opening the float reference, which judges engines and can stand in for one.

It clips where the engine's grids end, and does not round: what it and a healthy engine differ by is
rounding alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpde_perception.engines.errors import EngineError
from qpde_perception.engines.platforms import platform_of, remedy
from qpde_perception.engines.registry import UNROUNDED_GRAPH

if TYPE_CHECKING:
    from qpde_perception.bundles import Bundle
    from qpde_perception.engines.onnxruntime import UnroundedReference

REFERENCE = "reference_unrounded"
"""Its name as an engine."""


def open_reference(bundle: Bundle, *, threads: int = 1) -> UnroundedReference:
    """Build the float reference of a bundle.

    Raises:
        BundleError: If the bundle has none.
        EngineError: If ONNX Runtime is not installed or refuses the graph.
    """
    graph = bundle.read(UNROUNDED_GRAPH)
    try:
        from qpde_perception.engines.onnxruntime import UnroundedReference  # noqa: PLC0415
    except (ImportError, OSError) as error:
        line = remedy("onnxruntime", platform_of())
        msg = f"{REFERENCE} needs onnxruntime, which cannot be loaded ({error}); {line}"
        raise EngineError(msg) from None
    return UnroundedReference(graph, threads)
