"""Networks by name: a constructor and a table of configurations."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (the field's name)

from qpde_perception.learning.errors import LearningError
from qpde_perception.learning.quantizers import ActivationQuantizer
from qpde_perception.learning.symmetric import PooledHead, QuantizedConv, SymmetricBlock
from qpde_perception.learning.total_variation import SmoothingConfig, TotalVariationStep

if TYPE_CHECKING:
    from collections.abc import Sequence

PIXEL_CENTRE = 128.0
PIXEL_SPREAD = 64.0


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """Shape of a symmetric MobileNetV2.

    Attributes:
        input_size: Height and width of the input, pixels.
        classes: Number of classes.
        widths: Channels per stage; each is at most twice the one before.
        depths: Symmetric blocks per stage.
        expansions: Ratio of hidden to trunk channels per stage.
        features: Channels that the head sees.
        weight_bits: Bits of the weights.
        activation_bits: Bits of the activations.
        smoothing: Total-variation smoothing of stage inputs.
        stable: Whether every block is kept within the step size that amplifies nothing.
    """

    input_size: int = 48
    classes: int = 43
    widths: tuple[int, ...] = (32, 64, 128)
    depths: tuple[int, ...] = (2, 3, 4)
    expansions: tuple[int, ...] = (3, 4, 4)
    features: int = 256
    weight_bits: int = 8
    activation_bits: int = 8
    smoothing: SmoothingConfig = field(default_factory=SmoothingConfig)
    stable: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> NetworkConfig:
        """Rebuild from `as_dict`, lists of a JSON document included."""
        plain: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        smoothing = dict(plain.pop("smoothing"))
        smoothing["stages"] = tuple(smoothing["stages"])
        return cls(**plain, smoothing=SmoothingConfig(**smoothing))


CONFIGS: dict[str, NetworkConfig] = {
    "symmetric_mobilenet_v2": NetworkConfig(),
    "stable_mobilenet_v2": NetworkConfig(stable=True),
    "symmetric_mobilenet_v2_tiny": NetworkConfig(
        input_size=16, classes=5, widths=(8, 16), depths=(1, 1), expansions=(2, 2), features=16
    ),
}


class Stage(nn.Module):
    """Blocks of one resolution, their trunk on one grid from end to end."""

    def __init__(self, config: NetworkConfig, index: int) -> None:
        super().__init__()
        self.trunk = ActivationQuantizer(config.activation_bits, signed=True)
        self.smoothing = (
            TotalVariationStep(config.smoothing) if index in config.smoothing.stages else None
        )
        self.blocks: Sequence[SymmetricBlock] = nn.ModuleList(  # type: ignore[assignment]
            SymmetricBlock(
                config.widths[index],
                config.expansions[index],
                self.trunk,
                stable_size=config.input_size // 2 ** (index + 1) if config.stable else None,
                weight_bits=config.weight_bits,
                activation_bits=config.activation_bits,
            )
            for _ in range(config.depths[index])
        )

    def forward(self, x: Tensor) -> Tensor:
        """Run the stage on `x`, on the trunk's grid, shape (n, channels, height, width)."""
        if self.smoothing is not None:
            scale = self.trunk.scale if self.trunk.active else None
            x = self.trunk(self.smoothing(x, scale))
        for block in self.blocks:
            x = block(x)
        return x


class SymmetricMobileNetV2(nn.Module):
    """Forward-stable MobileNetV2: symmetric blocks, append-and-pool transitions, TV smoothing.

    A stage that follows another halves the resolution by 2x2 average pooling and gains channels by
    appending copies of its first ones, so that no strided or 1x1 shortcut breaks the symmetry.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        _check(config)
        self.config = config
        bits = config.weight_bits
        self.stem = QuantizedConv(3, config.widths[0], kernel=3, stride=2, bits=max(bits, 8))
        self.stages: Sequence[Stage] = nn.ModuleList(  # type: ignore[assignment]
            Stage(config, i) for i in range(len(config.widths))
        )
        self.features = QuantizedConv(
            config.widths[-1], config.features, kernel=1, stride=1, bits=bits
        )
        self.rectified = ActivationQuantizer(config.activation_bits, signed=False)
        self.head = PooledHead(config.features, config.classes, self.rectified)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits, shape (n, classes).

        Args:
            pixels: Values 0 to 255, float or uint8, shape (n, 3, height, width).
        """
        scale = torch.full((), 1.0 / PIXEL_SPREAD, device=pixels.device)
        x = self.stem((pixels.float() - PIXEL_CENTRE) * scale, scale, self.stages[0].trunk)
        for index, stage in enumerate(self.stages):
            if index > 0:
                x = append_and_pool(x, self.config.widths[index])
            x = stage(stage.trunk(x))
        features = self.features(x, self.stages[-1].trunk.scale, self.rectified)
        return self.head(self.rectified(F.relu(features)))  # type: ignore[no-any-return]


def append_and_pool(x: Tensor, channels: int) -> Tensor:
    """Halve the resolution by averaging, then append copies of the first channels."""
    pooled = F.avg_pool2d(x, 2)
    return torch.cat([pooled, pooled[:, : channels - pooled.shape[1]]], dim=1)


def build_network(name: str) -> SymmetricMobileNetV2:
    """Build a network by the name of its configuration.

    Raises:
        LearningError: If there is no such configuration.
    """
    if name not in CONFIGS:
        msg = f"no network {name!r}; known are {', '.join(sorted(CONFIGS))}"
        raise LearningError(msg)
    return SymmetricMobileNetV2(CONFIGS[name])


def deployed_parameters(network: nn.Module) -> int:
    """Count the parameters that reach the deployed network: all but the quantizers' clippings."""
    return sum(p.numel() for name, p in network.named_parameters() if not name.endswith("alpha"))


def _check(config: NetworkConfig) -> None:
    lengths = {len(config.widths), len(config.depths), len(config.expansions)}
    if len(lengths) != 1:
        msg = "widths, depths and expansions need one entry per stage each"
        raise LearningError(msg)
    for before, after in zip(config.widths, config.widths[1:], strict=False):
        if not before <= after <= 2 * before:
            msg = f"a stage keeps or at most doubles the channels, not {before} -> {after}"
            raise LearningError(msg)
    if config.input_size % 2 ** len(config.widths):
        msg = f"input size {config.input_size} is not divisible by {2 ** len(config.widths)}"
        raise LearningError(msg)
    smoothing = config.smoothing
    if math.frexp(smoothing.rate)[0] != 0.5 or smoothing.rate > 0.25:
        msg = f"the smoothing rate must be a power of two up to 1/4, not {smoothing.rate}"
        raise LearningError(msg)
    if not 1 <= smoothing.iterations <= 3:
        msg = f"1 to 3 smoothing iterations are exact in float32, not {smoothing.iterations}"
        raise LearningError(msg)
