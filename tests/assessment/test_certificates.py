"""The whole experiment, tiny: certified once, trained once, the same page every time."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import yaml

from qpde_perception.assessment import certificates
from qpde_perception.assessment.candidates import (
    BundleCandidate,
    RunCandidate,
    TrainedCandidate,
)
from qpde_perception.assessment.certificates import (
    block_gains,
    margin_figures,
    significant,
    stage_constants,
    thin,
)
from qpde_perception.assessment.certificates_page import label_of
from qpde_perception.assessment.certificates_reading import missing_bits
from qpde_perception.compiling.certificate import certify
from qpde_perception.compiling.reference import IntegerReference
from qpde_perception.compiling.specification import SPECIFICATION, WEIGHTS, Specification
from qpde_perception.learning.errors import LearningError
from qpde_perception.learning.experiments.page import write_page
from qpde_perception.learning.experiments.registry import run_experiment
from qpde_perception.learning.experiments.settings import (
    DEVICES,
    load_profile,
    settings_path,
)
from qpde_perception.learning.networks import CONFIGS
from qpde_perception.learning.signs import SignRecord, SignSet

TINY = {
    "bundles": [],
    "networks": [
        {"network": "ordinary_mobilenet_v2_tiny"},
        {"network": "symmetric_mobilenet_v2_tiny"},
        {"network": "symmetric_mobilenet_v2_tiny", "noise_penalty": 1.0},
    ],
    "training": {"float_epochs": 1, "quantized_epochs": 2, "frozen_epochs": 1, "batch": 8},
    "seeds": [1],
    "every": 2,
    "frames": 8,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("certificate")


@pytest.fixture
def make(folder, data, tiny_bundle, monkeypatch):
    """Make the tiny experiment in one folder and say which steps were made."""
    monkeypatch.chdir(folder)
    Path("experiments").mkdir(exist_ok=True)

    def make(out="pages", **changes):
        profile = {**TINY, "bundles": [str(tiny_bundle.path)], **changes}
        text = yaml.safe_dump(dict.fromkeys(DEVICES, profile))
        Path("experiments/certificate.yaml").write_text(text)
        made = []
        document = run_experiment(
            "certificate",
            data=data,
            out=Path(out),
            device="cpu",
            jobs=1,
            advance=lambda _done, _total, finished: made.append(finished),
            experiments={"certificate": certificates.STUDY},
        )
        return document, [name for name in made if name]

    return make


def test_networks_are_certified_once_and_the_page_stays_the_same(make):
    document, made = make("first")
    assert len(made) == 4
    assert [label_of(row) for row in document["rows"]] == [
        *("tiny", "ordinary_tiny", "symmetric_tiny", "symmetric_tiny, penalty 1")
    ]
    assert make("second") == (document, [])
    names = sorted(path.name for path in Path("first/certificate").iterdir())
    assert names == ["README.md", "frontier.svg", "gain.svg", "results.json"]
    for name in names:
        first, second = (Path(out, "certificate", name).read_bytes() for out in ("first", "second"))
        assert first == second


def test_certifying_anew_gives_the_same_page(make):
    make("first")
    for path in Path("runs/experiments").glob("*/certified-*.json"):
        path.unlink()
    assert len(make("again")[1]) == 4
    for path in Path("first/certificate").iterdir():
        assert Path("again/certificate", path.name).read_bytes() == path.read_bytes()


def test_other_frames_are_certified_without_training(make):
    make()
    before = {path: path.stat().st_mtime_ns for path in Path("runs").rglob("weights.safetensors")}
    assert len(make(frames=5)[1]) == 4
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_the_page_follows_byte_for_byte_from_the_results(make, tmp_path):
    make()
    page = Path("pages/certificate")
    document = json.loads((page / "results.json").read_text())
    write_page(document, certificates.STUDY.present(document["rows"]), tmp_path)
    for file in tmp_path.iterdir():
        assert file.read_bytes() == (page / file.name).read_bytes()


def test_a_page_names_question_command_seeds_time_and_plots(make):
    document, _ = make()
    text = Path("pages/certificate/README.md").read_text()
    for part in (
        document["question"],
        "    qpde experiment certificate --device cpu",
        "seeds 1,",
        "min of processor time",
        "](gain.svg)",
        "](frontier.svg)",
        "**Depth.**",
        "**Local bound (b).**",
        "**What limits (b) for tiny.**",
        "with one image in 2 of the training set",
    ):
        assert part in text, part


def test_a_finished_run_is_certified_as_it_is(make):
    (trained,) = [row for row in make()[0]["rows"] if row["noise_penalty"]]
    runs = [
        str(path.parent)
        for path in Path("runs/experiments").rglob("training.json")
        if json.loads(path.read_text())["training"]["noise_penalty"]
    ]
    document, made = make("runs", bundles=[], runs=runs, networks=[], training=None)
    (row,) = document["rows"]
    assert len(made) == 1
    own = {"kind": "run", "trained_on": None, "learned_every": None}
    assert row == {**trained, **own}
    assert make("runs", bundles=[], runs=runs, networks=[], training=None)[1] == []


def test_what_is_no_run_is_named(make):
    with pytest.raises(LearningError, match="nowhere: holds no finished run"):
        make(runs=["nowhere"])


@pytest.mark.parametrize("device", DEVICES)
def test_the_settings_that_ship_are_valid(device, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where no run matches a pattern
    profile = load_profile(settings_path("certificate"), device, certificates.CertificateSettings)
    kinds = [type(each) for each in profile.candidates()]
    expected = {BundleCandidate: len(profile.bundles), RunCandidate: 0}
    expected[TrainedCandidate] = len(profile.networks) * len(profile.seeds)
    assert {kind: kinds.count(kind) for kind in expected} == expected
    assert all(c.name in CONFIGS for c in profile.candidates() if isinstance(c, TrainedCandidate))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"bundles": [], "networks": [], "training": None},
            "bundles, runs and networks are all empty",
        ),
        ({"training": None}, "networks and training go together"),
        ({"networks": []}, "networks and training go together"),
        ({"frames": 0}, "greater than or equal to 1"),
        ({"networks": [{"network": "x", "noise_penalty": -1}]}, "greater than or equal to 0"),
        ({"networks": [{"network": "nothing"}]}, "no network 'nothing'; known are"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change, line, make):
    with pytest.raises(LearningError, match=line):
        make(**change)


@pytest.fixture(scope="module")
def specification(tiny_bundle):
    return Specification.from_files(tiny_bundle.read(SPECIFICATION), tiny_bundle.read(WEIGHTS))


@pytest.fixture(scope="module")
def pixels(images):
    return images(8, 16, seed=4)


@pytest.fixture(scope="module")
def found(specification, pixels):
    logits = IntegerReference(specification).infer(pixels)
    return certify(specification, pixels, logits, "reference")


def test_gains_are_those_of_the_last_quantizer_of_each_block(found):
    gains = dict(zip(found.quantizers, found.noise_gain, strict=True))
    assert block_gains(found) == [
        {"name": "stem", "gain": gains["stem"]},
        {"name": "stage0.block0", "gain": gains["stage0.block0.expand_t"]},
        {"name": "stage1.block0", "gain": gains["stage1.block0.expand_t"]},
    ]


def test_constants_of_a_stage_multiply_those_of_its_blocks(found):
    constants = dict(zip(found.stages, found.stage_lipschitz, strict=True))
    assert stage_constants(found) == [
        {"name": f"stage{n}", "lipschitz": constants[f"stage{n}.block0.sum"]} for n in (0, 1)
    ]


def test_what_a_margin_can_lose_is_put_together_from_its_quantizers(found, specification, pixels):
    figures = margin_figures(specification, pixels)
    assert sum(figures["limits"].values()) == pytest.approx(1.0)
    assert list(figures["limits"]) == list(found.quantizers)
    # Half a step on every value outweighs the root of the sum of their variances.
    assert figures["predicted"] < found.first_order_median
    assert [each["name"] for each in figures["proven"]] == [
        "stem",
        "stage0.block0",
        "stage1.block0",
    ]
    bounds = [each["bound"] for each in figures["proven"]]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[-1] > 0


def test_every_nth_image_of_the_training_part_is_kept_and_all_of_the_others():
    parts = ["train"] * 7 + ["val"] * 3 + ["train"] * 2 + ["test-a"]
    records = [SignRecord(0, 1, 1, i, "", part) for i, part in enumerate(parts)]
    kept = thin(SignSet(np.zeros(3, np.uint8), records, ("a",)), 3)
    assert [r.class_index for r in kept.split("train").records] == [0, 3, 6]
    assert [r.class_index for r in kept.split("val").records] == [7, 8, 9]
    assert [r.class_index for r in kept.split("test-a").records] == [12]


def test_figures_keep_five_digits_at_any_size():
    given = {"a": [123456789.0, 0.000123456789], "b": {"c": 3, "d": "x"}, "e": None}
    wanted = {"a": [123460000.0, 0.00012346], "b": {"c": 3, "d": "x"}, "e": None}
    assert significant(given) == wanted


def test_bits_that_are_missing_halve_the_bound_once_each():
    row = {"first_order": 40.0, "margin": 5.0}
    assert missing_bits([row]) == 3.0
    assert missing_bits([row, row]) == 3.0
    assert missing_bits([{"first_order": 1.0, "margin": 4.0}]) == -2.0
    assert math.isclose(missing_bits([{"first_order": 6.0, "margin": 4.0}]), math.log2(1.5))
