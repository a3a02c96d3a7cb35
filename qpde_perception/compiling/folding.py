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
from qpde_perception.learning.networks import PIXEL_SPREAD
from qpde_perception.learning.symmetric import PooledHead, Requantization

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qpde_perception.learning.networks import Stage, SymmetricMobileNetV2
    from qpde_perception.learning.quantizers import ActivationQuantizer, WeightQuantizer
    from qpde_perception.learning.symmetric import PositiveBatchNorm, SymmetricBlock

    Array = NDArray[Any]

EXACT_FLOAT32 = 2**24


def fold(network: SymmetricMobileNetV2) -> Specification:
    """Write a trained network in integers.

    Args:
        network: Trained with quantization; its normalisations' running statistics are deployed.

    Raises:
        CompilingError: If a scale is not positive or a sum could leave its integer type.
    """
    with torch.no_grad():
        return _Folder(network).specification()


class _Folder:
    """Collects grids, layers and arrays while walking the network."""

    def __init__(self, network: SymmetricMobileNetV2) -> None:
        self.network = network
        self.grids = {PIXELS: Grid(scale=1.0 / PIXEL_SPREAD, q_min=-128, q_max=127)}
        self.layers: list[Conv | Add | Smooth | Append | Head] = []
        self.arrays: dict[str, Array] = {}

    def specification(self) -> Specification:
        network = self.network
        stem = network.stem
        trunk = self._conv(
            "stem",
            PIXELS,
            network.stages[0].trunk,
            _codes(stem.weight_quantizer, stem.weight),
            _scales(stem.weight_quantizer, stem.norm, self.grids[PIXELS], network.stages[0].trunk),
            stride=stem.stride,
            padding=stem.padding,
        )
        for index, stage in enumerate(network.stages):
            if index:
                trunk = self._append_and_pool(index, stage, trunk)
            trunk = self._stage(index, stage, trunk)
        features = self._conv(
            "features",
            trunk,
            network.rectified,
            _codes(network.features.weight_quantizer, network.features.weight),
            _scales(
                network.features.weight_quantizer,
                network.features.norm,
                self.grids[trunk],
                network.rectified,
            ),
        )
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
            trunk = self._block(f"stage{index}.block{number}", block, trunk)
        return trunk

    def _block(self, name: str, block: SymmetricBlock, trunk: str) -> str:
        expand = _codes(block.expand_quantizer, block.expand)
        depthwise = _codes(block.depthwise_quantizer, block.depthwise)
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
        returned = self._conv(
            f"{name}.depthwise_t",
            rectified,
            block.returned,
            depthwise[:, :, ::-1, ::-1],
            _uniform(block.depthwise_quantizer, hidden),
            padding=1,
            groups=hidden,
        )
        # The minus sign of the step goes into the integers, whose range is symmetric.
        scale, offset = _scales(
            block.expand_quantizer, block.outer_norm, self.grids[returned], block.trunk
        )
        branch = self._conv(
            f"{name}.expand_t",
            returned,
            block.trunk,
            -expand.transpose(1, 0, 2, 3),
            (scale, -offset),
        )
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
        largest = np.abs(codes.astype(np.int64)).sum(1).max() * self.grids[features].q_max * finer
        if largest >= EXACT_FLOAT32:
            msg = f"the head's sums reach {largest}, beyond the integers that float32 holds exactly"
            raise CompilingError(msg)
        step = np.float32(self.grids[features].scale) / np.float32(finer)
        self.arrays["head.weight"] = codes
        self.arrays["head.scale"] = (weight_scale.numpy()[:, 0] * step).astype(np.float32)
        self.arrays["head.bias"] = network.head.bias.detach().numpy().astype(np.float32)
        multiplier = float(np.float32(finer / positions))
        self.layers.append(Head(name="head", input=features, multiplier=multiplier))

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


def _codes(quantizer: WeightQuantizer, weight: torch.Tensor) -> Array:
    return quantizer.codes(weight).numpy().astype(np.int8)


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
