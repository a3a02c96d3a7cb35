"""ONNX Runtime on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as library

from qpde_perception.engines.errors import EngineError

if TYPE_CHECKING:
    from numpy.typing import NDArray

LIBRARY_ERRORS = (
    library.EPFail,
    library.Fail,
    library.InvalidArgument,
    library.InvalidGraph,
    library.InvalidProtobuf,
    library.NotImplemented,
    library.RuntimeException,
)
WARNINGS_OFF = 3


class OnnxRuntimeEngine:
    """Executes an ONNX graph with ONNX Runtime's integer kernels."""

    name = "onnxruntime"
    version: str = onnxruntime.__version__

    def __init__(self, graph: bytes, threads: int) -> None:
        """Build the engine.

        Args:
            graph: An ONNX file, pixels in and logits out.
            threads: Number of threads; 0 lets the library choose.

        Raises:
            EngineError: If the library refuses the graph.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = WARNINGS_OFF
        try:
            self._session = onnxruntime.InferenceSession(
                graph, options, providers=["CPUExecutionProvider"]
            )
        except LIBRARY_ERRORS as error:
            msg = f"onnxruntime {self.version} refuses the graph: {error}"
            raise EngineError(msg) from None
        self._input = self._session.get_inputs()[0].name

    def infer(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return logits, float32 (n, classes), of pixels, uint8 (n, height, width, 3)."""
        return self._outputs(batch)[0]

    def close(self) -> None:
        """Free the session."""
        self._session = None

    def _outputs(self, batch: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        if self._session is None:
            msg = f"{self.name} is closed; open it again"
            raise EngineError(msg)
        try:
            outputs: list[NDArray[np.float32]] = self._session.run(None, {self._input: batch})
        except LIBRARY_ERRORS as error:
            msg = f"onnxruntime cannot run {batch.dtype}{batch.shape}: {error}"
            raise EngineError(msg) from None
        return outputs


class UnroundedReference(OnnxRuntimeEngine):
    """Executes the reference of drift: activations not rounded, and what their grids cut off."""

    name = "reference_unrounded"

    def observe(self, batch: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return logits, float32 (n, classes), and shares of saturated values, float32 (n, taps).

        A network without taps has none.
        """
        logits, *taps = self._outputs(batch)
        return logits, taps[0] if taps else np.empty((len(batch), 0), np.float32)
