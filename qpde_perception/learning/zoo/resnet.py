"""Residual networks for small images: with strided shortcuts, and append-and-pool (StableNet).

A residual network has a non-symmetric block with a 1x1 shortcut wherever the shape changes. As
published, its symmetric twin keeps the first block of every stage non-symmetric; a StableNet has
none of these: it appends and pools, and all of its blocks may be symmetric. A certified residual
network needs exactly that, and is built so.

ResNet-34 is the adaptation to small images that keeps the widths 64 to 512 and replaces the 7x7
stem and the max pooling of the original by a 3x3 convolution of stride 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from qpde_perception.learning.errors import LearningError
from qpde_perception.learning.zoo.blocks import Block, Place, SymmetricBlock, TwoKernelBlock
from qpde_perception.learning.zoo.certified import CertifiedBlock
from qpde_perception.learning.zoo.layers import Convolution, GlobalAverage, Stem

if TYPE_CHECKING:
    from qpde_perception.learning.zoo.layers import Style


@dataclass(frozen=True, slots=True)
class ResNetConfig:
    """Shape of a residual network.

    Attributes:
        depths: Blocks per stage; all stages but the first halve the resolution.
        widths: Channels per stage.
        appends: Whether shapes change by appending and pooling; otherwise by strided shortcuts.
        step: `h` of the published symmetric blocks.
        certified_step: Largest `h` of the certified blocks.
        size: Height and width of the images, pixels; what certified norms are taken for.
    """

    depths: tuple[int, ...]
    widths: tuple[int, ...] = (16, 32, 64)
    appends: bool = False
    step: float = 0.1
    certified_step: float = 1.0
    size: int = 32


class ResNet(nn.Module):
    """A residual network of one flavour; shapes of stages as its configuration says."""

    def __init__(self, config: ResNetConfig, style: Style, *, inputs: int, classes: int) -> None:
        super().__init__()
        if len(config.depths) != len(config.widths):
            msg = "depths and widths need one entry per stage each"
            raise LearningError(msg)
        self.stem = Stem(inputs, config.widths[0])
        self.stages = nn.Sequential(
            *(nn.Sequential(*_stage(config, style, index)) for index in range(len(config.depths)))
        )
        self.features = GlobalAverage()
        self.head_norm = style.head_norm(config.widths[-1])
        self.head = nn.Linear(config.widths[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, shape (n, classes), of normalised images (n, inputs, height, width)."""
        x = self.features(self.stages(self.stem(images)))
        return self.head(self.head_norm(x))  # type: ignore[no-any-return]


def _stage(config: ResNetConfig, style: Style, stage: int) -> list[Block]:
    outputs = config.widths[stage]
    appends = config.appends or style.flavour == "certified"
    blocks = []
    for index in range(config.depths[stage]):
        first = index == 0
        halves = first and stage > 0
        inputs = config.widths[max(stage - 1, 0)] if first else outputs
        # The stage before has halved its size already where this block is not the first.
        size = config.size >> (stage - 1 if halves else stage)
        place = Place(stage, inputs, outputs, halves=halves, size=size)
        blocks.append(_block(config, style, place, appends=appends, first=first))
    return blocks


def _block(
    config: ResNetConfig, style: Style, place: Place, *, appends: bool, first: bool
) -> Block:
    if style.flavour == "certified":
        operator = Convolution(place.inputs, style)
        return CertifiedBlock(place, operator, style, step=config.certified_step, rectified=True)
    if style.flavour == "paper" and (appends or not first):
        operator = Convolution(place.inputs, style)
        return SymmetricBlock(place, operator, style, step=config.step, rectified=True)
    sign = 1.0 if style.flavour == "ordinary" else -1.0
    return TwoKernelBlock(place, style, sign=sign, strided=not appends)
