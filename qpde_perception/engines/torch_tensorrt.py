"""TensorRT driven from torch: compiles an exported program, and runs what was compiled.

The one file of the vehicle's road that imports torch. What is kept of a program is the serialized
engine alone: no pickle, no code. It belongs to the GPU and the TensorRT that it was built with.
"""

from __future__ import annotations

import threading
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from qpde_perception.engines.errors import EngineError

REMEDY = "pip install torch==2.13.0 torch-tensorrt==2.13.0"
try:
    torch_tensorrt: Any = import_module("torch_tensorrt")
    # The library or, where torch-tensorrt was installed for RTX, what it puts in its place.
    tensorrt: Any = import_module("tensorrt")
except Exception as error:  # noqa: BLE001  (without a GPU it raises whatever it meets first)
    msg = f"torch_tensorrt: {error}; {REMEDY}, on a machine with an NVIDIA GPU"
    raise ImportError(msg) from None

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

NAME = "torch_tensorrt"
INPUT = "pixels"
OUTPUTS = ("output0", "output1")
"""Names of an engine's tensors: that of the program's argument, and what torch-tensorrt gives."""

_held: list[NDArray[Any]] = []
"""Arrays that a network under construction refers to."""


def compile_program(program: torch.export.ExportedProgram) -> bytes:
    """Build a TensorRT engine; minutes, on the GPU that will run it.

    Args:
        program: What `compiling.torch_program.program_of` exported: pixels, uint8
            (n, height, width, 3), to logits and saturation. It may use the operators
            `qpde::quantize` and `qpde::convolution`.

    Returns:
        The serialized engine, for `TorchTensorRtEngine`.

    Raises:
        EngineError: If torch-tensorrt cannot convert or build it.
    """
    _register_converters()
    try:
        engine = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(
            program,
            arg_inputs=[_profile(program)],
            require_full_compilation=True,
            # Sums that float32 holds exactly would be rounded to ten bits.
            disable_tf32=True,
        )
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        msg = f"{NAME} {torch_tensorrt.__version__} cannot build the program: {error}"
        raise EngineError(msg) from None
    finally:
        _held.clear()
    return bytes(engine)


class TorchTensorRtEngine:
    """Executes a serialized engine on the GPU.

    Attributes:
        name: `torch_tensorrt`.
        version: Version of torch-tensorrt.
        max_batch: Most images that go through at once; larger batches are cut.
    """

    name = NAME
    version: str = torch_tensorrt.__version__

    def __init__(self, data: bytes, *, max_batch: int) -> None:
        """Load the engine.

        Args:
            data: What `compile_program` returned.
            max_batch: The largest batch of the program that it was built from.

        Raises:
            EngineError: If there is no GPU, or the engine was built for another one.
        """
        if not torch.cuda.is_available():
            msg = f"{NAME} needs an NVIDIA GPU, and torch sees none; choose another engine"
            raise EngineError(msg)
        self.max_batch = max_batch
        self._lock = threading.Lock()
        runtime = torch_tensorrt.dynamo.runtime
        try:
            self._module: Any = runtime.TorchTensorRTModule(
                data, [INPUT], list(OUTPUTS), name="qpde"
            )
        except (RuntimeError, AssertionError) as error:
            msg = f"{NAME} {self.version} cannot load the engine ({error}); build it again here"
            raise EngineError(msg) from None

    def infer(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return logits, float32 (n, classes), of pixels, uint8 (n, height, width, 3)."""
        return self.observe(batch)[0]

    def observe(self, batch: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return logits, float32 (n, classes), and saturation, float32 (n, taps), of pixels.

        Raises:
            EngineError: If the batch has another shape or the engine fails.
        """
        if self._module is None:
            msg = f"{self.name} is closed; open it again"
            raise EngineError(msg)
        if batch.dtype != np.uint8:
            msg = f"{NAME} cannot run {batch.dtype}{batch.shape}: pixels are uint8"
            raise EngineError(msg)
        try:
            with self._lock, torch.inference_mode():
                parts = [
                    self._run(batch[start : start + self.max_batch])
                    for start in range(0, len(batch), self.max_batch)
                ]
        except (RuntimeError, AssertionError, ValueError) as error:
            msg = f"{NAME} cannot run {batch.dtype}{batch.shape}: {error}"
            raise EngineError(msg) from None
        logits, saturation = (np.concatenate(part) for part in zip(*parts, strict=True))
        return logits, saturation

    def _run(self, batch: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        pixels = torch.from_numpy(np.require(batch, requirements=["C", "W"])).cuda()
        logits, saturation = self._module(pixels)
        # Copying to the host waits for the GPU.
        return logits.cpu().numpy(), saturation.cpu().numpy()

    def close(self) -> None:
        """Free the engine."""
        self._module = None


def _profile(program: torch.export.ExportedProgram) -> Any:
    """Return the range of the program's one input as torch-tensorrt takes it."""
    (name,) = program.graph_signature.user_inputs
    pixels = next(node for node in program.graph.nodes if node.name == name).meta["val"]
    batch, *rest = pixels.shape
    largest = batch
    if isinstance(batch, torch.SymInt):
        largest = int(program.range_constraints[batch.node.expr].upper)
    return torch_tensorrt.Input(
        min_shape=(1, *rest), opt_shape=(1, *rest), max_shape=(largest, *rest), dtype=torch.uint8
    )


@cache
def _register_converters() -> None:
    """Teach torch-tensorrt the project's operators, once they are defined."""
    register = torch_tensorrt.dynamo.conversion.dynamo_tensorrt_converter
    register(torch.ops.qpde.quantize.default, supports_dynamic_shapes=True)(_quantize)
    register(torch.ops.qpde.convolution.default, supports_dynamic_shapes=True)(_convolution)


def _quantize(ctx: Any, _target: Any, args: Sequence[Any], _kwargs: Any, name: str) -> Any:
    values, scale = args
    # Without dimensions: with one of length 1, TensorRT takes it for a scale per channel.
    step = _constant(ctx, np.array(scale, np.float32))
    codes = ctx.net.add_quantize(values, step, tensorrt.int8)
    codes.name = f"{name}.codes"
    dequantized = ctx.net.add_dequantize(codes.get_output(0), step, tensorrt.float32)
    dequantized.name = f"{name}.values"
    return dequantized.get_output(0)


def _convolution(
    ctx: Any, _target: Any, args: Sequence[Any], kwargs: dict[str, int], name: str
) -> Any:
    values, *parameters = args
    codes, scale, bias = (np.ascontiguousarray(part.cpu().numpy()) for part in parameters)
    weights = ctx.net.add_dequantize(_constant(ctx, codes), _constant(ctx, scale), tensorrt.float32)
    weights.axis = 0
    weights.name = f"{name}.weights"
    _held.append(bias)
    layer = ctx.net.add_convolution_nd(
        values, len(codes), codes.shape[2:], tensorrt.Weights(), tensorrt.Weights(bias)
    )
    layer.set_input(1, weights.get_output(0))
    layer.name = name
    layer.stride_nd = (kwargs["stride"],) * 2
    layer.padding_nd = (kwargs["padding"],) * 2
    layer.num_groups = kwargs["groups"]
    return layer.get_output(0)


def _constant(ctx: Any, values: NDArray[Any]) -> Any:
    _held.append(values)
    return ctx.net.add_constant(values.shape, tensorrt.Weights(values)).get_output(0)
