"""From a published archive to a model that replays a drive, all through the command."""

from __future__ import annotations

import json
import zipfile

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training wants torch")

CLASSES, TRACKS, FRAMES = 5, 3, 6


def picture(class_index, rng):
    """A grey square whose place tells the class."""
    image = rng.integers(90, 130, (40, 40, 3), np.uint8)
    row, column = divmod(class_index, 3)
    image[13 * row : 13 * row + 12, 13 * column : 13 * column + 12] = 250
    return cv2.imencode(".png", image)[1].tobytes()


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pack")
    rng = np.random.default_rng(1)
    head = "filename,split,class_id,track_id,frame,width,height,roi_x1,roi_y1,roi_x2,roi_y2"
    rows = [f"{head},jpeg_quality"]
    with zipfile.ZipFile(folder / "gtsrb.zip", "w") as archive:
        for class_index in range(CLASSES):
            for track in range(TRACKS):
                for frame in range(FRAMES):
                    name = f"train/{class_index:05d}/{track:05d}_{frame:05d}.jpg"
                    archive.writestr(name, picture(class_index, rng))
                    key = f"{class_index:05d}_{track:05d}"
                    rows.append(f"{name},train,{class_index},{key},{frame},40,40,4,4,36,36,90")
            name = f"test/{class_index:05d}.jpg"
            archive.writestr(name, picture(class_index, rng))
            rows.append(f"{name},test-a,{class_index},,0,40,40,4,4,36,36,90")
        archive.writestr("labels.csv", "\n".join(rows))
    names = "\n".join(f"{index},sign {index}" for index in range(CLASSES))
    (folder / "classes.csv").write_text(f"class_id,name\n{names}\n")
    return folder


def train(qpde, data, out, *extra):
    return qpde(
        *("train", "--data", data, "--out", out, "--network", "symmetric_mobilenet_v2_tiny"),
        *("--float-epochs", 1, "--quantized-epochs", 1, "--batch", 8, "--json"),
        *extra,
    )


def test_the_whole_road_from_an_archive_to_a_replayed_drive(pack, qpde, tmp_path):
    prepared, run, model = tmp_path / "prepared", tmp_path / "run", tmp_path / "tiny"
    made = qpde("data", "prepare", pack, "--out", prepared, "--json")
    assert made.document["splits"]["val"] == {"images": CLASSES * FRAMES, "tracks": CLASSES}
    assert made.document["splits"]["test-a"]["images"] == CLASSES

    trained = train(qpde, prepared, run, "--noise-penalty", 0.5, "--frozen-epochs", 0)
    assert trained.code == 0, trained.err
    assert trained.document["epochs"] == 2
    recipe = json.loads((run / "training.json").read_text())["training"]
    assert (recipe["noise_penalty"], recipe["frozen_epochs"]) == (0.5, 0)
    assert (run / "training.svg").read_text().startswith("<?xml")

    drive = tmp_path / "drive.mcap"
    assert qpde("bag", "make", pack / "gtsrb.zip", "--out", drive).code == 0
    compiled = qpde(
        *("compile", run, "--out", model, "--golden", drive, "--data", prepared, "--json")
    )
    assert compiled.code == 0, compiled.err
    measured = {entry["data"]: entry for entry in compiled.document["accuracy"]}
    assert measured["gtsrb/val"]["images"] == CLASSES * FRAMES

    evaluated = qpde(
        *("evaluate", "--model", model, "--data", pack, "--split", "val", "--json"),
        *("--plot", tmp_path / "confusion.svg"),
    ).document
    assert evaluated["top1"] == measured["gtsrb/val"]["top1"]
    assert (evaluated["images"], evaluated["engine"]) == (CLASSES * FRAMES, "onnxruntime")
    assert len(evaluated["per_class"]) == CLASSES
    assert (tmp_path / "confusion.svg").is_file()

    parity = qpde("parity", "--model", model, "--data", prepared, "--json")
    assert (parity.code, parity.document["ok"]) == (0, True)
    assert set(parity.document["engines"]) == {"onnxruntime", "openvino"}
    for engine in parity.document["engines"].values():
        assert (engine["identical_share"], engine["top1_agreement"]) == (1.0, 1.0)

    replayed = qpde("replay", drive, "--model", model, "--out", tmp_path / "out", "--json").document
    # A drive of the held-out signs is decoded and cut out as the prepared data are.
    assert replayed["received"] == replayed["published"] > 0


def test_a_network_of_four_bits_walks_the_same_road_and_says_so(pack, qpde, tmp_path):
    run, drive, model = tmp_path / "run", tmp_path / "drive.mcap", tmp_path / "narrow"
    train(qpde, pack, run, "--network", "symmetric_mobilenet_v2_tiny_w4a8")
    qpde("bag", "make", pack / "gtsrb.zip", "--out", drive)
    compiled = qpde("compile", run, "--out", model, "--golden", drive, "--data", pack, "--json")
    assert compiled.code == 0, compiled.err
    parity = qpde("parity", "--model", model, "--data", pack, "--json")
    assert [each["identical_share"] for each in parity.document["engines"].values()] == [1.0, 1.0]
    evaluated = qpde(
        *("evaluate", "--model", model, "--data", pack, "--json"),
        *("--plot", tmp_path / "confusion.svg"),
    ).document
    measured = {entry["data"]: entry["top1"] for entry in compiled.document["accuracy"]}
    assert evaluated["top1"] == measured["gtsrb/test-a"]
    certified = qpde("certify", "--model", model, "--json", "--write").document
    assert (certified["broken_bounds"], certified["images"]) == (0, 16)
    manifest = json.loads((model / "manifest.json").read_text())
    assert (manifest["weight_bits"], manifest["activation_bits"]) == (4, 8)
    card = " ".join((model / "CARD.md").read_text().split())
    assert "weights of 4 bits in 1x1 convolutions and of 8 elsewhere, stored as int8" in card
    replayed = qpde("replay", drive, "--model", model, "--out", tmp_path / "out", "--json")
    assert replayed.document["received"] == replayed.document["published"] > 0


def test_evaluate_leaves_a_confusion_plot_without_being_asked(qpde, pack, tmp_path, monkeypatch):
    from qpde_perception.cli import evaluate

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        evaluate, "run", lambda _, pixels: np.eye(43, dtype=np.float32)[: len(pixels)]
    )
    call = qpde("evaluate", "--data", pack)
    assert call.code == 0
    assert "confusion.svg" in call.out
    assert (tmp_path / "confusion.svg").read_text().startswith("<?xml")


def test_the_references_can_be_evaluated_like_engines(qpde, pack, tmp_path):
    run = tmp_path / "run"
    train(qpde, pack, run)
    drive, model = tmp_path / "drive.mcap", tmp_path / "tiny"
    qpde("bag", "make", pack / "gtsrb.zip", "--out", drive)
    qpde("compile", run, "--out", model, "--golden", drive)
    for name in ("reference", "reference_fp32"):
        call = qpde(
            *("evaluate", "--model", model, "--data", pack, "--engine", name, "--json"),
            *("--plot", tmp_path / f"{name}.svg"),
        )
        assert call.code == 0, call.err
        assert call.document["images"] == CLASSES


def test_an_interrupted_training_goes_on_and_a_finished_one_stays(pack, qpde, tmp_path):
    out = tmp_path / "run"
    first = train(qpde, pack, out).document
    again = train(qpde, pack, out).document
    assert again == first
    epochs = [json.loads(line)["epoch"] for line in (out / "metrics.jsonl").open()]
    assert epochs == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ("data", "prepare", "{tmp}", "--out", "{tmp}"),
            "holds neither gtsrb.zip nor prepared data",
        ),
        (("evaluate", "--data", "{pack}", "--split", "test"), "no split 'test'"),
        (("evaluate", "--data", "{pack}", "--engine", "tpu"), "no engine 'tpu'"),
        (
            ("train", "--data", "{pack}", "--out", "{tmp}", "--batch", "8", "--network", "resnet"),
            "no network 'resnet'",
        ),
        (
            ("train", "--data", "{pack}", "--out", "{tmp}", "--batch", "4096"),
            "fewer than one batch",
        ),
        (("compile", "{tmp}", "--out", "{tmp}/model"), "holds no finished run"),
        (("parity", "--model", "nothing"), "no model 'nothing'"),
    ],
)
def test_wrong_use_gets_one_line_and_code_2(arguments, line, pack, qpde, tmp_path):
    call = qpde(*(word.format(tmp=tmp_path, pack=pack) for word in arguments))
    assert call.code == 2
    assert line in call.err
    assert call.err.count("\n") == 1


def test_parity_fails_with_1_when_an_engine_computes_something_else(qpde, model, monkeypatch):
    from qpde_perception.engines.onnxruntime import OnnxRuntimeEngine

    honest = OnnxRuntimeEngine.infer
    monkeypatch.setattr(OnnxRuntimeEngine, "infer", lambda self, x: honest(self, 255 - x))
    call = qpde("parity", "--model", model, "--json")
    assert call.code == 1
    assert not call.document["engines"]["onnxruntime"]["ok"]
