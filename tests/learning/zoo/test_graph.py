"""Graphs and graph layers against dense matrices in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F  # noqa: N812

from qpde_perception.learning.errors import LearningError
from qpde_perception.learning.zoo.graph import Graph
from qpde_perception.learning.zoo.layers import Style
from qpde_perception.learning.zoo.pde_gcn import CertifiedGraphBlock, GraphBlock
from qpde_perception.learning.zoo.smoothing import SmoothingConfig

NODES, CHANNELS = 7, 4
EDGES = [(0, 1), (1, 2), (2, 0), (2, 3), (4, 5), (3, 4), (1, 0), (5, 5), (0, 1)]
PLAIN = sorted({tuple(sorted(e)) for e in EDGES if e[0] != e[1]})
DIRECTED = PLAIN + [(j, i) for i, j in PLAIN]


def graph():
    return Graph.from_edges(torch.tensor(EDGES).T, NODES, dtype=torch.float64)


def dense_gradient():
    degrees = [1 + sum(node in edge for edge in PLAIN) for node in range(NODES)]
    matrix = torch.zeros(len(DIRECTED), NODES, dtype=torch.float64)
    for row, (i, j) in enumerate(DIRECTED):
        weight = (degrees[i] * degrees[j]) ** -0.5
        matrix[row, i], matrix[row, j] = weight, -weight
    return matrix


def style(flavour, smoothing=None):
    return Style(flavour, "uniform", smoothing)


def features(count=NODES):
    return torch.randn(count, CHANNELS, dtype=torch.float64)


def test_gradient_and_divergence_are_a_matrix_and_its_transpose():
    torch.manual_seed(0)
    S = dense_gradient()
    torch.testing.assert_close(graph().gradient(torch.eye(NODES, dtype=torch.float64)), S)
    torch.testing.assert_close(graph().divergence(torch.eye(len(S), dtype=torch.float64)), S.T)


def test_average_is_that_of_graph_convolutions():
    adjacency = torch.eye(NODES, dtype=torch.float64)
    for i, j in PLAIN:
        adjacency[i, j] = adjacency[j, i] = 1
    scale = adjacency.sum(1).rsqrt()
    expected = scale[:, None] * adjacency * scale[None, :]
    identity = torch.eye(NODES, dtype=torch.float64)
    torch.testing.assert_close(graph().average(identity), expected)


@given(st.integers(2, 12), st.integers(0, 2**32 - 1))
def test_norm_of_the_gradient_is_bounded(nodes, seed):
    generator = torch.Generator().manual_seed(seed)
    edges = torch.randint(0, nodes, (2, 2 * nodes), generator=generator)
    made = Graph.from_edges(edges, nodes, dtype=torch.float64)
    exact = torch.linalg.matrix_norm(made.gradient(torch.eye(nodes, dtype=torch.float64)), 2) ** 2
    assert exact <= made.norm_squared * (1 + 1e-6)
    assert made.norm_squared <= 4 + 1e-6


def test_graph_without_edges_changes_nothing():
    made = Graph.from_edges(torch.zeros(2, 0, dtype=torch.int64), 3)
    x = torch.randn(3, 2)
    assert torch.equal(made.divergence(made.gradient(x)), torch.zeros(3, 2))
    block = CertifiedGraphBlock(2, style("certified"), step=1.0).eval()
    assert torch.equal(block(x, made), x)


@pytest.mark.parametrize(
    ("edges", "message"), [(torch.zeros(3, 4), "shape"), (torch.tensor([[0], [9]]), "beyond the 7")]
)
def test_impossible_edges_are_refused(edges, message):
    with pytest.raises(LearningError, match=message):
        Graph.from_edges(edges, NODES)


def test_flux_of_either_sign_passes_the_relu():
    made = graph()
    x = features()
    flux = made.divergence(torch.relu(made.gradient(x)))
    torch.testing.assert_close(flux, made.divergence(made.gradient(x)) / 2)


def test_symmetric_layer_is_its_formula():
    torch.manual_seed(1)
    block = GraphBlock(CHANNELS, style("paper"), step=0.7).double()
    S, K, x = dense_gradient(), block.first.weight.detach(), features()
    expected = x - 0.7 * S.T @ (torch.relu(S @ x @ K.T) @ K)
    torch.testing.assert_close(block(x, graph()), expected, rtol=0, atol=1e-10)


def test_twin_layer_is_its_formula():
    torch.manual_seed(2)
    block = GraphBlock(CHANNELS, style("twin"), step=0.7).double()
    S, x = dense_gradient(), features()
    K1, K2 = block.first.weight.detach(), block.second.weight.detach()
    expected = x - 0.7 * S.T @ (torch.relu(S @ x @ K1.T) @ K2.T)
    torch.testing.assert_close(block(x, graph()), expected, rtol=0, atol=1e-10)


def test_ordinary_layer_is_a_residual_graph_convolution():
    torch.manual_seed(3)
    block = GraphBlock(CHANNELS, style("ordinary"), step=0.7).double()
    x = features()
    expected = x + torch.relu(graph().average(x) @ block.first.weight.T)
    torch.testing.assert_close(block(x, graph()), expected, rtol=0, atol=1e-10)


def certified(seed, smoothing=None):
    torch.manual_seed(seed)
    block = CertifiedGraphBlock(CHANNELS, style("certified", smoothing), step=100.0).double()
    block.mixing.weight.data.normal_()
    block.shift.data.normal_()
    return block.eval()


def test_certified_layer_is_a_gradient_step():
    block = certified(4)
    S, K, x = dense_gradient(), block.mixing.weight.detach(), features()
    exact = torch.linalg.matrix_norm(K, 2).item() ** 2
    assert block.norm.squared.item() == pytest.approx(exact, rel=0.01)
    h = block.limited_step(graph().norm_squared).item()
    assert h * exact * torch.linalg.matrix_norm(S, 2).item() ** 2 <= 2
    expected = x - h * S.T @ (torch.relu(S @ x @ K.T + block.shift.detach()) @ K)
    torch.testing.assert_close(block(x, graph()), expected, rtol=0, atol=1e-10)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.floats(1e-3, 30),
    st.sampled_from([None, SmoothingConfig(), SmoothingConfig(flux="huber", iterations=2)]),
)
def test_certified_layers_never_move_two_inputs_apart(seed, spread, smoothing):
    block = certified(seed, smoothing)
    x = features()
    y = x + spread * features()
    assert (block(x, graph()) - block(y, graph())).norm() <= (x - y).norm() * (1 + 1e-12)


def test_smoothing_acts_along_the_edges():
    torch.manual_seed(5)
    plain, smoothed = (
        GraphBlock(CHANNELS, style("paper", smoothing), step=0.7).double()
        for smoothing in (None, SmoothingConfig(eps=0.3, gamma=0.2))
    )
    smoothed.load_state_dict(plain.state_dict())
    S, x = dense_gradient(), features()
    before = plain(x, graph())
    change = S @ before
    expected = before - 0.2**2 * S.T @ (change / torch.sqrt(change**2 + 0.3))
    torch.testing.assert_close(smoothed(x, graph()), expected)


def test_smoothing_of_some_stages_is_refused():
    with pytest.raises(LearningError, match="all layers"):
        GraphBlock(CHANNELS, style("paper", SmoothingConfig(stages=(1,))), step=1.0)


def test_weights_keep_their_scale_when_rounded():
    torch.manual_seed(6)
    block = GraphBlock(CHANNELS, style("paper"), step=0.7)
    exact = block.first()
    block.first.quantizer.bits = 8
    block.first.quantizer.alpha.data.fill_(10.0)
    assert F.mse_loss(block.first(), exact).sqrt() < 0.05 * exact.std()
