"""The verb `calibrate`: its keys, its exit codes, and what it writes into a model."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

KEYS = {"p0", "p0_upper", "taps", "drives"}


@pytest.fixture
def tiny(make_network, make_bundle, tmp_path):
    """A model of one's own to write into, with a card."""
    from qpde_perception.compiling.packing import CARD, write_bundle

    bundle = make_bundle(make_network(), tmp_path / "tiny")
    bundle.contents[CARD] = b"# tiny\n\n## Certificate\n\nnone\n\n## Limits\n\n- all of them\n"
    return write_bundle(bundle)


def test_it_answers_with_the_promised_keys(tiny, sample, qpde):
    found = qpde("calibrate", "--model", tiny.path, "--drive", sample, "--json")
    assert found.code == 0, found.err
    assert found.document.keys() >= KEYS
    assert found.document["drives"] == 39
    assert 0 <= found.document["p0"] < found.document["p0_upper"] < 1
    assert "calibration.json" not in {path.name for path in tiny.path.iterdir()}


def test_what_it_writes_is_part_of_a_whole_model(tiny, sample, qpde):
    from qpde_perception.bundles import CALIBRATION, calibration_of, load_bundle

    for _ in range(2):
        found = qpde("calibrate", "--model", tiny.path, "--drive", sample, "--write", "--json")
    bundle = load_bundle(tiny.path)
    assert CALIBRATION in bundle.manifest.files
    assert calibration_of(bundle).disagreement.bound == found.document["p0_upper"]
    card = bundle.read("CARD.md").decode()
    headings = [line for line in card.splitlines() if line.startswith("## ")]
    assert headings == ["## Certificate", "## What is watched", "## Limits"]
    assert card.endswith("- all of them\n")


def test_a_new_certificate_leaves_what_is_watched_on_the_card(tiny, sample, qpde):
    from qpde_perception.bundles import load_bundle

    qpde("calibrate", "--model", tiny.path, "--drive", sample, "--write")
    assert qpde("certify", "--model", tiny.path, "--write").code == 0
    card = load_bundle(tiny.path).read("CARD.md").decode()
    headings = [line for line in card.splitlines() if line.startswith("## ")]
    assert headings == ["## Certificate", "## What is watched", "## Limits"]
    assert "noise gain" in card


def test_a_person_reads_a_table(tiny, sample, qpde):
    found = qpde("calibrate", "--model", tiny.path, "--drive", sample)
    assert "201 frames in 39 groups" in " ".join(found.out.split())
    assert "squared distance to the network without" in found.out


def test_data_or_a_drive_and_not_both(sample, qpde):
    for wrong in ((), ("--data", "somewhere", "--drive", sample)):
        found = qpde("calibrate", *wrong)
        assert found.code == 2
        assert "--data or --drive" in found.err


def test_a_short_drive_is_refused_with_what_is_missing(short_drive, tiny, qpde):
    found = qpde("calibrate", "--model", tiny.path, "--drive", short_drive)
    assert found.code == 2
    assert "has 1 groups" in found.err
    assert "20" in found.err


def test_a_drive_that_is_none_is_refused(tmp_path, qpde):
    found = qpde("calibrate", "--drive", tmp_path / "none.mcap")
    assert found.code == 2
    assert "none.mcap" in found.err
