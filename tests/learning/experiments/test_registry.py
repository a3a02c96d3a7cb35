"""Whole experiments on images, tiny, and the settings that ship."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from qpde_perception.learning.experiments.page import write_page
from qpde_perception.learning.experiments.registry import EXPERIMENTS, run_experiment
from qpde_perception.learning.experiments.settings import DEVICES, load_profile, settings_path

RECIPE = {"float_epochs": 1, "quantized_epochs": 1, "batch": 50, "images": 100, "test_images": 40}
COMMON = {"networks": ["resnet20"], "seeds": [1], "recipe": RECIPE}
TINY = {
    "layer-error": {
        **COMMON,
        "flavours": ["twin", "paper"],
        "precisions": ["W4A8", "W4A4"],
        "remarks": ["Half of the images are upside down."],
    },
    "bits": {**COMMON, "flavours": ["twin", "paper"], "precisions": ["float", "W4A4"]},
    "tv": {
        **COMMON,
        "flavours": ["paper"],
        "precisions": ["W4A4"],
        "iterations": [0, 1],
        "sites": ["inner", "outer"],
        "flux": "sqrt",
        "gamma": 0.25,
        "eps": 0.25,
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("experiments")


@pytest.fixture
def make(folder, data, monkeypatch):
    """Make a tiny experiment; all of them share the folder of runs."""
    monkeypatch.chdir(folder)
    Path("experiments").mkdir(exist_ok=True)

    def make(name):
        profile = dict.fromkeys(DEVICES, TINY[name])
        Path(f"experiments/{name}.yaml").write_text(yaml.safe_dump(profile))
        made = []
        document = run_experiment(
            name,
            data=data,
            out=Path("pages"),
            device="cpu",
            jobs=1,
            advance=lambda _done, _total, finished: made.append(finished),
        )
        return document, [entry for entry in made if entry]

    return make


def test_experiments_share_runs_and_a_second_call_makes_none(make):
    document, made = make("layer-error")
    assert len(made) == 2 + 4
    assert len(document["rows"]) == 4
    _, made = make("bits")
    assert made == []
    document, made = make("tv")
    assert sum("float" in entry for entry in made) == 1
    assert [row["iterations"] for row in document["rows"]] == [0, 1]
    assert document["rows"][0]["applied"] is not None
    assert make("tv")[1] == []


@pytest.mark.parametrize("name", TINY)
def test_the_page_follows_byte_for_byte_from_the_results(make, name, tmp_path):
    make(name)
    page = Path("pages") / name
    document = json.loads((page / "results.json").read_text())
    write_page(document, EXPERIMENTS[name].present(document["rows"]), tmp_path)
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == sorted(path.name for path in page.iterdir() if path.name != "results.json")
    for file in written:
        assert (tmp_path / file).read_bytes() == (page / file).read_bytes()


def test_a_page_names_question_command_seeds_time_and_plots(make):
    document, _ = make("layer-error")
    text = (Path("pages") / "layer-error" / "README.md").read_text()
    for part in (
        document["question"],
        "    qpde experiment layer-error --device cpu",
        "Seeds: 1.",
        "s of training in all",
        "](rms.svg)",
        "1 seed(s)",
        "Only 100 images",
    ):
        assert part in text
    assert text.count("\n\nHalf of the images are upside down.\n\n## How") == 1
    assert text.count("upside down") == 1, "a remark is no setting"


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize("device", DEVICES)
def test_the_settings_that_ship_are_valid(name, device):
    load_profile(settings_path(name), device, EXPERIMENTS[name].settings)


@pytest.mark.parametrize("device", DEVICES)
def test_the_image_experiments_that_ship_share_one_recipe(device):
    recipes = {
        load_profile(settings_path(name), device, EXPERIMENTS[name].settings).recipe
        for name in ("layer-error", "bits", "tv")
    }
    assert len(recipes) == 1
