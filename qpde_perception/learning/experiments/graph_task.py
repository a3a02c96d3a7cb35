"""How a graph network is trained: the whole graph at every step, dropout drawn anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812  (the field's name)

from qpde_perception.learning.experiments.calibration import calibrate
from qpde_perception.learning.experiments.fitting import bits_at, load_weights
from qpde_perception.learning.experiments.runs import FLOAT, GraphRun, float_run
from qpde_perception.learning.zoo import Graph, build, set_bits

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from qpde_perception.learning.experiments.graphs import CitationGraph

NETWORK = "pde_gcn"


class GraphTask:
    """Training of one graph network.

    Args:
        run: What is trained.
        graph: The graph, on the device.
        work: Folder of all runs.
        device: The device.
    """

    # A run takes seconds, a checkpoint some milliseconds.
    watched_epochs, checkpoint_epochs = 5, 50

    def __init__(
        self, run: GraphRun, graph: CitationGraph, work: Path, device: torch.device
    ) -> None:
        self.run, self.graph, self.work, self.device = run, graph, work, device
        self.quantized = run.precision != FLOAT
        recipe = run.recipe
        self.epochs = recipe.quantized_epochs if self.quantized else recipe.float_epochs
        self.words = graph.features.nonzero(as_tuple=True)
        edges = graph.edges.T.cpu()
        self.operator = Graph.from_edges(edges, len(graph.labels)).to(device)

    def build(self) -> nn.Module:
        """Return the network: a new one, or the float run's."""
        run = self.run
        network = build(
            NETWORK,
            run.flavour,
            classes=self.graph.classes,
            inputs=self.graph.features.shape[1],
            hidden=run.recipe.hidden,
            layers=run.recipe.layers,
            step=run.recipe.step,
            dropout=run.recipe.dropout,
        )
        # Of the words that occur alone: most of a network's time went into dropping zeros.
        network.dropout = nn.Identity()
        network.to(self.device)
        if self.quantized:
            load_weights(network, float_run(run), self.work, self.device)
            calibrate(network, lambda trained: trained(self.graph.features, self.operator))
        set_bits(network, run.precision.weights, run.precision.activations)
        return network

    def optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        """Return Adam; weights decay, what is one-dimensional does not."""
        recipe = self.run.recipe
        weights = [p for p in network.parameters() if p.ndim > 1]
        plain = [p for p in network.parameters() if p.ndim <= 1]
        groups = [
            {"params": weights, "weight_decay": recipe.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        rate = recipe.quantized_learning_rate if self.quantized else recipe.learning_rate
        return torch.optim.Adam(groups, lr=rate)

    def epoch(self, network: nn.Module, optimizer: torch.optim.Optimizer, epoch: int) -> Tensor:
        """Take one step and return its loss."""
        if self.quantized:
            bits = bits_at(self.run.precision, epoch / self.epochs)
            set_bits(network, bits.weights, bits.activations)
        chosen = self.graph.train
        logits = network(self._dropped(), self.operator)
        loss = F.cross_entropy(logits[chosen], self.graph.labels[chosen])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    def _dropped(self) -> Tensor:
        """Return the features with their dropout."""
        dropped = torch.zeros_like(self.graph.features)
        values = self.graph.features[self.words]
        dropped[self.words] = F.dropout(values, self.run.recipe.dropout)
        return dropped

    @torch.no_grad()
    def accuracy(self, network: nn.Module, split: str) -> float:
        """Return the accuracy on `val` or `test` at the bits that the network now has."""
        network.eval()
        chosen = self.graph.val if split == "val" else self.graph.test
        found = network(self.graph.features, self.operator)[chosen].argmax(dim=1)
        return int((found == self.graph.labels[chosen]).sum()) / len(chosen)
