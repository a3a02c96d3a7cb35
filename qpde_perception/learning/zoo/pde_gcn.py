"""Graph networks for the classification of nodes: diffusion along edges, symmetric and not.

`x - h S^T K^T sigma(K S x)`, `S` the graph's gradient, `K` a matrix across channels. No
normalisation follows, so the weights keep their scale when they are quantized.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (the field's name)

from qpde_perception.learning.errors import LearningError
from qpde_perception.learning.total_variation import bounded
from qpde_perception.learning.zoo.blocks import Block
from qpde_perception.learning.zoo.certified import GradientStep, SpectralNorm
from qpde_perception.learning.zoo.quantizers import LearnedWeightQuantizer

if TYPE_CHECKING:
    from collections.abc import Callable

    from qpde_perception.learning.zoo.graph import Graph
    from qpde_perception.learning.zoo.layers import Style
    from qpde_perception.learning.zoo.smoothing import SmoothingConfig


@dataclass(frozen=True, slots=True)
class GraphConfig:
    """Shape of a graph network.

    Attributes:
        hidden: Channels of every layer.
        layers: Residual layers.
        dropout: Share of the features dropped in training before the first and last dense layer.
        step: `h`; the largest one of certified layers.
    """

    hidden: int = 64
    layers: int = 8
    dropout: float = 0.5
    step: float = 1.0


class _Mixing(nn.Module):
    """A matrix across channels and its quantizer; near the identity, so that layers diffuse."""

    def __init__(self, channels: int, style: Style) -> None:
        super().__init__()
        noise = torch.randn(channels, channels) * 0.1 / channels**0.5
        self.weight = nn.Parameter(torch.eye(channels) + noise)
        self.quantizer = LearnedWeightQuantizer(style.grid, normalised=False)

    def forward(self) -> Tensor:
        return self.quantizer(self.weight)  # type: ignore[no-any-return]


class _GraphSmoothing(nn.Module):
    """`x - gamma^2 S^T phi(S x)`: total variation along the edges of the graph."""

    def __init__(self, config: SmoothingConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        config = self.config
        for _ in range(config.iterations):
            flux = bounded(graph.gradient(x), config.delta, config.flux)
            x = x - config.rate * graph.divergence(flux)
        return x


class GraphBlock(Block):
    """One residual layer that is not certified.

    `ordinary` is a graph convolution, `x + sigma(K A x)`, `A` the degree-weighted average; `twin`
    is `x - h S^T K2 sigma(K1 S x)`; `paper` the same with `K2 = K1^T`.
    """

    def __init__(self, channels: int, style: Style, *, step: float) -> None:
        super().__init__()
        self.flavour, self.step = style.flavour, step
        self.incoming = style.activations(signed=True)
        self.first = _Mixing(channels, style)
        self.second = _Mixing(channels, style) if style.flavour == "twin" else None
        self.inner = style.activations()
        self.outer_smoothing = _outer_smoothing(style)

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        """Take one step from `x`, shape (nodes, channels)."""
        x = self.incoming(x)
        first = self.first()
        if self.flavour == "ordinary":
            after = x + self.inner(F.relu(F.linear(graph.average(x), first)))
        else:
            second = first.T if self.second is None else self.second()
            y = self.inner(F.relu(F.linear(graph.gradient(x), first)))
            after = torch.sub(x, graph.divergence(F.linear(y, second)), alpha=self.step)
        return _smoothed(after, graph, self.outer_smoothing)


class CertifiedGraphBlock(GradientStep):
    """`x - h S^T K^T sigma(K S x + b)` with `h = min(step, 2 / (||K||^2 ||S||^2))`.

    `K` acts across channels and `S` across nodes, so the norm of both is the product of the norms.

    Attributes:
        shift: `b`, shape (channels,).
    """

    def __init__(self, channels: int, style: Style, *, step: float) -> None:
        super().__init__(SpectralNorm(channels), step)
        self.incoming = style.activations(signed=True)
        self.mixing = _Mixing(channels, style)
        self.shift = nn.Parameter(torch.zeros(channels))
        self.inner = style.activations()
        self.outer_smoothing = _outer_smoothing(style)

    def gram(self) -> Callable[[Tensor], Tensor]:
        """Return `K^T K`."""
        return _gram(self.mixing())

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        """Take one step from `x`, shape (nodes, channels)."""
        x = self.incoming(x)
        kernel = self.mixing()
        if self.training:
            self.norm.follow(_gram(kernel))
        y = self.inner(F.relu(F.linear(graph.gradient(x), kernel, self.shift)))
        h = self.limited_step(graph.norm_squared)
        after = x - h * graph.divergence(F.linear(y, kernel.T))
        return _smoothed(after, graph, self.outer_smoothing)


def _gram(kernel: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda v: kernel.T @ (kernel @ v)


def _outer_smoothing(style: Style) -> _GraphSmoothing | None:
    smoothing = style.smoothing
    if smoothing is None:
        return None
    if smoothing.sites != ("outer",) or smoothing.stages is not None:
        msg = f"a graph network smooths the output of all layers, site 'outer', not {smoothing}"
        raise LearningError(msg)
    return _GraphSmoothing(smoothing)


def _smoothed(x: Tensor, graph: Graph, smoothing: _GraphSmoothing | None) -> Tensor:
    return x if smoothing is None else smoothing(x, graph)


class PdeGcn(nn.Module):
    """Dense layer, residual layers along the graph, dense layer."""

    def __init__(self, config: GraphConfig, style: Style, *, inputs: int, classes: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        self.opening = nn.Linear(inputs, config.hidden)
        make = CertifiedGraphBlock if style.flavour == "certified" else GraphBlock
        self.blocks = nn.ModuleList(
            make(config.hidden, style, step=config.step) for _ in range(config.layers)
        )
        self.features = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.hidden, classes)

    def forward(self, features: Tensor, graph: Graph) -> Tensor:
        """Return logits, shape (nodes, classes), of node features (nodes, inputs)."""
        x = F.relu(self.opening(self.dropout(features)))
        for block in self.blocks:
            x = block(x, graph)
        return self.head(self.features(x))  # type: ignore[no-any-return]
