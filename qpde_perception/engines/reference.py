"""Opening the float reference, which judges engines and can stand in for one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpde_perception.engines.errors import EngineError
from qpde_perception.engines.platforms import platform_of, remedy

if TYPE_CHECKING:
    from qpde_perception.bundles import Bundle
    from qpde_perception.engines.onnxruntime import FloatReference

REFERENCE = "reference_fp32"
"""Its name as an engine."""
REFERENCE_GRAPH = "reference_fp32.onnx"


def open_reference(bundle: Bundle, *, threads: int = 1) -> FloatReference:
    """Build the float reference of a bundle.

    Raises:
        BundleError: If the bundle has none.
        EngineError: If ONNX Runtime is not installed or refuses the graph.
    """
    graph = bundle.read(REFERENCE_GRAPH)
    try:
        from qpde_perception.engines.onnxruntime import FloatReference  # noqa: PLC0415
    except (ImportError, OSError) as error:
        line = remedy("onnxruntime", platform_of())
        msg = f"{REFERENCE} needs onnxruntime, which cannot be loaded ({error}); {line}"
        raise EngineError(msg) from None
    return FloatReference(graph, threads)
