"""The whole experiment, tiny: measured once, trained once, the same page every time."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from qpde_perception.assessment import signs
from qpde_perception.assessment.candidates import finished_runs
from qpde_perception.assessment.stopwatch import CLOCK, Stopwatch, seconds_of
from qpde_perception.learning.errors import LearningError
from qpde_perception.learning.experiments.registry import run_experiment
from qpde_perception.learning.experiments.settings import (
    DEVICES,
    load_profile,
    settings_path,
)
from qpde_perception.learning.trained_run import FLOAT_WEIGHTS, RECIPE

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
    network, own = "symmetric_mobilenet_v2_tiny", ("deployed", "unquantized")
    assert [(row["model"], row["seed"], row["role"]) for row in document["rows"]] == [
        *(("tiny", None, role) for role in own),
        *((network, seed, role) for seed in (1, 2) for role in (*own, "float", "post-training")),
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


def runs_of(network):
    return sorted(Path("runs/experiments").glob(f"signs-{network}-seed*/training.json"))


def test_a_finished_run_is_measured_as_the_training_that_left_it(make):
    document, _ = make(bundles=[])
    finished = [str(path.parent) for path in runs_of("symmetric_mobilenet_v2_tiny")]
    again, made = make(bundles=[], networks=[], training=None, runs=finished, seeds=[1, 2])
    assert len(made) == 2
    told = ("trained_on", "measuring_minutes")
    plain = [
        [{k: v for k, v in row.items() if k not in told} for row in found["rows"]]
        for found in (document, again)
    ]
    assert sorted(plain[0], key=str) == sorted(plain[1], key=str)
    assert "2 finished run(s) with the seeds 1, 2" in Path("pages/signs/README.md").read_text()


def test_a_run_of_four_bits_is_measured_beside_its_float_network(make):
    document, _ = make(bundles=[], networks=["symmetric_mobilenet_v2_tiny_w4a8"], seeds=[1])
    found = [(row["role"], row["precision"]) for row in document["rows"]]
    assert found == [
        ("deployed", "W4A8"),
        ("unquantized", "W4, activations float"),
        ("float", "float"),
    ]
    assert (
        "| symmetric_mobilenet_v2_tiny_w4a8 | W4A8 |" in Path("pages/signs/README.md").read_text()
    )


def test_a_run_from_before_float_networks_were_kept_is_measured_without(make, tmp_path):
    make(bundles=[], seeds=[1])
    older = shutil.copytree(runs_of("symmetric_mobilenet_v2_tiny")[0].parent, tmp_path / "older")
    (older / FLOAT_WEIGHTS).unlink()
    (older / CLOCK).unlink()
    document, _ = make(bundles=[], networks=[], training=None, runs=[str(older)], seeds=[1])
    assert [row["role"] for row in document["rows"]] == ["deployed", "unquantized"]
    assert document["rows"][0]["training_seconds"] is None
    (older / FLOAT_WEIGHTS).write_bytes(b"no weights")
    with pytest.raises(LearningError, match=r"float_weights\.safetensors: is damaged"):
        make(bundles=[], networks=[], training=None, runs=[str(older)], seeds=[1])


def test_a_taught_run_stands_beside_the_plain_one_and_its_recipe_names_the_teacher(make, tmp_path):
    make(bundles=[], seeds=[1])
    plain = runs_of("symmetric_mobilenet_v2_tiny")[0].parent
    taught = shutil.copytree(plain, tmp_path / "taught")
    document = json.loads((taught / RECIPE).read_text())
    document["begun_with"] = {**document["training"], "float_epochs": 70, "seed": 3}
    teacher = {**document["training"], "network": "ordinary_mobilenet_v2"}
    document["taught_by"] = [{**teacher, "seed": seed} for seed in (4, 5)]
    (taught / RECIPE).write_text(json.dumps(document))
    runs = [str(plain), str(taught)]
    found, _ = make(bundles=[], networks=[], training=None, runs=runs, seeds=[1])
    name = "symmetric_mobilenet_v2_tiny"
    assert [row["model"] for row in found["rows"]] == 4 * [name] + 4 * [f"{name}_taught"]
    page = Path("pages/signs/README.md").read_text()
    before, recipe = page.split(f"Recipe of {name}_taught: ")
    assert "begun_with 70 float epochs of seed 3" in recipe
    taught_by = "ordinary_mobilenet_v2 of seed 4 and ordinary_mobilenet_v2 of seed 5"
    assert f"taught_by {taught_by}" in recipe
    assert f"Recipe of {name}: " in before
    assert "taught_by" not in before


def test_runs_that_cannot_stand_in_one_table_are_refused(make):
    make(bundles=[], seeds=[1])
    run = str(runs_of("symmetric_mobilenet_v2_tiny")[0].parent)
    alone = {"bundles": [], "networks": [], "training": None}
    with pytest.raises(LearningError, match="with the seed 1 is listed twice"):
        make(**alone, runs=[run, run], seeds=[1])
    with pytest.raises(LearningError, match="the seed 1, which is none of the profile's"):
        make(**alone, runs=[run], seeds=[2])
    with pytest.raises(LearningError, match="nowhere: holds no finished run"):
        make(**alone, runs=["nowhere"], seeds=[1])


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"bundles": [], "networks": [], "training": None},
            "bundles, runs and networks are all empty",
        ),
        ({"training": None}, "networks and training go together"),
        ({"networks": []}, "networks and training go together"),
        ({"corrupt_every": 0}, "greater than or equal to 1"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(change, line, make):
    with pytest.raises(LearningError, match=line):
        make(**change)


@pytest.mark.parametrize("device", DEVICES)
def test_the_settings_that_ship_are_valid(device, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where no run matches a pattern
    profile = load_profile(settings_path("signs"), device, signs.SignsSettings)
    names = [type(each).__name__ for each in profile.candidates()]
    expected = {"cpu": ["BundleCandidate"], "cuda": ["TrainedCandidate"] * 12}
    assert names == expected[device]


def test_flavours_are_trained_alike_with_every_seed():
    profile = load_profile(settings_path("signs"), "cuda", signs.SignsSettings)
    trained = [each.config for each in profile.candidates()]
    flavours = ("ordinary", "twin", "symmetric", "stable")
    expected = {(f"{name}_mobilenet_v2", seed) for name in flavours for seed in (1, 2, 3)}
    assert {(each.network, each.seed) for each in trained} == expected
    assert len({replace(each, network="", seed=0) for each in trained}) == 1


def test_a_stopwatch_sums_the_epochs_of_an_interrupted_training(tmp_path):
    path = tmp_path / CLOCK
    path.write_text(json.dumps({"1": 5.0, "2": 7.0}))
    watch = Stopwatch(path)
    # Epoch 2 was killed before its checkpoint and is made again.
    for epoch in (2, 3):
        watch.epoch({"epoch": epoch})
    assert 5.0 <= seconds_of(path) < 6.0


def test_a_pattern_of_runs_stands_for_those_that_are_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert finished_runs(["runs/*"]) == []
    assert [each.run for each in finished_runs(["runs/named"])] == ["runs/named"]
    for name in ("b", "a"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    assert [each.run for each in finished_runs(["runs/*"])] == ["runs/a", "runs/b"]
