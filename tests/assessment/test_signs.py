"""The whole experiment, tiny: measured once, trained once, the same page every time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from qpde_perception.assessment import signs
from qpde_perception.assessment.candidates import CLOCK, Stopwatch, seconds_of
from qpde_perception.learning.errors import LearningError
from qpde_perception.learning.experiments.registry import run_experiment
from qpde_perception.learning.experiments.settings import (
    DEVICES,
    load_profile,
    settings_path,
)

TINY = {
    "bundles": [],
    "networks": ["symmetric_mobilenet_v2_tiny"],
    "training": {"float_epochs": 1, "quantized_epochs": 2, "frozen_epochs": 1, "batch": 8},
    "seeds": [1, 2],
    "corrupt_every": 4,
    "filter": {"rate_hz": 10, "time_constant_s": 0.3, "reset_after_s": 1.0},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("signs")


@pytest.fixture
def make(folder, data, tiny_bundle, monkeypatch):
    """Make the tiny experiment in one folder and say which steps were made."""
    monkeypatch.chdir(folder)
    Path("experiments").mkdir(exist_ok=True)

    def make(out="pages", jobs=1, **changes):
        profile = {**TINY, "bundles": [str(tiny_bundle.path)], **changes}
        text = yaml.safe_dump(dict.fromkeys(DEVICES, profile))
        Path("experiments/signs.yaml").write_text(text)
        made = []
        document = run_experiment(
            "signs",
            data=data,
            out=Path(out),
            device="cpu",
            jobs=jobs,
            advance=lambda _done, _total, finished: made.append(finished),
            experiments={"signs": signs.STUDY},
        )
        return document, [name for name in made if name]

    return make


def test_bundles_and_trained_networks_are_measured_once_and_the_page_stays_the_same(make):
    document, made = make("first")
    assert len(made) == 3
    assert [(row["model"], row["seed"], row["precision"]) for row in document["rows"]] == [
        (model, seed, precision)
        for model, seed in [
            ("tiny", None),
            ("symmetric_mobilenet_v2_tiny", 1),
            ("symmetric_mobilenet_v2_tiny", 2),
        ]
        for precision in ("int8", "float")
    ]
    assert make("second") == (document, [])
    names = sorted(path.name for path in Path("first/signs").iterdir())
    assert names == ["README.md", "reliability.svg", "results.json", "robustness.svg", "roc.svg"]
    for name in names:
        assert Path("first/signs", name).read_bytes() == Path("second/signs", name).read_bytes()


def test_measuring_anew_gives_the_same_page(make):
    make("first")
    for path in Path("runs/experiments").glob("signs-*/measured-*.json"):
        path.unlink()
    _, made = make("again", jobs=2)
    assert len(made) == 3
    for path in Path("first/signs").iterdir():
        assert Path("again/signs", path.name).read_bytes() == path.read_bytes()


def test_a_page_names_question_command_seeds_time_and_plots(make):
    document, _ = make()
    text = Path("pages/signs/README.md").read_text()
    for part in (
        document["question"],
        "    qpde experiment signs --device cpu",
        "seeds 1, 2",
        " s in all",
        "](robustness.svg)",
        "](roc.svg)",
        "](reliability.svg)",
        "min of processor time",
    ):
        assert part in text


def test_another_protocol_is_measured_anew_without_training(make):
    make()
    before = {path: path.stat().st_mtime_ns for path in Path("runs").rglob("weights.safetensors")}
    _, made = make(corrupt_every=5)
    assert len(made) == 3
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_damaged_measurements_are_named(make):
    make(seeds=[1])
    kept = {p: p.read_text() for p in Path("runs/experiments").glob("signs-tiny-*/*.json")}
    for path in kept:
        path.write_text("{")
    with pytest.raises(LearningError, match=r"measured-.*\.json: is damaged; remove it"):
        make(seeds=[1])
    for path, text in kept.items():
        path.write_text(text)


def test_missing_data_are_named(data, tmp_path):
    copied = tmp_path / "data"
    shutil.copytree(data, copied)
    (copied / signs.BURSTS).unlink()
    with pytest.raises(LearningError, match=r"roadsign_drive\.zip: no such file; --data names"):
        signs.fingerprint(copied)


def test_the_fingerprint_changes_with_the_data(data, tmp_path):
    copied = tmp_path / "data"
    shutil.copytree(data, copied)
    assert signs.fingerprint(copied) == signs.fingerprint(data)
    (copied / "gtsrb" / "classes.csv").write_text("class_id,name\n")
    assert signs.fingerprint(copied) != signs.fingerprint(data)


def test_an_unknown_network_is_named(make):
    with pytest.raises(LearningError, match="no network 'nothing'; known are"):
        make(networks=["nothing"], seeds=[1])


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"bundles": [], "networks": [], "training": None}, "bundles and networks are both empty"),
        ({"training": None}, "networks and training go together"),
        ({"networks": []}, "networks and training go together"),
        ({"corrupt_every": 0}, "greater than or equal to 1"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(change, line, make):
    with pytest.raises(LearningError, match=line):
        make(**change)


@pytest.mark.parametrize("device", DEVICES)
def test_the_settings_that_ship_are_valid(device):
    profile = load_profile(settings_path("signs"), device, signs.SignsSettings)
    names = [type(each).__name__ for each in profile.candidates()]
    expected = {"cpu": ["BundleCandidate"], "cuda": ["TrainedCandidate"] * 12}
    assert names == expected[device]


def test_a_stopwatch_sums_the_epochs_of_an_interrupted_training(tmp_path):
    path = tmp_path / CLOCK
    path.write_text(json.dumps({"1": 5.0, "2": 7.0}))
    watch = Stopwatch(path)
    # Epoch 2 was killed before its checkpoint and is made again.
    for epoch in (2, 3):
        watch.epoch({"epoch": epoch})
    assert 5.0 <= seconds_of(path) < 6.0
