"""OpenVINO on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import openvino

from qpde_perception.engines.errors import EngineError

if TYPE_CHECKING:
    from numpy.typing import NDArray


class OpenVinoEngine:
    """Executes an ONNX graph with OpenVINO's integer kernels."""

    name = "openvino"
    version: str = openvino.__version__.split("-")[0]

    def __init__(self, graph: bytes, threads: int) -> None:
        """Build the engine.

        Args:
            graph: An ONNX file, pixels in and logits out.
            threads: Number of threads; 0 lets the library choose.

        Raises:
            EngineError: If the library refuses the graph.
        """
        # What is not quantized is exact integer arithmetic in float32; bfloat16, the default on
        # some processors, would not hold it.
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = str(threads)
        core = openvino.Core()
        try:
            model = core.read_model(graph)
            self._request = core.compile_model(model, "CPU", settings).create_infer_request()
        except RuntimeError as error:
            msg = f"openvino {self.version} refuses the graph: {error}"
            raise EngineError(msg) from None

    def infer(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return logits, float32 (n, classes), of pixels, uint8 (n, height, width, 3)."""
        if self._request is None:
            msg = f"{self.name} is closed; open it again"
            raise EngineError(msg)
        try:
            self._request.infer([openvino.Tensor(batch, shared_memory=True)])
        except RuntimeError as error:
            msg = f"openvino cannot run {batch.dtype}{batch.shape}: {error}"
            raise EngineError(msg) from None
        return np.array(self._request.get_output_tensor(0).data, np.float32)

    def close(self) -> None:
        """Free the request, and with it the compiled model."""
        self._request = None
