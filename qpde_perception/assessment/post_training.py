"""What a user would do without training for it: ONNX Runtime's own static quantizer.

Source: `onnxruntime.quantization`, "Quantize ONNX models", https://onnxruntime.ai/docs/performance/
model-optimizations/quantization.html.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from qpde_perception.compiling.specification import PIXELS
from qpde_perception.compiling.writer import LOGITS, OPSET

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qpde_perception.learning.networks import DeployableMobileNetV2

CALIBRATION_IMAGES = 512
"""Images that the quantizer sees, evenly spaced in `train`."""
POST_TRAINING_BITS = 8
"""Bits of weights that its kernels take."""
BATCH = 32


def trained_float_graph(network: DeployableMobileNetV2) -> bytes:
    """Return the graph of a network whose quantizers are not active, pixels in and logits out.

    Its normalised weights are constants, and its batch normalisations are folded into them.

    Args:
        network: As `load_float_network` returns it.
    """
    size = network.config.input_size
    pixels = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    with tempfile.TemporaryDirectory() as folder:
        plain, folded = Path(folder) / "plain.onnx", Path(folder) / "folded.onnx"
        with warnings.catch_warnings():
            # The newer exporter wants one more package; this one says on every call that it is old.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                _OfPixels(network),
                (pixels,),
                plain,
                dynamo=False,
                opset_version=OPSET,
                input_names=[PIXELS],
                output_names=[LOGITS],
                dynamic_axes={PIXELS: {0: "n"}, LOGITS: {0: "n"}},
            )
        quant_pre_process(plain, folded, skip_symbolic_shape=True)
        return folded.read_bytes()


def quantized_after_training(graph: bytes, pixels: NDArray[np.uint8]) -> bytes:
    """Quantize a float graph to int8, one scale for every output channel of a weight.

    Args:
        graph: What `trained_float_graph` returned.
        pixels: Images that show the ranges of activations, uint8 (n, height, width, 3).
    """
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        before.write_bytes(graph)
        quantize_static(
            before,
            after,
            _Batches(pixels),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
        )
        return after.read_bytes()


class _OfPixels(torch.nn.Module):
    """A network that takes pixels as the vehicle has them, uint8 (n, height, width, 3)."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.network(pixels.permute(0, 3, 1, 2))  # type: ignore[no-any-return]


class _Batches(CalibrationDataReader):  # type: ignore[misc]
    """Gives the quantizer its images."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        starts = range(0, len(pixels), BATCH)
        self._batches = iter([np.ascontiguousarray(pixels[s : s + BATCH]) for s in starts])

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        batch = next(self._batches, None)
        return None if batch is None else {PIXELS: batch}
