"""OpenVINO on the CPU."""

from __future__ import annotations

import threading
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import openvino
from openvino import opset15

from qpde_perception.engines.errors import EngineError

if TYPE_CHECKING:
    from numpy.typing import NDArray

CODES = openvino.Type.u8
DEQUANTIZED = {"Multiply", "Subtract", "Convert"}
QUANTIZED = {"Convert", "FakeQuantize", "Add"}
"""Types of the nodes that OpenVINO makes of DequantizeLinear, and of QuantizeLinear and a bias."""


@cache
def _core() -> openvino.Core:
    """Return the one core of the process, which lives as long.

    On processors with AMX every core gives the main thread a stack for its signals and takes it
    back at its end. Where the older of two ends first, the stack that the younger one puts back is
    gone, and the next signal, a Ctrl-C for example, ends the process with a fault.
    """
    return openvino.Core()


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
        self._lock = threading.Lock()
        core = _core()
        try:
            model = core.read_model(graph)
            _round_before_sums(model)
            self._request = core.compile_model(model, "CPU", settings).create_infer_request()
        except RuntimeError as error:
            msg = f"openvino {self.version} refuses the graph: {error}"
            raise EngineError(msg) from None

    def infer(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return logits, float32 (n, classes), of pixels, uint8 (n, height, width, 3)."""
        with self._lock:
            if self._request is None:
                msg = f"{self.name} is closed; open it again"
                raise EngineError(msg)
            try:
                # Setting the tensor and sharing the outputs takes 20 us, not the 150 us of a call
                # that gets inputs and returns a dictionary of copies.
                self._request.set_input_tensor(openvino.Tensor(batch, shared_memory=True))
                self._request.infer(share_outputs=True)
            except RuntimeError as error:
                msg = f"openvino cannot run {batch.dtype}{batch.shape}: {error}"
                raise EngineError(msg) from None
            return np.array(self._request.get_output_tensor(0).data, np.float32)

    def close(self) -> None:
        """Free the request, and with it the compiled model."""
        self._request = None


def _round_before_sums(model: openvino.Model) -> None:
    """Keep a sum of two quantized tensors out of the convolution that makes the second.

    Folded into it, the convolution's own output would no longer be rounded before it is added. A
    selection with only one outcome is what OpenVINO neither folds nor removes.
    """
    true = opset15.constant(True)
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Add":
            continue
        reader = node.input(1)
        while reader.get_element_type() != CODES and _maker(reader).get_type_name() in DEQUANTIZED:
            reader = _maker(reader).input(0)
        maker = _maker(reader)
        while maker.get_type_name() in QUANTIZED:
            maker = _maker(maker.input(0))
        if reader.get_element_type() == CODES and maker.get_type_name().endswith("Convolution"):
            codes = reader.get_source_output()
            reader.replace_source_output(opset15.select(true, codes, codes).output(0))


def _maker(reader: openvino.Input) -> openvino.Node:
    return reader.get_source_output().get_node()
