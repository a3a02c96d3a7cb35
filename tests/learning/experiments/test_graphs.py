"""Reading of a citation graph."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qpde_perception.learning.errors import LearningError
from qpde_perception.learning.experiments.graphs import load_graph

CPU = torch.device("cpu")


def test_a_graph_is_read_as_it_was_written(data):
    graph = load_graph(data, "cora", CPU)
    with np.load(data / "planetoid" / "cora.npz") as arrays:
        assert graph.features.shape == tuple(arrays["x_shape"])
        words = graph.features.nonzero()[:, 1].tolist()
        assert words == arrays["x_indices"].tolist()
        assert graph.edges.tolist() == arrays["edges"].tolist()
    assert graph.classes == 3
    present = graph.features[graph.features > 0]
    torch.testing.assert_close(present, torch.ones_like(present))


def test_a_missing_and_a_damaged_graph_are_named(tmp_path):
    with pytest.raises(LearningError, match=r"pubmed.npz: no such file; --data names"):
        load_graph(tmp_path, "pubmed", CPU)
    (tmp_path / "planetoid").mkdir()
    (tmp_path / "planetoid" / "pubmed.npz").write_bytes(b"no graph")
    with pytest.raises(LearningError, match=r"pubmed.npz: is damaged"):
        load_graph(tmp_path, "pubmed", CPU)
