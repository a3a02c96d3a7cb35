"""Citation graphs with the standard split.

Source: Yang, Cohen, Salakhutdinov, "Revisiting Semi-Supervised Learning with Graph Embeddings",
ICML 2016.
"""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from qpde_perception.learning.errors import LearningError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

FOLDER = "planetoid"


@dataclass(frozen=True, slots=True)
class CitationGraph:
    """A graph whose nodes are to be classified.

    Attributes:
        features: float32, shape (nodes, words), of root mean square one over the words of
            every node.
        edges: int64, shape (edges, 2), each undirected edge once.
        labels: int64, shape (nodes,); -1 for a node without label.
        train: int64, indexes of the nodes that are learned from.
        val: int64, indexes of the nodes that are chosen on.
        test: int64, indexes of the nodes that are reported.
    """

    features: Tensor
    edges: Tensor
    labels: Tensor
    train: Tensor
    val: Tensor
    test: Tensor

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.labels.max()) + 1


def graph_fingerprint(data: Path, name: str) -> str:
    """Return a short hash of a graph's file.

    Raises:
        LearningError: If the file is missing.
    """
    return hashlib.sha256(_path(data, name).read_bytes()).hexdigest()[:12]


def load_graph(data: Path, name: str, device: torch.device) -> CitationGraph:
    """Read one graph.

    Args:
        data: Folder that holds `planetoid/NAME.npz`.
        name: Name of the graph.
        device: Where it goes.

    Raises:
        LearningError: If the file is missing or damaged.
    """
    path = _path(data, name)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            rows, columns = (int(count) for count in arrays["x_shape"])
            counts = np.diff(arrays["x_indptr"])
            features = np.zeros((rows, columns), np.float32)
            features[np.repeat(np.arange(rows), counts), arrays["x_indices"]] = arrays["x_data"]
            # A network without normalisation layers does not lift a small signal.
            squares = np.square(features).sum(axis=1) / np.maximum(counts, 1)
            features /= np.sqrt(np.maximum(squares, 1e-12))[:, None]
            rest = [
                torch.from_numpy(arrays[key].astype(np.int64)).to(device)
                for key in ("edges", "labels", "idx_train", "idx_val", "idx_test")
            ]
    except (KeyError, ValueError, IndexError, OSError, zipfile.BadZipFile) as error:
        msg = f"{path}: is damaged: {error}"
        raise LearningError(msg) from None
    return CitationGraph(torch.from_numpy(features).to(device), *rest)


def _path(data: Path, name: str) -> Path:
    path = data / FOLDER / f"{name}.npz"
    if not path.is_file():
        msg = f"{path}: no such file; --data names the folder that holds {FOLDER}/"
        raise LearningError(msg)
    return path
