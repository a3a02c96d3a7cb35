"""`qpde experiment`: what it promises, and what it refuses with one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="experiments want torch")

ROOT = Path(__file__).parents[2]
GRAPH = """
cpu: &small
  graphs: [cora]
  flavours: [twin, paper]
  precisions: [float, W4A4]
  seeds: [1, 2]
  recipe: {float_epochs: 5, quantized_epochs: 2, hidden: 4, layers: 1}
cuda: *small
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to work in, with settings and a graph of a few nodes."""
    monkeypatch.chdir(tmp_path)
    Path("experiments").mkdir()
    Path("experiments/graph.yaml").write_text(GRAPH)
    Path("data/planetoid").mkdir(parents=True)
    np.savez(
        "data/planetoid/cora.npz",
        x_data=np.ones(12, np.float32),
        x_indices=np.arange(12) % 4,
        x_indptr=np.arange(13),
        x_shape=np.array([12, 4]),
        edges=np.array([(i, i + 4) for i in range(8)]),
        labels=np.arange(12) % 4,
        idx_train=np.arange(4),
        idx_val=np.arange(4, 8),
        idx_test=np.arange(8, 12),
    )
    return tmp_path


def test_the_promised_keys_and_the_page(folder, qpde):
    call = qpde("experiment", "graph", "--data", "data", "--out", "pages", "--json")
    assert call.code == 0, call.err
    document = call.document
    assert document["page"] == "pages/graph/README.md"
    assert document["seeds"] == [1, 2]
    assert [(row["flavour"], row["precision"]) for row in document["rows"]] == [
        *(("twin", "float"), ("twin", "W4A4"), ("paper", "float"), ("paper", "W4A4"))
    ]
    page = (folder / document["page"]).read_text()
    assert page.startswith(f"# graph\n\n{document['question']}\n")
    results = json.loads((folder / "pages/graph/results.json").read_text())
    assert results == {key: value for key, value in document.items() if key != "page"}


def test_finished_runs_are_not_made_again_and_the_page_comes_out_the_same(folder, qpde):
    qpde("experiment", "graph", "--data", "data", "--out", "first")
    call = qpde("experiment", "graph", "--data", "data", "--out", "second")
    assert " of " not in call.err
    for path in (folder / "first/graph").iterdir():
        assert (folder / "second/graph" / path.name).read_bytes() == path.read_bytes()
    shutil.rmtree(next((folder / "runs/experiments").glob("cora-twin-W4A4-seed1-*")))
    call = qpde("experiment", "graph", "--data", "data", "--out", "third")
    assert call.err.count(" of ") == 1


def test_several_processes_give_the_rows_of_one(folder, qpde):
    alone = qpde("experiment", "graph", "--data", "data", "--json").document["rows"]
    shutil.rmtree(folder / "runs")
    at_once = qpde("experiment", "graph", "--data", "data", "--jobs", 2, "--json")
    assert at_once.code == 0, at_once.err
    assert at_once.document["rows"] == alone


@pytest.mark.parametrize(
    ("arguments", "settings", "line"),
    [
        (
            ("nothing",),
            GRAPH,
            "no experiment 'nothing'; known are layer-error, bits, tv, graph, signs",
        ),
        (("graph", "--data", "nowhere"), GRAPH, "cora.npz: no such file; --data names the folder"),
        (("bits", "--data", "data"), GRAPH, "cifar10.zip: no such file; --data names the folder"),
        (("graph",), GRAPH.replace("layers", "depth"), "cpu.recipe.depth is no known key"),
        (("graph",), GRAPH.replace("W4A4", "W4"), "cpu.precisions.1: Value error, no precision"),
        (("graph",), GRAPH.replace("twin", "triplet"), "cpu.flavours.0: Input should be"),
        (("graph",), GRAPH.replace("cuda:", "tpu:"), "needs exactly the sections cpu and cuda"),
        (("graph",), "a: [", "is no YAML"),
        (("graph", "--data", "data", "--device", "tpu"), GRAPH, "'tpu' is not one of"),
    ],
)
def test_wrong_use_gets_one_line_and_code_2(arguments, settings, line, folder, qpde):
    Path("experiments/graph.yaml").write_text(settings)
    call = qpde("experiment", *arguments)
    assert call.code == 2
    assert line in call.err
    assert call.err.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_a_missing_device_is_named(folder, qpde):
    call = qpde("experiment", "graph", "--data", "data", "--device", "cuda")
    assert call.code == 2
    assert "torch finds no CUDA device" in call.err
