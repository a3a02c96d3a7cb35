"""The writer of the int8 graph for CPU engines.

CPU engines want unsigned 8-bit activations with the ReLU absorbed into the quantizer, so a signed
code `c` is written as the unsigned `c + 128` with zero point 128. What stands between
DequantizeLinear and QuantizeLinear, a convolution or an addition, becomes one integer kernel; the
values between are exact in float32, so that nothing depends on the order of computation. Steps that
an engine could round otherwise are written on the codes themselves, at scale 1.

What runs fast was measured with `benchmarks/engines.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from qpde_perception.compiling.filling import with_filled_channels
from qpde_perception.compiling.specification import PIXEL_ZERO, PIXELS
from qpde_perception.compiling.writer import Writer

if TYPE_CHECKING:
    from qpde_perception.compiling.specification import (
        Add,
        Append,
        Conv,
        Head,
        Smooth,
        Specification,
    )

FAST_CHANNELS = 16
GROUP = 4
"""Pixels of a row that the first convolution reads as one position."""


def cpu_graph(specification: Specification) -> bytes:
    """Return the int8 graph for CPU engines: pixels uint8 (n, h, w, 3) to logits float32."""
    return _CpuWriter(with_filled_channels(specification, FAST_CHANNELS)).serialise()


class _CpuWriter(Writer):
    """Unsigned codes with a zero point; one QuantizeLinear per tensor."""

    def begin(self) -> None:
        """Leave the pixels to the layer that reads them."""

    def zero_point(self, tensor: str) -> str:
        return self.code(0 if self.specification.grid(tensor).rectifies else PIXEL_ZERO)

    def code(self, value: int) -> str:
        return self.constant(f"code_{value}", np.array(value, np.uint8))

    def dequantized(self, tensor: str, reader: str) -> str:
        """Return the values of a tensor's codes, one node a reader so that engines can fuse it."""
        scale = self.scalar(self.specification.grid(tensor).scale)
        inputs = [f"{tensor}.codes", scale, self.zero_point(tensor)]
        return self.node("DequantizeLinear", inputs, f"{tensor}.for.{reader}")

    def quantized(self, values: str, tensor: str, codes: str | None = None) -> str:
        scale = self.scalar(self.specification.grid(tensor).scale)
        inputs = [values, scale, self.zero_point(tensor)]
        return self.node("QuantizeLinear", inputs, codes or f"{tensor}.codes")

    def conv(self, layer: Conv) -> None:
        if layer.input == PIXELS:
            self.first_conv(layer)
            return
        arrays, name = self.specification.arrays, layer.name
        parts = [arrays[f"{name}.{part}"] for part in ("weight", "scale", "bias")]
        inputs = self.conv_inputs(layer, *parts)
        self.quantized(self.convolution(layer, inputs, f"{name}.values"), layer.output)

    def conv_inputs(
        self, layer: Conv, weight: np.ndarray, scale: np.ndarray, bias: np.ndarray
    ) -> list[str]:
        """Write what a convolution reads: dequantized codes, weights and, if any, biases."""
        name = layer.name
        zeros = self.constant(f"zeros_{len(scale)}", np.zeros(len(scale), np.int8))
        codes = [self.constant(f"{name}.weight", weight), self.constant(f"{name}.scale", scale)]
        inputs = [
            self.dequantized(layer.input, name),
            self.node("DequantizeLinear", [*codes, zeros], f"{name}.w", axis=0),
        ]
        if bias.any():
            step = np.float32(self.specification.grid(layer.input).scale) * scale
            zeros = self.constant(f"zeros32_{len(scale)}", np.zeros(len(scale), np.int32))
            codes = [self.constant(f"{name}.bias", bias), self.constant(f"{name}.bias_scale", step)]
            inputs.append(self.node("DequantizeLinear", [*codes, zeros], f"{name}.b", axis=0))
        return inputs

    def first_conv(self, layer: Conv) -> None:
        """Write the convolution of the pixels, on four of them at a time where that can be.

        Integer kernels want a multiple of four channels, and an image has three. Four pixels of a
        row are twelve channels, and one position of them makes the channels of two positions of the
        output; both are another reading of the same bytes, as pixels and codes lie in memory.
        """
        arrays, name = self.specification.arrays, layer.name
        weight, scale, bias = (arrays[f"{name}.{part}"] for part in ("weight", "scale", "bias"))
        document = self.specification.document
        height, width = document.input_height, document.input_width
        outputs, channels, kernel, _ = weight.shape
        planes = [0, 3, 1, 2]
        if (kernel, layer.stride, layer.padding, width % GROUP) != (3, 2, 1, 0):
            self.node("Transpose", [PIXELS], f"{PIXELS}.codes", perm=planes)
            inputs = self.conv_inputs(layer, weight, scale, bias)
            self.quantized(self.convolution(layer, inputs, f"{name}.values"), layer.output)
            return
        # Axes: output position of two, channel, pixel of the four, input channel, row, group.
        grouped = np.zeros((2, outputs, GROUP, channels, kernel, 2), np.int8)
        for position in range(2):
            for column in range(kernel):
                group, pixel = divmod(GROUP + 2 * position - 1 + column, GROUP)
                grouped[position, :, pixel, :, :, group] = weight[..., column]
        kernels = grouped.reshape(2 * outputs, GROUP * channels, kernel, 2)
        shape = self.integers(-1, height, width // GROUP, GROUP * channels)
        pixels = self.node("Reshape", [PIXELS, shape], f"{PIXELS}.groups")
        self.node("Transpose", [pixels], f"{PIXELS}.codes", perm=planes)
        inputs = self.conv_inputs(layer, kernels, np.tile(scale, 2), np.tile(bias, 2))
        values = self.node(
            "Conv",
            inputs,
            f"{name}.values",
            kernel_shape=[kernel, 2],
            strides=[2, 1],
            pads=[1, 1, 1, 0],
        )
        codes = self.quantized(values, layer.output, f"{name}.groups")
        codes = self.node("Transpose", [codes], f"{name}.rows", perm=[0, 2, 3, 1])
        shape = self.integers(-1, (height + 1) // 2, width // 2, outputs)
        codes = self.node("Reshape", [codes, shape], f"{name}.positions")
        self.node("Transpose", [codes], f"{layer.output}.codes", perm=planes)

    def add(self, layer: Add) -> None:
        # The branch second: OpenVINO's engine looks for it there.
        parts = [self.dequantized(tensor, layer.name) for tensor in (layer.trunk, layer.branch)]
        self.quantized(self.node("Add", parts, f"{layer.name}.values"), layer.output)

    def smooth(self, layer: Smooth) -> None:
        name, codes = layer.name, f"{layer.input}.codes"
        if layer.iterations == 1 and 4 * layer.delta < PIXEL_ZERO:
            self.smooth_bytes(layer)
            return
        # Half to even is unchanged by the zero point, which is even; and smoothing stays within the
        # range of its input, so nothing needs clipping.
        codes = self.node("Cast", [codes], f"{name}.in", to=TensorProto.FLOAT)
        smoothed = self.smoothing_steps(codes, name, layer, float(layer.delta))
        rounded = self.node("Round", [smoothed], f"{name}.rounded")
        self.node("Cast", [rounded], f"{layer.output}.codes", to=TensorProto.UINT8)

    def smooth_bytes(self, layer: Smooth) -> None:
        """Write one step whose every tensor is bytes, a quarter of what float32 moves.

        A difference saturates beyond the flux's limit, and the four fluxes of a position together
        do not saturate.
        """
        far, codes = np.iinfo(np.int64).max, f"{layer.input}.codes"
        limits = [self.code(PIXEL_ZERO - layer.delta), self.code(PIXEL_ZERO + layer.delta)]
        divergences = []
        for axis, pads in ((2, (0, 0, 1, 0, 0, 0, 1, 0)), (3, (0, 0, 0, 1, 0, 0, 0, 1))):
            part = f"{layer.name}.axis{axis}"
            ahead = self.slice(codes, f"{part}.ahead", axis=axis, start=1, end=far)
            behind = self.slice(codes, f"{part}.behind", axis=axis, start=0, end=-1)
            difference = self.sum_of_codes(ahead, behind, f"{part}.difference", factor=-1.0)
            flux = self.node("Clip", [difference, *limits], f"{part}.flux")
            inputs = [flux, self.integers(*pads), self.code(PIXEL_ZERO)]
            padded = self.node("Pad", inputs, f"{part}.padded")
            into = self.slice(padded, f"{part}.into", axis=axis, start=0, end=-1)
            out_of = self.slice(padded, f"{part}.out_of", axis=axis, start=1, end=far)
            name = f"{part}.divergence"
            divergences.append(self.sum_of_codes(into, out_of, name, factor=-1.0))
        total = self.sum_of_codes(divergences[0], divergences[1], f"{layer.name}.divergence")
        self.sum_of_codes(codes, total, f"{layer.output}.codes", factor=-layer.rate)

    def sum_of_codes(self, first: str, second: str, output: str, *, factor: float = 1.0) -> str:
        """Write `first + factor * second` of codes whose zero is 128; return its name."""
        zero = self.code(PIXEL_ZERO)
        parts = [
            self.node("DequantizeLinear", [codes, self.scalar(scale), zero], f"{output}.{role}")
            for role, codes, scale in (("first", first, 1.0), ("second", second, factor))
        ]
        total = self.node("Add", parts, f"{output}.sum")
        return self.node("QuantizeLinear", [total, self.scalar(1.0), zero], output)

    def append(self, layer: Append) -> None:
        codes = f"{layer.input}.codes"
        copies = self.slice(codes, f"{layer.name}.copies", axis=1, start=0, end=layer.channels)
        self.node("Concat", [codes, copies], f"{layer.output}.codes", axis=1)

    def head(self, layer: Head) -> None:
        name = layer.name
        codes = self.node("Cast", [f"{layer.input}.codes"], f"{name}.in", to=TensorProto.FLOAT)
        total = self.node("ReduceSum", [codes, self.integers(2, 3)], f"{name}.sum", keepdims=0)
        mean = self.node("Mul", [total, self.scalar(layer.multiplier)], f"{name}.mean")
        pooled = self.node("Round", [mean], f"{name}.pooled")
        self.dense(layer, pooled)
