"""Spectral norms of convolutions: a proven upper bound, and power iteration from below.

The upper bound is exact linear algebra on a slightly larger problem. A convolution with zero
padding on a finite map is a circular convolution on a torus that is larger by the padding, applied
to maps that are zero outside and read off inside. Cutting out never increases a norm, so the norm
is at most that of the circular convolution, which the Fourier transform takes apart into one small
matrix per frequency. A stride folds the frequencies that alias into one wider matrix. The
eigenvalues are those of float64 arithmetic; `SLACK` covers its rounding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812  (the field's name)
from torch.nn.grad import conv2d_input

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from qpde_perception.compiling.specification import Conv

    Array = NDArray[Any]

SLACK = 1.0 + 1e-9
POWER_ITERATIONS = 100
CONVERGED = 1e-4


def convolution_norm(weight: Array, layer: Conv, height: int, width: int) -> float:
    """Bound the spectral norm of a convolution from above.

    Args:
        weight: Real weights, float64 (outputs, inputs / groups, kernel, kernel).
        layer: Stride, padding and groups.
        height: Rows of the input.
        width: Columns of the input.
    """
    symbols = _symbols(weight, layer, height, width)
    other = np.conj(np.swapaxes(symbols, -1, -2))
    gram = symbols @ other if symbols.shape[-1] > symbols.shape[-2] else other @ symbols
    largest = float(np.linalg.eigvalsh(gram)[..., -1].max())
    return float(np.sqrt(max(largest, 0.0))) * SLACK


def symmetric_norm(
    expand: Array, depthwise: Array | None, diagonals: tuple[Array, Array], size: tuple[int, int]
) -> float:
    """Bound `|| E^(1/2) K D^(1/2) ||^2` of a symmetric block from above.

    `K` is the convolution `expand`, or the 1x1 `expand` followed by `depthwise`, taken together.

    Args:
        expand: Real weights (hidden, channels, kernel, kernel).
        depthwise: Real weights (hidden, 1, kernel, kernel), or None.
        diagonals: `E`, shape (hidden,), and `D`, shape (channels,).
        size: Height and width of the maps.
    """
    inner, outer = diagonals
    spread = expand.shape[-1] // 2 + (depthwise.shape[-1] // 2 if depthwise is not None else 0)
    torus = (size[0] + spread, size[1] + spread)
    symbols = _transform(expand, torus) * np.sqrt(outer)
    energy = np.broadcast_to(inner, symbols.shape[:-1])
    if depthwise is not None:
        energy = energy * np.abs(_transform(depthwise, torus)[..., 0]) ** 2
    gram = np.conj(np.swapaxes(symbols, -1, -2)) @ (energy[..., None] * symbols)
    return float(np.linalg.eigvalsh(gram)[..., -1].max()) * SLACK


def power_iteration(
    operator: Callable[[torch.Tensor], torch.Tensor],
    adjoint: Callable[[torch.Tensor], torch.Tensor],
    shape: tuple[int, ...],
) -> float:
    """Estimate a spectral norm from below, with an operator and its adjoint in float64."""
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    norm = 0.0
    for _ in range(POWER_ITERATIONS):
        x = x / x.norm()
        y = operator(x)
        grown, x = float(y.norm()), adjoint(y)
        if grown - norm < CONVERGED * grown:
            return max(grown, norm)
        norm = grown
    return norm


def measured_norm(weight: Array, layer: Conv, height: int, width: int) -> float:
    """Estimate the spectral norm of a convolution from below, at the real size of its input."""
    kernel = torch.from_numpy(np.asarray(weight, np.float64))
    options: dict[str, Any] = {
        "stride": layer.stride,
        "padding": layer.padding,
        "groups": layer.groups,
    }
    shape = (1, kernel.shape[1] * layer.groups, height, width)

    def operator(x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, kernel, **options)

    def adjoint(y: torch.Tensor) -> torch.Tensor:
        return conv2d_input(shape, kernel, y, **options)  # type: ignore[no-any-return,no-untyped-call]

    return power_iteration(operator, adjoint, shape)


def _symbols(weight: Array, layer: Conv, height: int, width: int) -> Array:
    """Return one matrix per frequency: (frequencies, groups, outputs, inputs) of each group."""
    stride, kernel = layer.stride, weight.shape[-1]
    pointwise = kernel == stride == 1  # then all frequencies have the same matrix
    torus = (1, 1) if pointwise else tuple(_torus(size, layer, kernel) for size in (height, width))
    grouped = weight.reshape(layer.groups, -1, *weight.shape[1:])
    spectrum = _transform(grouped, torus)
    if stride > 1:
        # Frequencies that differ by a multiple of `size / stride` alias when every `stride`-th
        # value is kept; with unitary transforms each passes with the factor `1 / stride`.
        rows, columns = (size // stride for size in torus)
        parts = spectrum.reshape(stride, rows, stride, columns, *spectrum.shape[2:])
        parts = np.moveaxis(parts, (0, 2), (-2, -1))
        spectrum = parts.reshape(*parts.shape[:-3], -1) / stride
    return spectrum.reshape(-1, *spectrum.shape[2:])


def _torus(size: int, layer: Conv, kernel: int) -> int:
    """Return the side of a torus, a multiple of the stride, on which no window meets the map twice.

    Windows may begin `padding` before the map, where the torus has its other end.
    """
    positions = (size + 2 * layer.padding - kernel) // layer.stride
    reach = max(size + layer.padding, positions * layer.stride + kernel - layer.padding)
    return -(-reach // layer.stride) * layer.stride


def _transform(weight: Array, torus: tuple[int, ...]) -> Array:
    """Return the spectrum (rows, columns, ...) of weights whose last two axes are the kernel's."""
    if weight.shape[-1] == 1 and weight.shape[-2] == 1:
        flat = weight[..., 0, 0].astype(np.complex128)
        return np.broadcast_to(flat, (*torus, *flat.shape))  # the same at every frequency
    return np.moveaxis(np.fft.fft2(weight, s=torus), (-2, -1), (0, 1))
