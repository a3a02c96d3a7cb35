"""The verb `certify`: its keys, its exit codes, and what it writes into a model."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")

KEYS = {
    "images",
    "global_bound",
    "observed_max",
    "certified_share",
    "five_sigma_share",
    "noise_ratio",
    "stage_lipschitz",
    "noise_gain",
    "ok",
}


@pytest.fixture
def tiny(make_network, make_bundle, tmp_path):
    """A model of one's own to write into, with a card."""
    from qpde_perception.compiling.packing import CARD, write_bundle

    bundle = make_bundle(make_network(), tmp_path / "tiny")
    bundle.contents[CARD] = b"# tiny\n\n## Limits\n\n- all of them\n"
    return write_bundle(bundle)


def test_it_answers_with_the_promised_keys(tiny, qpde):
    found = qpde("certify", "--model", tiny.path, "--json")
    assert found.code == 0, found.err
    assert found.document.keys() >= KEYS
    assert found.document["images"] == 6
    assert found.document["ok"] is True


def test_it_examines_as_many_frames_as_asked(tiny, qpde):
    assert qpde("certify", "--model", tiny.path, "--images", 2, "--json").document["images"] == 2


def test_it_leaves_the_model_alone_unless_asked_to_write(tiny, qpde):
    before = {path.name: path.read_bytes() for path in tiny.path.iterdir()}
    assert qpde("certify", "--model", tiny.path).code == 0
    assert {path.name: path.read_bytes() for path in tiny.path.iterdir()} == before


def test_what_it_writes_is_part_of_a_whole_model(tiny, qpde):
    from qpde_perception.bundles import CERTIFICATE, load_bundle

    for _ in range(2):
        found = qpde("certify", "--model", tiny.path, "--images", 2, "--write", "--json").document
    bundle = load_bundle(tiny.path)
    written = json.loads(bundle.read(CERTIFICATE))
    assert {"model": "tiny", **written} == found
    assert CERTIFICATE in bundle.manifest.files
    card = bundle.read("CARD.md").decode()
    assert card.count("## Certificate") == 1
    assert "`qpde certify --model MODEL --data DATA --images 2`" in card


def test_an_engine_that_computes_another_network_fails_the_check(tiny, qpde):
    from dataclasses import replace

    from qpde_perception.compiling.cpu_writer import cpu_graph
    from qpde_perception.compiling.packing import write_bundle
    from qpde_perception.compiling.specification import SPECIFICATION, WEIGHTS, Specification
    from qpde_perception.engines.registry import CPU_GRAPH

    specification = Specification.from_files(tiny.read(SPECIFICATION), tiny.read(WEIGHTS))
    arrays = dict(specification.arrays)
    arrays["features.weight"] = -arrays["features.weight"]
    graph = cpu_graph(replace(specification, arrays=arrays))
    write_bundle(replace(tiny, contents=tiny.contents | {CPU_GRAPH: graph}))
    found = qpde("certify", "--model", tiny.path, "--json")
    assert found.code == 1
    assert found.document["ok"] is False


@pytest.mark.parametrize("wrong", [("--images", 0), ("--model", "no such model")])
def test_wrong_use_is_told_apart_from_a_failed_check(wrong, qpde):
    found = qpde("certify", *wrong)
    assert found.code == 2
    assert found.err.startswith("error: ")
