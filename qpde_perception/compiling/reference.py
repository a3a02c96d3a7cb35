"""The integer reference: executes a specification exactly, in NumPy. It is the judge of engines.

Sums of products are computed by floating-point matrix products whose every partial sum is an
integer that the type holds exactly, so the result is that of 32-bit integer accumulation.
Requantization is a float32 multiplication rounded half to even, as integer engines do it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qpde_perception.compiling.errors import CompilingError
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

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Array = NDArray[Any]

BATCH = 32
"""Images executed together: enough for fast matrix products, little enough for the cache."""


class IntegerReference:
    """Executes one specification; has the form of an engine."""

    name = "reference"
    version = np.__version__

    def __init__(self, specification: Specification) -> None:
        self._specification = specification

    def infer(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return logits, float32 (n, classes), of pixels, uint8 (n, height, width, 3)."""
        return self.observe(batch)[0]

    def saturation(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the share of every tap's codes that are `q_max`, float32 (n, taps)."""
        return self.observe(batch)[1]

    def observe(self, batch: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return logits, float32 (n, classes), and saturation, float32 (n, taps), of pixels."""
        logits, saturation = [], []
        for start in range(0, len(batch), BATCH):
            tensors = self.tensors(batch[start : start + BATCH])
            logits.append(tensors["logits"])
            saturation.append(self._saturation(tensors))
        return np.concatenate(logits), np.concatenate(saturation)

    def _saturation(self, tensors: dict[str, Array]) -> Array:
        taps = taps_of(self._specification.document)
        shares = np.empty((len(tensors[PIXELS]), len(taps)), np.float32)
        for index, tap in enumerate(taps):
            codes = tensors[tap]
            count = (codes == self._specification.grid(tap).q_max).sum(axis=(1, 2, 3))
            shares[:, index] = count.astype(np.float32) / np.float32(codes[0].size)
        return shares

    def close(self) -> None:
        """Nothing to free."""

    def tensors(self, batch: NDArray[np.uint8]) -> dict[str, Array]:
        """Return the codes of every tensor, (n, height, width, channels), and `logits`."""
        document = self._specification.document
        expected = (document.input_height, document.input_width, 3)
        if batch.dtype != np.uint8 or batch.shape[1:] != expected:
            msg = f"pixels are {batch.dtype}{batch.shape}, wanted uint8 (n, *{expected})"
            raise CompilingError(msg)
        tensors: dict[str, Array] = {PIXELS: batch.astype(np.float32) - PIXEL_ZERO}
        for layer in self._specification.layers:
            if isinstance(layer, Conv):
                tensors[layer.output] = self._conv(layer, tensors[layer.input])
            elif isinstance(layer, Add):
                grid = self._specification.grid(layer.output)
                total = tensors[layer.trunk] + tensors[layer.branch]
                tensors[layer.output] = total.clip(grid.q_min, grid.q_max)
            elif isinstance(layer, Smooth):
                tensors[layer.output] = smooth(tensors[layer.input], layer)
            elif isinstance(layer, Append):
                x = tensors[layer.input]
                tensors[layer.output] = np.concatenate([x, x[..., : layer.channels]], axis=-1)
            else:
                tensors["logits"] = self._head(layer, tensors[layer.input])
        return tensors

    def _conv(self, layer: Conv, x: Array) -> Array:
        arrays = self._specification.arrays
        weight, scale = arrays[f"{layer.name}.weight"], arrays[f"{layer.name}.scale"]
        accumulate: Callable[[Array, Array, Conv], Array] = (
            _depthwise if layer.groups > 1 else _dense
        )
        total = accumulate(x, weight, layer).astype(np.int32) + arrays[f"{layer.name}.bias"]
        source = self._specification.grid(layer.input)
        target = self._specification.grid(layer.output)
        multiplier = np.float32(source.scale) * scale / np.float32(target.scale)
        codes = np.rint(total.astype(np.float32) * multiplier)
        return np.asarray(codes.clip(target.q_min, target.q_max))

    def _head(self, layer: Head, x: Array) -> Array:
        arrays = self._specification.arrays
        pooled = np.rint(x.sum(axis=(1, 2), dtype=np.float32) * np.float32(layer.multiplier))
        product = pooled @ arrays[f"{layer.name}.weight"].astype(np.float32).T
        logits = product * arrays[f"{layer.name}.scale"] + arrays[f"{layer.name}.bias"]
        return np.asarray(logits, np.float32)


def smooth(x: Array, layer: Smooth) -> Array:
    """Take total-variation steps on codes, float32 (n, height, width, channels)."""
    for _ in range(layer.iterations):
        down = np.diff(x, axis=1).clip(-layer.delta, layer.delta)
        right = np.diff(x, axis=2).clip(-layer.delta, layer.delta)
        divergence = np.zeros_like(x)
        divergence[:, 1:] += down
        divergence[:, :-1] -= down
        divergence[:, :, 1:] += right
        divergence[:, :, :-1] -= right
        x = x - np.float32(layer.rate) * divergence
    return np.rint(x)


def _padded(x: Array, layer: Conv) -> Array:
    p = layer.padding
    return np.pad(x, ((0, 0), (p, p), (p, p), (0, 0))) if p else x


def _depthwise(x: Array, weight: Array, layer: Conv) -> Array:
    x, stride = _padded(x, layer), layer.stride
    kernel = weight.shape[-1]
    rows = (x.shape[1] - kernel) // stride + 1
    columns = (x.shape[2] - kernel) // stride + 1
    total = np.zeros((len(x), rows, columns, x.shape[3]), np.float32)
    for i in range(kernel):
        for j in range(kernel):
            window = x[:, i : i + stride * rows : stride, j : j + stride * columns : stride]
            total += window * weight[:, 0, i, j].astype(np.float32)
    return total


def _dense(x: Array, weight: Array, layer: Conv) -> Array:
    x, stride = _padded(x, layer), layer.stride
    kernel = weight.shape[-1]
    windows = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), axis=(1, 2))
    windows = windows[:, ::stride, ::stride]  # (n, rows, columns, channels, kernel, kernel)
    flat = windows.reshape(-1, weight[0].size)
    # Codes are at most 255 and weights 127 in magnitude: float32 is exact up to 2^24.
    exact = np.float32 if weight[0].size * 255 * 127 < 2**24 else np.float64
    product = flat.astype(exact, copy=False) @ weight.reshape(len(weight), -1).astype(exact).T
    return np.asarray(product.reshape(*windows.shape[:3], len(weight)))
