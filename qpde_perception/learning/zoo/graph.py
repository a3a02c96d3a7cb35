"""Graphs as values: the gradient along edges, its transpose, and the degree-weighted average.

Source: Eliasof, Haber, Treister, "PDE-GCN: Novel architectures for graph neural networks motivated
by partial differential equations", NeurIPS 2021.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from qpde_perception.learning.errors import LearningError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """An undirected graph, each edge in both directions and no node tied to itself.

    A ReLU after the gradient passes the flux of one sign: with one direction alone it would stop
    half of the diffusion.

    Attributes:
        nodes: Number of nodes.
        sources: One end of every directed edge, int64, shape (edges,).
        targets: The other end.
        weights: `1 / sqrt(d_i d_j)` of every edge, `d` the degrees with the node itself counted.
        own: `1 / d_i` of every node, shape (nodes,).
        norm_squared: Upper bound of `||S||^2`, `S` the gradient: the largest sum over an edge of
            its nodes' sums of squared weights (Anderson and Morley, 1985).
    """

    nodes: int
    sources: Tensor
    targets: Tensor
    weights: Tensor
    own: Tensor
    norm_squared: float

    @classmethod
    def from_edges(cls, edges: Tensor, nodes: int, *, dtype: torch.dtype = torch.float32) -> Graph:
        """Make a graph of pairs of nodes; direction, repetition and loops are dropped.

        Args:
            edges: Integers, shape (2, edges).
            nodes: Number of nodes.
            dtype: Of the weights; that of the features.

        Raises:
            LearningError: If the shape is another, or an edge leads to no node.
        """
        edges = torch.as_tensor(edges, dtype=torch.int64)
        if edges.ndim != 2 or edges.shape[0] != 2:
            msg = f"edges need the shape (2, edges), not {tuple(edges.shape)}"
            raise LearningError(msg)
        if edges.numel() and not 0 <= int(edges.min()) <= int(edges.max()) < nodes:
            msg = f"edges lead to nodes beyond the {nodes} there are"
            raise LearningError(msg)
        ordered = torch.unique(edges.sort(dim=0).values, dim=1)
        once = ordered[:, ordered[0] != ordered[1]]
        sources, targets = torch.cat([once, once.flip(0)], dim=1)
        degrees = torch.bincount(sources, minlength=nodes).to(dtype) + 1.0
        weights = torch.rsqrt(degrees[sources] * degrees[targets])
        sums = 2.0 * torch.zeros(nodes, dtype=dtype).index_add(0, sources, weights**2)
        largest = (sums[sources] + sums[targets]).max().item() if len(sources) else 0.0
        return cls(nodes, sources, targets, weights, 1.0 / degrees, largest)

    def to(self, device: torch.device | str) -> Graph:
        """Return the graph on a device."""
        return replace(
            self,
            sources=self.sources.to(device),
            targets=self.targets.to(device),
            weights=self.weights.to(device),
            own=self.own.to(device),
        )

    def gradient(self, x: Tensor) -> Tensor:
        """Return `S x`: per edge the weighted difference, (nodes, c) to (edges, c)."""
        return self.weights[:, None] * (x[self.sources] - x[self.targets])

    def divergence(self, y: Tensor) -> Tensor:
        """Return `S^T y`, (edges, c) to (nodes, c)."""
        y = self.weights[:, None] * y
        total = torch.zeros(self.nodes, y.shape[1], dtype=y.dtype, device=y.device)
        return total.index_add(0, self.sources, y).index_add(0, self.targets, y, alpha=-1)

    def average(self, x: Tensor) -> Tensor:
        """Return the degree-weighted sum over a node and its neighbours, of the shape of `x`."""
        total = self.own[:, None] * x
        return total.index_add(0, self.sources, self.weights[:, None] * x[self.targets])
