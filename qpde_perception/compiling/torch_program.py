"""The torch program for torch-tensorrt: the specification as a graph that `torch.export` takes.

It computes what `tensorrt_writer` writes, with the same lowered grids. torch-tensorrt converts no
quantizer that keeps an arbitrary scale, so there are two operators of the project's own, which
`engines/torch_tensorrt.py` converts: `qpde::quantize`, and `qpde::convolution`, which holds its
weights as int8 codes. As codes they are no constant expression that a compiler could fold into
floating-point weights; folded, the engine would have no int8 convolution and say nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from qpde_perception.compiling.sizes import tensor_sizes
from qpde_perception.compiling.specification import (
    PIXEL_ZERO,
    PIXELS,
    Add,
    Append,
    Conv,
    Head,
    Smooth,
    Specification,
)
from qpde_perception.compiling.taps import taps_of
from qpde_perception.compiling.tensorrt_writer import (
    SIGNED,
    check_grids,
    lowered_bias,
    lowering,
)
from qpde_perception.compiling.writer import LOGITS

if TYPE_CHECKING:
    from numpy.typing import NDArray


@torch.library.custom_op("qpde::quantize", mutates_args=())
def quantize(values: Tensor, scale: float) -> Tensor:
    """Return `scale * clip(round(values / scale), -128, 127)`, half to even, float32."""
    return (values / scale).round().clamp(*SIGNED) * scale


@torch.library.custom_op("qpde::convolution", mutates_args=())
def convolution(
    values: Tensor,
    codes: Tensor,
    scale: Tensor,
    bias: Tensor,
    *,
    stride: int,
    padding: int,
    groups: int,
) -> Tensor:
    """Convolve float32 values with the weights `scale[c] * codes[c]`.

    Args:
        values: Float32, (n, inputs, height, width), quantized.
        codes: Int8, (outputs, inputs / groups, kernel, kernel).
        scale: Float32, (outputs,).
        bias: Float32, (outputs,).
        stride: Of both axes.
        padding: Number of zeros on each side.
        groups: Number of groups of channels.
    """
    # In float64 the sum is exact in whatever order; it is rounded once, to float32.
    weights = codes.double() * scale.double()[:, None, None, None]
    total = functional.conv2d(
        values.double(), weights, bias.double(), stride, padding, groups=groups
    )
    return total.float()


@quantize.register_fake
def _(values: Tensor, scale: float) -> Tensor:  # noqa: ARG001
    return torch.empty_like(values)


@convolution.register_fake
def _(
    values: Tensor,
    codes: Tensor,
    scale: Tensor,  # noqa: ARG001
    bias: Tensor,
    *,
    stride: int,
    padding: int,
    groups: int,
) -> Tensor:
    return functional.conv2d(values, codes.float(), bias, stride, padding, groups=groups)


def program_of(specification: Specification, max_batch: int) -> torch.export.ExportedProgram:
    """Export a specification for torch-tensorrt.

    The program takes pixels, uint8 (n, height, width, 3) with 1 <= n <= max_batch, and returns
    logits, float32 (n, classes), and saturation, float32 (n, taps). On a CPU its bits are those of
    the integer reference.

    Args:
        specification: The network in integers.
        max_batch: Largest batch.

    Raises:
        CompilingError: If a grid has not the 256 codes of int8.
    """
    check_grids(specification)
    document = specification.document
    # Tracing takes a batch of one for a constant, so where the batch varies the example is of two.
    example = torch.zeros(
        (min(max_batch, 2), document.input_height, document.input_width, 3), dtype=torch.uint8
    )
    varying = {0: torch.export.Dim("n", min=1, max=max_batch)} if max_batch > 1 else None
    program = _Program(specification).eval()
    return torch.export.export(program, (example,), dynamic_shapes=(varying,))


class _Program(nn.Module):
    """Walks the layers of a specification; values are lowered where a grid begins at zero."""

    tap_sizes: Tensor

    def __init__(self, specification: Specification) -> None:
        super().__init__()
        self.specification = specification
        self.taps = taps_of(specification.document)
        for layer in specification.layers:
            if isinstance(layer, Conv | Head):
                for part in ("weight", "scale"):
                    self.keep(layer, part, specification.arrays[f"{layer.name}.{part}"])
            if isinstance(layer, Conv):
                self.keep(layer, "bias", lowered_bias(specification, layer))
            elif isinstance(layer, Head):
                self.keep(layer, "bias", specification.arrays[f"{layer.name}.bias"])
        sizes = tensor_sizes(specification)
        counts = torch.tensor([float(np.prod(sizes[tap])) for tap in self.taps])
        self.register_buffer("tap_sizes", counts)

    def keep(self, layer: Conv | Head, part: str, values: NDArray[np.generic]) -> None:
        """Hold an array of a layer as a buffer."""
        self.register_buffer(_buffer(layer, part), torch.from_numpy(values.copy()))

    def kept(self, layer: Conv | Head) -> list[Tensor]:
        """Return weight, scale and bias of a layer."""
        return [getattr(self, _buffer(layer, part)) for part in ("weight", "scale", "bias")]

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits, float32 (n, classes), and saturation, float32 (n, taps)."""
        planes = pixels.float().permute(0, 3, 1, 2)
        values = {PIXELS: (planes - PIXEL_ZERO) * self.specification.grid(PIXELS).scale}
        codes: dict[tuple[str, int], Tensor] = {}

        def quantized(tensor: str, padding: int = 0) -> Tensor:
            """Quantize once whatever many readers read, padded with what stands for zero."""
            if (tensor, padding) not in codes:
                grid = self.specification.grid(tensor)
                padded = values[tensor]
                if padding:
                    padded = functional.pad(padded, [padding] * 4, value=-lowering(grid))
                codes[tensor, padding] = quantize(padded, grid.scale)
            return codes[tensor, padding]

        for layer in self.specification.layers:
            if isinstance(layer, Conv):
                rectified = self.specification.grid(layer.input).rectifies
                around, inside = (layer.padding, 0) if rectified else (0, layer.padding)
                source = quantized(layer.input, around)
                values[layer.output] = convolution(
                    source,
                    *self.kept(layer),
                    stride=layer.stride,
                    padding=inside,
                    groups=layer.groups,
                )
            elif isinstance(layer, Add):
                values[layer.output] = quantized(layer.trunk) + quantized(layer.branch)
            elif isinstance(layer, Smooth):
                delta = layer.delta * self.specification.grid(layer.input).scale
                values[layer.output] = _smoothed(quantized(layer.input), layer, delta)
            elif isinstance(layer, Append):
                source = quantized(layer.input)
                values[layer.output] = torch.cat([source, source[:, : layer.channels]], dim=1)
            else:
                values[LOGITS] = self.head(layer, quantized(layer.input))
        logits = values[LOGITS]
        if not self.taps:
            return logits, logits[:, :0]
        counts = [self.count(tap, quantized(tap)) for tap in self.taps]
        return logits, torch.stack(counts, dim=1) / self.tap_sizes

    def head(self, layer: Head, values: Tensor) -> Tensor:
        """Return the logits."""
        grid = self.specification.grid(layer.input)
        weight, scale, bias = self.kept(layer)
        total = (values + lowering(grid)).sum((2, 3))
        pooled = (total * (layer.multiplier / grid.scale)).round()
        return pooled @ weight.float().T * scale + bias

    def count(self, tap: str, values: Tensor) -> Tensor:
        """Return how many codes are the largest, (n,), of a tap's lowered values."""
        codes = values / self.specification.grid(tap).scale
        ones = (codes - (SIGNED[1] - 1)).clamp(0.0, 1.0)
        return ones.sum((1, 2, 3))


def _buffer(layer: Conv | Head, part: str) -> str:
    return f"{layer.name}.{part}".replace(".", "__")


def _smoothed(values: Tensor, layer: Smooth, delta: float) -> Tensor:
    """Take the explicit steps; the fluxes beyond the border are zero."""
    for _ in range(layer.iterations):
        down = values.diff(dim=2).clamp(-delta, delta)
        right = values.diff(dim=3).clamp(-delta, delta)
        divergence = functional.pad(down, (0, 0, 1, 1)).diff(dim=2)
        divergence = divergence + functional.pad(right, (1, 1)).diff(dim=3)
        values = values + divergence * layer.rate
    return values
