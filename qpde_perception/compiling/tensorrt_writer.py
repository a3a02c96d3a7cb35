"""The writer of the graph for TensorRT: strongly typed, every zero point 0, biases in float.

TensorRT knows signed codes alone. A tensor whose codes go from 0 to 255 is therefore written
lowered by 128 codes, which keeps all 8 bits: the lowering stands in the bias of the convolution
that makes it, the saturation of QuantizeLinear is then its ReLU, and every reader adds what the
lowering took away, a convolution in its own bias. Where such a convolution pads, it pads with the
value that stands for zero, before QuantizeLinear; elsewhere zero is code 0 and the convolution's
own padding is right.

Only what the specification rounds is rounded, so that the values between DequantizeLinear and
QuantizeLinear are one fused kernel. As scales are powers of two and their multipliers short, the
values are exact in float32.

A second output is the saturation of every tap, whose names stand in the file's metadata as `taps`,
a JSON list. TensorRT compares no int8, so it is arithmetic on dequantized codes, exact as well.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from qpde_perception.compiling.errors import CompilingError
from qpde_perception.compiling.sizes import tensor_sizes
from qpde_perception.compiling.specification import PIXEL_ZERO, PIXELS
from qpde_perception.compiling.taps import SATURATION, taps_of
from qpde_perception.compiling.writer import Writer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qpde_perception.compiling.specification import (
        Add,
        Append,
        Conv,
        Grid,
        Head,
        Smooth,
        Specification,
    )

SIGNED = (-128, 127)


def tensorrt_graph(specification: Specification) -> bytes:
    """Return the int8 graph for TensorRT: pixels uint8 (n, h, w, 3) to logits float32.

    The second output is `saturation`, float32 (n, taps).

    Raises:
        CompilingError: If a grid has not the 256 codes of int8, whose saturation would then not be
            the grid's.
    """
    check_grids(specification)
    return _TensorRtWriter(specification).serialise()


def check_grids(specification: Specification) -> None:
    """Refuse grids that have not the 256 codes of int8.

    Raises:
        CompilingError: If there is one; its saturation would not be that of TensorRT.
    """
    for tensor, grid in specification.document.grids.items():
        if (grid.q_min, grid.q_max) not in {SIGNED, (0, 255)}:
            msg = (
                f"{tensor}: codes from {grid.q_min} to {grid.q_max} are not those of int8; "
                "TensorRT takes -128 to 127, or 0 to 255 lowered by 128"
            )
            raise CompilingError(msg)


def lowering(grid: Grid) -> float:
    """Return what the values of a grid are written lowered by."""
    return PIXEL_ZERO * grid.scale if grid.rectifies else 0.0


def lowered_bias(specification: Specification, layer: Conv) -> NDArray[np.float32]:
    """Return a convolution's bias, (outputs,), from lowered input values to lowered output values.

    It is a sum of exact products; its one rounding is that to float32.
    """
    scale = specification.arrays[f"{layer.name}.scale"]
    codes = specification.arrays[f"{layer.name}.weight"]
    source, target = specification.grid(layer.input), specification.grid(layer.output)
    weights = scale.astype(np.float64) * codes.sum((1, 2, 3), dtype=np.int64)
    step = (scale * source.scale).astype(np.float64)
    bias = specification.arrays[f"{layer.name}.bias"] * step + lowering(source) * weights
    return np.asarray(bias - lowering(target), np.float32)


class _TensorRtWriter(Writer):
    """Values lowered where a grid begins at zero, quantized where somebody reads codes."""

    def __init__(self, specification: Specification) -> None:
        super().__init__(specification)
        self.values: dict[str, str] = {}
        self.codes: dict[tuple[str, int], str] = {}

    def begin(self) -> None:
        values = self.node("Cast", [PIXELS], f"{PIXELS}.float", to=TensorProto.FLOAT)
        planes = self.node("Transpose", [values], f"{PIXELS}.planes", perm=[0, 3, 1, 2])
        centred = self.node("Sub", [planes, self.scalar(float(PIXEL_ZERO))], f"{PIXELS}.centred")
        scale = self.scalar(self.specification.grid(PIXELS).scale)
        self.values[PIXELS] = self.node("Mul", [centred, scale], f"{PIXELS}.values")

    def quantized(self, tensor: str, padding: int = 0) -> str:
        """Return the codes of a tensor, padded with the value that stands for zero."""
        key = (tensor, padding)
        if key not in self.codes:
            values, codes = self.values[tensor], f"{tensor}.codes"
            if padding:
                codes = f"{tensor}.padded{padding}.codes"
                around = self.integers(0, 0, padding, padding, 0, 0, padding, padding)
                inputs = [values, around, self.scalar(-lowering(self.specification.grid(tensor)))]
                values = self.node("Pad", inputs, f"{tensor}.padded{padding}")
            self.codes[key] = self.node("QuantizeLinear", [values, *self.step(tensor)], codes)
        return self.codes[key]

    def dequantized(self, tensor: str, reader: str, padding: int = 0) -> str:
        """Return the values of a tensor's codes, one node a reader so that engines can fuse it."""
        inputs = [self.quantized(tensor, padding), *self.step(tensor)]
        return self.node("DequantizeLinear", inputs, f"{tensor}.for.{reader}")

    def step(self, tensor: str) -> list[str]:
        scale = self.scalar(self.specification.grid(tensor).scale)
        return [scale, self.constant("zero", np.array(0, np.int8))]

    def conv(self, layer: Conv) -> None:
        arrays, name = self.specification.arrays, layer.name
        codes, scale = arrays[f"{name}.weight"], arrays[f"{name}.scale"]
        padding = layer.padding if self.specification.grid(layer.input).rectifies else 0
        bias = lowered_bias(self.specification, layer)
        weight = [
            self.constant(f"{name}.weight", codes),
            self.constant(f"{name}.scale", scale),
            self.constant(f"zeros_{len(scale)}", np.zeros(len(scale), np.int8)),
        ]
        inputs = [
            self.dequantized(layer.input, name, padding),
            self.node("DequantizeLinear", weight, f"{name}.w", axis=0),
            self.constant(f"{name}.bias", bias),
        ]
        if padding:
            layer = layer.model_copy(update={"padding": 0})
        self.values[layer.output] = self.convolution(layer, inputs, f"{layer.output}.values")

    def add(self, layer: Add) -> None:
        parts = [self.dequantized(tensor, layer.name) for tensor in (layer.trunk, layer.branch)]
        self.values[layer.output] = self.node("Add", parts, f"{layer.output}.values")

    def smooth(self, layer: Smooth) -> None:
        delta = layer.delta * self.specification.grid(layer.input).scale
        values = self.dequantized(layer.input, layer.name)
        self.values[layer.output] = self.smoothing_steps(values, layer.name, layer, delta)

    def append(self, layer: Append) -> None:
        values = self.dequantized(layer.input, layer.name)
        copies = self.slice(values, f"{layer.name}.copies", axis=1, start=0, end=layer.channels)
        output = f"{layer.output}.values"
        self.values[layer.output] = self.node("Concat", [values, copies], output, axis=1)

    def head(self, layer: Head) -> None:
        name, grid = layer.name, self.specification.grid(layer.input)
        values = self.dequantized(layer.input, name)
        if grid.rectifies:
            values = self.node("Add", [values, self.scalar(lowering(grid))], f"{name}.in")
        total = self.node("ReduceSum", [values, self.integers(2, 3)], f"{name}.sum", keepdims=0)
        # The sum is one of values; with the scale a power of two the product is that of codes.
        mean = self.node("Mul", [total, self.scalar(layer.multiplier / grid.scale)], f"{name}.mean")
        pooled = self.node("Round", [mean], f"{name}.pooled")
        self.dense(layer, pooled)

    def end(self) -> None:
        taps = taps_of(self.specification.document)
        if not taps:
            return
        channels_height_width = tensor_sizes(self.specification)
        sizes = np.array([[np.prod(channels_height_width[tap]) for tap in taps]], np.float32)
        counts = [self.saturated(tap) for tap in taps]
        columns = self.node("Concat", counts, f"{SATURATION}.columns", axis=1)
        count = self.node("Squeeze", [columns, self.integers(2, 3)], f"{SATURATION}.count")
        # One division, of integers: the share is rounded once, as in the integer reference.
        self.node("Div", [count, self.constant(f"{SATURATION}.sizes", sizes)], SATURATION)
        self.outputs[SATURATION] = len(taps)
        self.properties["taps"] = json.dumps(taps)

    def saturated(self, tap: str) -> str:
        """Return how many of a frame's codes are the largest, shape (n, 1, 1, 1)."""
        name, scale = f"{tap}.{SATURATION}", self.specification.grid(tap).scale
        codes = self.dequantized(tap, SATURATION)
        codes = self.node("Mul", [codes, self.scalar(1 / scale)], f"{name}.codes")
        # The lowered codes end at 127: what is left of them is one there and zero below.
        above = self.node("Sub", [codes, self.scalar(float(SIGNED[1] - 1))], f"{name}.above")
        ones = self.node("Clip", [above, self.scalar(0.0), self.scalar(1.0)], f"{name}.ones")
        return self.node("ReduceSum", [ones, self.integers(1, 2, 3)], f"{name}.count", keepdims=1)
