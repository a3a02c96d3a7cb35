"""MobileNetV2 for small images, and its symmetric forms.

The adaptation to small images keeps the published table of stages with a stem of 16 channels and
stride 1, and no stride in the first two stages. As published, the symmetric form keeps the first
block of every stage, which changes the shape, non-symmetric; the certified form appends and pools
instead. The convolution before the pooling is quantized; first and last layer are not.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (the field's name)

from qpde_perception.learning.errors import LearningError
from qpde_perception.learning.zoo.blocks import Block, Place, SymmetricBlock
from qpde_perception.learning.zoo.certified import CertifiedBlock
from qpde_perception.learning.zoo.layers import (
    ExpandedConvolution,
    GlobalAverage,
    Kernel,
    Stem,
    Style,
)


@dataclass(frozen=True, slots=True)
class MobileNetConfig:
    """Shape of a MobileNetV2.

    Attributes:
        stem: Channels of the first convolution.
        widths: Channels per stage.
        depths: Blocks per stage.
        expansions: Ratio of hidden to trunk channels per stage.
        halvings: Whether the stage's first block halves the resolution.
        last: Channels that are pooled.
        step: `h` of the published symmetric blocks.
        certified_step: Largest `h` of the certified blocks.
        size: Height and width of the images, pixels; what certified norms are taken for.
    """

    stem: int = 16
    widths: tuple[int, ...] = (16, 24, 32, 64, 96, 160, 320)
    depths: tuple[int, ...] = (1, 2, 3, 4, 3, 3, 1)
    expansions: tuple[int, ...] = (1, 6, 6, 6, 6, 6, 6)
    halvings: tuple[bool, ...] = (False, False, True, True, False, True, False)
    last: int = 1280
    step: float = 0.1
    certified_step: float = 1.0
    size: int = 32


class InvertedResidual(Block):
    """`x + sign K3 sigma(K2 sigma(K1 x))`: expansion, depthwise, projection, each normalised.

    Without the identity where the shape changes.
    """

    def __init__(self, place: Place, hidden: int, style: Style, *, sign: float) -> None:
        super().__init__()
        self.sign, self.hidden = sign, hidden
        self.stride = 2 if place.halves else 1
        self.residual = not place.halves and place.inputs == place.outputs
        self.incoming = style.activations()
        self.expand = Kernel(hidden, place.inputs, 1, style)
        self.expand_norm = nn.BatchNorm2d(hidden)
        self.expanded_smoothing = style.smoother("inner", place.stage)
        self.expanded = style.activations()
        self.depthwise = Kernel(hidden, hidden, 3, style, depthwise=True)
        self.depthwise_norm = nn.BatchNorm2d(hidden)
        self.inner_smoothing = style.smoother("inner", place.stage)
        self.inner = style.activations()
        self.project = Kernel(place.outputs, hidden, 1, style)
        self.project_norm = nn.BatchNorm2d(place.outputs)
        self.outer_smoothing = style.smoother("outer", place.stage)

    def forward(self, x: Tensor) -> Tensor:
        """Run the block on `x`, shape (n, inputs, height, width)."""
        x = self.incoming(x)
        y = F.relu(self.expand_norm(F.conv2d(x, self.expand())))
        y = self.expanded(self.expanded_smoothing(y))
        y = F.conv2d(y, self.depthwise(), stride=self.stride, padding=1, groups=self.hidden)
        y = self.inner(self.inner_smoothing(F.relu(self.depthwise_norm(y))))
        y = self.project_norm(F.conv2d(y, self.project()))
        after = torch.add(x, y, alpha=self.sign) if self.residual else y
        return self.outer_smoothing(after)  # type: ignore[no-any-return]


class MobileNetV2(nn.Module):
    """MobileNetV2 of one flavour; shapes of stages as its configuration says."""

    def __init__(self, config: MobileNetConfig, style: Style, *, inputs: int, classes: int) -> None:
        super().__init__()
        shapes = (config.widths, config.depths, config.expansions, config.halvings)
        if len({len(shape) for shape in shapes}) != 1:
            msg = "widths, depths, expansions and halvings need one entry per stage each"
            raise LearningError(msg)
        self.stem = Stem(inputs, config.stem)
        self.stages = nn.Sequential(
            *(nn.Sequential(*_stage(config, style, index)) for index in range(len(config.depths)))
        )
        self.incoming = style.activations(signed=style.flavour == "certified")
        self.closing = Kernel(config.last, config.widths[-1], 1, style)
        self.closing_norm = nn.BatchNorm2d(config.last)
        self.features = GlobalAverage()
        self.head_norm = style.head_norm(config.last)
        self.head = nn.Linear(config.last, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, shape (n, classes), of normalised images (n, inputs, height, width)."""
        x = self.incoming(self.stages(self.stem(images)))
        x = F.relu(self.closing_norm(F.conv2d(x, self.closing())))
        return self.head(self.head_norm(self.features(x)))  # type: ignore[no-any-return]


def _stage(config: MobileNetConfig, style: Style, stage: int) -> list[Block]:
    before = config.widths[stage - 1] if stage > 0 else config.stem
    outputs = config.widths[stage]
    halvings = sum(config.halvings[:stage])
    blocks = []
    for index in range(config.depths[stage]):
        first = index == 0
        halves = first and config.halvings[stage]
        size = config.size >> (halvings + (config.halvings[stage] and not first))
        place = Place(stage, before if first else outputs, outputs, halves=halves, size=size)
        hidden = place.inputs * config.expansions[stage]
        blocks.append(_block(config, style, place, hidden, first=first))
    return blocks


def _block(
    config: MobileNetConfig, style: Style, place: Place, hidden: int, *, first: bool
) -> Block:
    if style.flavour == "certified":
        operator = ExpandedConvolution(place.inputs, hidden, style)
        return CertifiedBlock(place, operator, style, step=config.certified_step, rectified=False)
    if style.flavour == "paper" and not first:
        operator = ExpandedConvolution(place.inputs, hidden, style)
        return SymmetricBlock(place, operator, style, step=config.step, rectified=False)
    sign = 1.0 if style.flavour == "ordinary" else -1.0
    return InvertedResidual(place, hidden, style, sign=sign)
