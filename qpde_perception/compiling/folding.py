"""From the trained network to integers: normalisations become scales and biases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from qpde_perception.compiling.errors import CompilingError
from qpde_perception.compiling.specification import (
    PIXELS,
    Add,
    Append,
    Conv,
    Document,
    Grid,
    Head,
    Smooth,
    Specification,
)
from qpde_perception.learning.layers import PooledHead, Requantization
from qpde_perception.learning.networks import PIXEL_SPREAD
from qpde_perception.learning.ordinary import InvertedResidual
from qpde_perception.learning.quantizers import WeightQuantizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qpde_perception.learning.layers import PositiveBatchNorm, QuantizedConv
    from qpde_perception.learning.networks import DeployableMobileNetV2, Stage
    from qpde_perception.learning.quantizers import ActivationQuantizer
    from qpde_perception.learning.symmetric import ResidualStep

    Array = NDArray[Any]

ENGINE_BITS = 8
"""Bits that engines multiply: fewer are a part of the grid for weights, but not for activations."""


def fold(network: DeployableMobileNetV2) -> Specification:
    """Write a trained network in integers.

    Args:
        network: Trained with quantization; its normalisations' running statistics are deployed.

    Raises:
        CompilingError: If the bits are not those of engines, a scale is not positive, or a sum
            could leave its integer type.
    """
    config = network.config
    if config.weight_bits > ENGINE_BITS or config.activation_bits != ENGINE_BITS:
        msg = (
            f"weights of {config.weight_bits} and activations of {config.activation_bits} bits "
            f"cannot be deployed: engines have weights of up to {ENGINE_BITS} and activations of "
            f"{ENGINE_BITS} bits"
        )
        raise CompilingError(msg)
    with torch.no_grad():
        return _Folder(network).specification()


class _Folder:
    """Collects grids, layers and arrays while walking the network."""

    def __init__(self, network: DeployableMobileNetV2) -> None:
        self.network = network
        self.grids = {PIXELS: Grid(scale=1.0 / PIXEL_SPREAD, q_min=-128, q_max=127)}
        self.layers: list[Conv | Add | Smooth | Append | Head] = []
        self.arrays: dict[str, Array] = {}

    def specification(self) -> Specification:
        network = self.network
        trunk = self._normalised("stem", PIXELS, network.stages[0].trunk, network.stem)
        for index, stage in enumerate(network.stages):
            if stage.pools:
                trunk = self._append_and_pool(index, stage, trunk)
            trunk = self._stage(index, stage, trunk)
        features = self._normalised("features", trunk, network.rectified, network.features)
        self._head(features)
        size = network.config.input_size
        document = Document(
            input_height=size, input_width=size, grids=self.grids, layers=tuple(self.layers)
        )
        return Specification(document, self.arrays)

    def _stage(self, index: int, stage: Stage, trunk: str) -> str:
        if stage.smoothing is not None:
            config = stage.smoothing.config
            output = f"stage{index}.smooth"
            self.grids[output] = self.grids[trunk]
            self.layers.append(
                Smooth(
                    name=output,
                    input=trunk,
                    output=output,
                    delta=int(stage.smoothing.delta_codes(stage.trunk.scale)),
                    rate=config.rate,
                    iterations=config.iterations,
                )
            )
            trunk = output
        for number, block in enumerate(stage.blocks):
            name = f"stage{index}.block{number}"
            if isinstance(block, InvertedResidual):
                trunk = self._inverted_residual(name, block, trunk)
            else:
                trunk = self._step(name, block, trunk)
        return trunk

    def _inverted_residual(self, name: str, block: InvertedResidual, trunk: str) -> str:
        expanded = self._normalised(f"{name}.expand", trunk, block.expanded, block.expand)
        rectified = self._normalised(
            f"{name}.depthwise", expanded, block.rectified, block.depthwise
        )
        branch = self._normalised(f"{name}.project", rectified, block.trunk, block.project)
        return self._sum(name, trunk, branch) if block.adds else branch

    def _step(self, name: str, block: ResidualStep, trunk: str) -> str:
        expand, depthwise, depthwise_back, project = map(
            _int8, block.kernels(WeightQuantizer.codes)
        )
        depthwise_back_quantizer, project_quantizer = block.back_quantizers
        hidden = len(depthwise)
        expanded = self._conv(
            f"{name}.expand",
            trunk,
            block.expanded,
            expand,
            _uniform(block.expand_quantizer, hidden),
        )
        rectified = self._conv(
            f"{name}.depthwise",
            expanded,
            block.rectified,
            depthwise,
            _scales(
                block.depthwise_quantizer, block.inner_norm, self.grids[expanded], block.rectified
            ),
            padding=1,
            groups=hidden,
        )
        third, fourth = (f"{name}.{convolution}" for convolution in block.way_back)
        returned = self._conv(
            third,
            rectified,
            block.returned,
            depthwise_back,
            _uniform(depthwise_back_quantizer, hidden),
            padding=1,
            groups=hidden,
        )
        # The minus sign of the step goes into the integers, whose range is symmetric.
        scale, offset = _scales(
            project_quantizer, block.outer_norm, self.grids[returned], block.trunk
        )
        branch = self._conv(fourth, returned, block.trunk, -project, (scale, -offset))
        return self._sum(name, trunk, branch)

    def _sum(self, name: str, trunk: str, branch: str) -> str:
        output = f"{name}.sum"
        self.grids[output] = self.grids[trunk]
        self.layers.append(Add(name=output, trunk=trunk, branch=branch, output=output))
        return output

    def _append_and_pool(self, index: int, stage: Stage, trunk: str) -> str:
        widths = self.network.config.widths
        before, after = widths[index - 1], widths[index]
        pooled = self._conv(
            f"stage{index}.pool",
            trunk,
            stage.trunk,
            np.ones((before, 1, 2, 2), np.int8),
            (np.full(before, 0.25), np.zeros(before)),
            stride=2,
            groups=before,
        )
        if after == before:
            return pooled
        output = f"stage{index}.append"
        self.grids[output] = self.grids[pooled]
        layer = Append(name=output, input=pooled, output=output, channels=after - before)
        self.layers.append(layer)
        return output

    def _head(self, features: str) -> None:
        network = self.network
        positions = (network.config.input_size // 2 ** len(network.stages)) ** 2
        finer = 2**PooledHead.EXTRA_BITS
        weight_scale = network.head.weight_scale()
        codes = torch.round(network.head.weight / weight_scale).numpy().astype(np.int8)
        step = np.float32(self.grids[features].scale) / np.float32(finer)
        self.arrays["head.weight"] = codes
        self.arrays["head.scale"] = (weight_scale.numpy()[:, 0] * step).astype(np.float32)
        self.arrays["head.bias"] = network.head.bias.detach().numpy().astype(np.float32)
        multiplier = float(np.float32(finer / positions))
        self.layers.append(Head(name="head", input=features, multiplier=multiplier))

    def _normalised(
        self, name: str, source: str, target: ActivationQuantizer, conv: QuantizedConv
    ) -> str:
        """Add a convolution with its normalisation folded in, return its tensor."""
        return self._conv(
            name,
            source,
            target,
            _int8(conv.weight_quantizer.codes(conv.weight)),
            _scales(conv.weight_quantizer, conv.norm, self.grids[source], target),
            stride=conv.stride,
            padding=conv.padding,
            groups=conv.groups,
        )

    def _conv(
        self,
        name: str,
        source: str,
        target: ActivationQuantizer,
        codes: Array,
        affine: tuple[Array, Array],
        *,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
    ) -> str:
        """Add a convolution, return its tensor.

        The real output is `scale * acc * s_in + offset` with `affine = (scale, offset)`.
        """
        scale, offset = affine
        scale, target_scale = scale.astype(np.float32), target.scale.item()
        steps = np.append(scale, target_scale)
        if not (np.isfinite(steps).all() and (steps > 0).all() and np.isfinite(offset).all()):
            msg = f"{name}: a scale is not positive or an offset no number; training went astray"
            raise CompilingError(msg)
        grid = Grid(scale=target_scale, q_min=target.q_min, q_max=target.q_max)
        if np.frexp(grid.scale)[0] != 0.5 or (np.frexp(scale)[0] * 128 % 1).any():
            msg = f"{name}: a scale has more bits than float32 sums can carry exactly"
            raise CompilingError(msg)
        step = scale.astype(np.float64) * self.grids[source].scale
        bias = np.rint(offset / step)
        fan_in = codes[0].size * 127 * 255
        if np.abs(bias).max() + fan_in >= 2**31:
            msg = f"{name}: a bias of {np.abs(bias).max():.0f} steps does not fit 32 bits"
            raise CompilingError(msg)
        self.arrays[f"{name}.weight"] = np.ascontiguousarray(codes, np.int8)
        self.arrays[f"{name}.scale"] = scale
        self.arrays[f"{name}.bias"] = bias.astype(np.int32)
        self.grids[name] = grid
        self.layers.append(
            Conv(
                name=name, input=source, output=name, stride=stride, padding=padding, groups=groups
            )
        )
        return name


def _int8(codes: torch.Tensor) -> Array:
    return codes.numpy().astype(np.int8)


def _uniform(quantizer: WeightQuantizer, outputs: int) -> tuple[Array, Array]:
    """Return weight scale and zero offset per output channel, where nothing is folded in."""
    return np.full(outputs, quantizer.scale.item()), np.zeros(outputs)


def _scales(
    quantizer: WeightQuantizer, norm: PositiveBatchNorm, source: Grid, target: ActivationQuantizer
) -> tuple[Array, Array]:
    """Return weight scale and real offset per output channel, the normalisation folded in."""
    steps = Requantization(torch.tensor(source.scale) * quantizer.scale, target.scale)
    slope, offset = norm.deployed(steps)
    return slope.double().numpy() * quantizer.scale.item(), offset.double().numpy()
