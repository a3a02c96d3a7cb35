"""Networks by name: a constructor and a table of configurations."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (the field's name)

from qpde_perception.learning.errors import LearningError
from qpde_perception.learning.layers import PooledHead, QuantizedConv
from qpde_perception.learning.limited import LimitedBlock, StepLimit
from qpde_perception.learning.ordinary import InvertedResidual
from qpde_perception.learning.quantizers import ActivationQuantizer
from qpde_perception.learning.symmetric import SymmetricBlock
from qpde_perception.learning.total_variation import SmoothingConfig, TotalVariationStep
from qpde_perception.learning.twin import TwinBlock

if TYPE_CHECKING:
    from collections.abc import Sequence

PIXEL_CENTRE = 128.0
PIXEL_SPREAD = 64.0

Flavour = Literal["symmetric", "twin", "ordinary"]
Block = SymmetricBlock | TwinBlock | InvertedResidual


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """Shape of a deployable MobileNetV2.

    Attributes:
        input_size: Height and width of the input, pixels.
        classes: Number of classes.
        widths: Channels per stage; each is at most twice the one before.
        depths: Blocks per stage.
        expansions: Ratio of a block's hidden channels to those it gets, per stage.
        features: Channels that the head sees.
        weight_bits: Bits of the weights of the 1x1 convolutions; stem, depthwise kernels and head
            have at least 8.
        activation_bits: Bits of the activations.
        smoothing: Total-variation smoothing of stage inputs.
        stage_gain: Largest product, over the blocks of a stage, of the factors by which symmetric
            blocks may move two inputs apart, each in its own norm: at least one, which amplifies
            nothing; the blocks share it evenly. None leaves the steps to training.
        level_channels: Whether such a limit scales hidden channels first, see `StepLimit`.
        flavour: What a block is: `symmetric`, its `twin` of independent kernels, or the `ordinary`
            inverted residual.
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
    stage_gain: float | None = None
    level_channels: bool = False
    flavour: Flavour = "symmetric"

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> NetworkConfig:
        """Rebuild from `as_dict`, lists of a JSON document included."""
        plain: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        if plain.pop("stable", False):  # how a gain of one was once written
            plain["stage_gain"] = 1.0
        smoothing = dict(plain.pop("smoothing"))
        smoothing["stages"] = tuple(smoothing["stages"])
        return cls(**plain, smoothing=SmoothingConfig(**smoothing))


UNSMOOTHED = SmoothingConfig(stages=())
TINY = NetworkConfig(
    input_size=16, classes=5, widths=(8, 16), depths=(1, 1), expansions=(2, 2), features=16
)
WIDE = NetworkConfig(widths=(40, 80, 160))
# Such a trunk cannot blow up what matters, so the head has more features to find it by (8 % more
# multiply-adds). Its unit is not learned, so no difference could be learned to be an edge, and
# nothing is smoothed.
LIMITED = NetworkConfig(stage_gain=1.0, smoothing=UNSMOOTHED, features=1024)
LIMITS: dict[str, NetworkConfig] = {
    "stable": LIMITED,
    "level": replace(LIMITED, level_channels=True),
    "gain4": replace(LIMITED, stage_gain=4.0),
}
"""What keeps the blocks of a symmetric network from stepping too far, by name."""
ALIKE: dict[str, NetworkConfig] = {
    "symmetric": NetworkConfig(),
    **LIMITS,
    "twin": NetworkConfig(flavour="twin"),
    # Three convolutions a block, not four, and its strided blocks are cheaper: two of the hidden
    # widths are larger, so that the multiply-adds are about the same (2 % more).
    "ordinary": NetworkConfig(flavour="ordinary", expansions=(4, 5, 4), smoothing=UNSMOOTHED),
}
"""Networks of about equal compute, by what a block is and what keeps it from stepping too far."""
CONFIGS: dict[str, NetworkConfig] = {
    "symmetric_mobilenet_v2_wide": WIDE,
    "symmetric_mobilenet_v2_wide_w4a8": replace(WIDE, weight_bits=4),
    **{f"{name}_mobilenet_v2": config for name, config in ALIKE.items()},
    "symmetric_mobilenet_v2_tiny": TINY,
    "symmetric_mobilenet_v2_tiny_w4a8": replace(TINY, weight_bits=4),
    "twin_mobilenet_v2_tiny": replace(TINY, flavour="twin"),
    "ordinary_mobilenet_v2_tiny": replace(TINY, flavour="ordinary", smoothing=UNSMOOTHED),
}


class Stage(nn.Module):
    """Blocks of one resolution, their trunk on one grid from end to end.

    Attributes:
        pools: Whether the stage begins by append-and-pool.
    """

    def __init__(
        self, config: NetworkConfig, index: int, before: ActivationQuantizer | None
    ) -> None:
        """Make a stage.

        Args:
            config: Shape of the network.
            index: Of the stage.
            before: Quantizer of the trunk of the stage before; None at the first stage.
        """
        super().__init__()
        self.channels = config.widths[index]
        self.pools = index > 0 and config.flavour != "ordinary"
        self.trunk = ActivationQuantizer(config.activation_bits, signed=True)
        self.smoothing = (
            TotalVariationStep(config.smoothing) if index in config.smoothing.stages else None
        )
        self.blocks: Sequence[Block] = nn.ModuleList(  # type: ignore[assignment]
            _block(config, index, number, self.trunk, before)
            for number in range(config.depths[index])
        )

    def forward(self, x: Tensor) -> Tensor:
        """Run the stage.

        Args:
            x: On the grid of the trunk before, at the first stage of its own; shape (n, channels,
                height, width).
        """
        if self.pools:
            x = self.trunk(append_and_pool(x, self.channels))
        if self.smoothing is not None:
            scale = self.trunk.scale if self.trunk.active else None
            x = self.trunk(self.smoothing(x, scale))
        for block in self.blocks:
            x = block(x)
        return x


def _block(
    config: NetworkConfig,
    index: int,
    number: int,
    trunk: ActivationQuantizer,
    before: ActivationQuantizer | None,
) -> Block:
    width, expansion = config.widths[index], config.expansions[index]
    bits = {"weight_bits": config.weight_bits, "activation_bits": config.activation_bits}
    if config.flavour == "twin":
        return TwinBlock(width, expansion, trunk, **bits)
    if config.flavour == "symmetric":
        limit = _limit(config, index)
        if limit is not None:
            return LimitedBlock(width, expansion, trunk, limit=limit, **bits)
        return SymmetricBlock(width, expansion, trunk, **bits)
    if number == 0 and before is not None:
        inputs = config.widths[index - 1]
        return InvertedResidual(inputs, width, expansion, (before, trunk), stride=2, **bits)
    return InvertedResidual(width, width, expansion, (trunk, trunk), stride=1, **bits)


def _limit(config: NetworkConfig, index: int) -> StepLimit | None:
    if config.stage_gain is None:
        return None
    size = config.input_size // 2 ** (index + 1)
    return StepLimit(size, config.stage_gain ** (1.0 / config.depths[index]), config.level_channels)


class DeployableMobileNetV2(nn.Module):
    """MobileNetV2 whose every quantized tensor lies on the grid that is deployed.

    In the symmetric flavour, forward-stable, and in its twin a stage that follows another halves
    the resolution by 2x2 average pooling and gains channels by appending copies of its first ones,
    so that no strided or 1x1 shortcut breaks the symmetry; stages may begin with total-variation
    smoothing. In the ordinary flavour the first block of such a stage has stride 2 and no identity.
    Stem, features and head are the same in all.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        _check(config)
        self.config = config
        bits = config.weight_bits
        self.stem = QuantizedConv(3, config.widths[0], kernel=3, stride=2, bits=max(bits, 8))
        # The unit of a limited trunk says nothing: blocks normalise what they see of it, and their
        # limits follow.
        self.stem.norm.log_scale.requires_grad_(config.stage_gain is None)
        stages: list[Stage] = []
        for index in range(len(config.widths)):
            stages.append(Stage(config, index, stages[-1].trunk if stages else None))
        self.stages: Sequence[Stage] = nn.ModuleList(stages)  # type: ignore[assignment]
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
        trunk = self.stages[0].trunk
        x = trunk(self.stem((pixels.float() - PIXEL_CENTRE) * scale, scale, trunk))
        for stage in self.stages:
            x = stage(x)
        features = self.features(x, self.stages[-1].trunk.scale, self.rectified)
        return self.head(self.rectified(F.relu(features)))  # type: ignore[no-any-return]


def append_and_pool(x: Tensor, channels: int) -> Tensor:
    """Halve the resolution by averaging, then append copies of the first channels."""
    pooled = F.avg_pool2d(x, 2)
    return torch.cat([pooled, pooled[:, : channels - pooled.shape[1]]], dim=1)


def build_network(name: str) -> DeployableMobileNetV2:
    """Build a network by the name of its configuration.

    Raises:
        LearningError: If there is no such configuration.
    """
    if name not in CONFIGS:
        msg = f"no network {name!r}; known are {', '.join(sorted(CONFIGS))}"
        raise LearningError(msg)
    return DeployableMobileNetV2(CONFIGS[name])


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
    if config.flavour not in get_args(Flavour):
        msg = f"no flavour {config.flavour!r}; known are {', '.join(get_args(Flavour))}"
        raise LearningError(msg)
    _check_limit(config)
    _check_smoothing(config)


def _check_limit(config: NetworkConfig) -> None:
    if config.stage_gain is None:
        if config.level_channels:
            msg = "channels are levelled for the sake of a gain; name the gain of a stage too"
            raise LearningError(msg)
        return
    if config.flavour != "symmetric":
        msg = f"only the gain of symmetric blocks can be kept small, not of {config.flavour} ones"
        raise LearningError(msg)
    if not 1.0 <= config.stage_gain < math.inf:
        msg = f"the gain of a stage is a number from 1 on, not {config.stage_gain}"
        raise LearningError(msg)


def _check_smoothing(config: NetworkConfig) -> None:
    smoothing = config.smoothing
    if config.flavour == "ordinary" and smoothing.stages:
        msg = "an ordinary network has no smoothing"
        raise LearningError(msg)
    if math.frexp(smoothing.rate)[0] != 0.5 or smoothing.rate > 0.25:
        msg = f"the smoothing rate must be a power of two up to 1/4, not {smoothing.rate}"
        raise LearningError(msg)
    if not 1 <= smoothing.iterations <= 3:
        msg = f"1 to 3 smoothing iterations are exact in float32, not {smoothing.iterations}"
        raise LearningError(msg)
