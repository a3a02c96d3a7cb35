"""The zoo by name: a configuration for every published network, and its constructor."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

from qpde_perception.learning.errors import LearningError
from qpde_perception.learning.zoo.layers import Flavour, Style
from qpde_perception.learning.zoo.mobilenet import MobileNetConfig, MobileNetV2
from qpde_perception.learning.zoo.pde_gcn import GraphConfig, PdeGcn
from qpde_perception.learning.zoo.quantizers import Grid
from qpde_perception.learning.zoo.resnet import ResNet, ResNetConfig

if TYPE_CHECKING:
    from torch import nn

    from qpde_perception.learning.zoo.smoothing import SmoothingConfig

FLAVOURS: tuple[Flavour, ...] = ("ordinary", "twin", "paper", "certified")

ZOO: dict[str, ResNetConfig | MobileNetConfig | GraphConfig] = {
    "resnet20": ResNetConfig(depths=(3, 3, 3)),
    "resnet34": ResNetConfig(depths=(3, 4, 6, 3), widths=(64, 128, 256, 512)),
    "resnet56": ResNetConfig(depths=(9, 9, 9)),
    "stablenet20": ResNetConfig(depths=(3, 3, 3), appends=True),
    "stablenet56": ResNetConfig(depths=(9, 9, 9), appends=True),
    "mobilenetv2": MobileNetConfig(),
    "pde_gcn": GraphConfig(),
}


def build(
    name: str,
    flavour: Flavour,
    *,
    classes: int,
    inputs: int = 3,
    quantizer: Grid = "uniform",
    smoothing: SmoothingConfig | None = None,
    **overrides: Any,
) -> nn.Module:
    """Build a network of the zoo, in floating point until `set_bits`.

    Args:
        name: A name of `ZOO`.
        flavour: `ordinary`; `twin`, as many independent kernels; `paper`, symmetric as published;
            `certified`, every block a non-expansive gradient step.
        classes: Number of classes.
        inputs: Channels of the images, or features of the nodes.
        quantizer: `uniform`, or `apot` for additive powers of two.
        smoothing: Total-variation smoothing; None for none.
        overrides: Fields of the configuration to replace.

    Returns:
        A network that takes normalised float images, shape (n, inputs, height, width), or, for a
        graph network, node features, shape (nodes, inputs), and a `Graph`; and gives logits.

    Raises:
        LearningError: If a name is not known or the configuration cannot be built.
    """
    for kind, value, known in (
        ("network", name, tuple(ZOO)),
        ("flavour", flavour, FLAVOURS),
        ("quantizer", quantizer, get_args(Grid)),
    ):
        if value not in known:
            msg = f"no {kind} {value!r}; known are {', '.join(known)}"
            raise LearningError(msg)
    try:
        config = replace(ZOO[name], **overrides)
    except TypeError:
        msg = f"{name} has no setting {', '.join(overrides)}; it has {ZOO[name]}"
        raise LearningError(msg) from None
    style = Style(flavour, quantizer, smoothing)
    if isinstance(config, GraphConfig):
        return PdeGcn(config, style, inputs=inputs, classes=classes)
    if isinstance(config, MobileNetConfig):
        return MobileNetV2(config, style, inputs=inputs, classes=classes)
    return ResNet(config, style, inputs=inputs, classes=classes)
