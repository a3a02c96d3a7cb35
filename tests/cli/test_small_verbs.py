"""`qpde models`, `qpde bag` and `qpde doctor`."""

from __future__ import annotations

import shutil
import subprocess

import cv2
import numpy as np
import pytest


@pytest.fixture
def shelf(model, tmp_path, monkeypatch):
    """A shelf of the user's own with one good and one damaged model."""
    shelf = tmp_path / "shelf"
    for name in ("good", "damaged"):
        shutil.copytree(model, shelf / name)
    content = bytearray((shelf / "damaged" / "golden.npz").read_bytes())
    content[100] ^= 1
    (shelf / "damaged" / "golden.npz").write_bytes(content)
    monkeypatch.setenv("QPDE_MODELS", str(shelf))
    return shelf


def test_models_lists_what_ships_with_the_promised_keys(qpde):
    call = qpde("models", "--json")
    assert call.code == 0
    assert call.err == ""
    (signs,) = (one for one in call.document["models"] if one["name"] == "traffic_signs")
    assert signs["ok"] is True
    assert 0 < signs["parameters"] < 600_000
    assert {"task", "top1_int8"} <= signs.keys()


def test_models_list_is_the_same_as_models(qpde, shelf):
    assert qpde("models", "list", "--json").document == qpde("models", "--json").document
    assert "traffic_signs" in qpde("models", "list").out


def test_models_lists_a_damaged_model_as_not_ok(qpde, shelf):
    call = qpde("models", "--json")
    assert call.code == 0
    (damaged,) = (one for one in call.document["models"] if one["name"] == "damaged")
    assert damaged["ok"] is False
    assert "golden.npz" in damaged["fault"]


def test_verify_fails_with_1_when_a_file_was_changed(qpde, shelf):
    call = qpde("models", "verify", "damaged", "--json")
    assert call.code == 1
    assert [one["ok"] for one in call.document["models"]] == [False]
    assert qpde("models", "verify", "traffic_signs").code == 0
    assert qpde("models", "verify").code == 1


def test_show_tells_what_the_manifest_holds(qpde, model):
    call = qpde("models", "show", model, "--json")
    assert call.code == 0
    assert call.document["name"] == "traffic_signs"
    assert len(call.document["labels"]) == 43
    assert "43" in qpde("models", "show", "traffic_signs").out


def test_a_model_that_does_not_exist_is_wrong_use(qpde):
    call = qpde("models", "show", "nothing")
    assert call.code == 2
    assert "traffic_signs" in call.err


def test_doctor_says_which_engines_work(qpde):
    call = qpde("doctor", "--json")
    assert call.code == 0
    assert call.err == ""
    engines = {one["name"]: one for one in call.document["engines"]}
    assert {"onnxruntime", "openvino"} <= engines.keys()
    assert all(
        one["works"] and one["version"] and not one["remedy"]
        for one in (engines["onnxruntime"], engines["openvino"])
    )
    if not call.document["platform"]["gpu"]:
        assert engines["tensorrt"]["remedy"] == "needs an NVIDIA GPU"
        assert "needs an NVIDIA GPU" in qpde("doctor").out
    assert call.document["python"].count(".") == 2
    assert "ros" in call.document
    assert "onnxruntime" in qpde("doctor").out


def test_bag_info_has_the_promised_keys(qpde, sample):
    call = qpde("bag", "info", sample, "--json")
    assert call.code == 0
    assert call.document["format"]
    assert call.document["duration_s"] > 5
    assert call.document["readable_to_end"] is True
    topics = {one["name"]: (one["type"], one["count"]) for one in call.document["topics"]}
    assert topics["/camera/front/image/compressed"][0] == "sensor_msgs/msg/CompressedImage"
    assert topics["/camera/front/image/compressed"][1] > 100
    assert "/camera/front/regions" in qpde("bag", "info", sample).out


def test_bag_info_fails_with_1_on_a_bag_that_is_cut_off(qpde, sample, tmp_path):
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(sample.read_bytes()[:1_000_000])
    call = qpde("bag", "info", cut, "--json")
    assert call.code == 1
    assert call.document["readable_to_end"] is False
    assert "warning: " in call.err


def test_bag_info_of_nothing_is_wrong_use(qpde, tmp_path):
    call = qpde("bag", "info", tmp_path / "nothing.bag")
    assert call.code == 2
    assert "nothing.bag" in call.err


def test_bag_make_turns_a_folder_of_images_into_a_drive_that_replays(qpde, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(4):
        cv2.imwrite(str(folder / f"{index}.png"), np.full((40, 60, 3), 50 * index, np.uint8))
    drive = tmp_path / "drive.mcap"
    call = qpde("bag", "make", folder, "--out", drive, "--rate", "5", "--encoding", "raw", "--json")
    assert call.code == 0
    assert call.document["frames"] == 4
    info = qpde("bag", "info", drive, "--json").document
    assert info["duration_s"] == pytest.approx(0.6)
    again = qpde("bag", "make", folder, "--out", drive)
    assert again.code == 2
    assert str(drive) in again.err
    assert qpde("bag", "make", folder, "--out", drive, "--overwrite").code == 0
    replayed = qpde("replay", drive, "--out", tmp_path / "out", "--json")
    assert (replayed.code, replayed.document["published"]) == (0, 4)


def test_bag_make_of_nothing_is_wrong_use(qpde, tmp_path):
    call = qpde("bag", "make", tmp_path / "nothing", "--out", tmp_path / "drive.mcap")
    assert call.code == 2
    assert call.err.startswith("error: ")
    assert not (tmp_path / "drive.mcap").exists()


def test_bag_make_takes_bursts_by_name_or_by_rule_not_both(qpde, tmp_path):
    options = ["--part", "1", "--bursts-each", "2"]
    call = qpde("bag", "make", tmp_path, "--out", tmp_path / "drive.mcap", *options)
    assert call.code == 2
    assert "--bursts-each" in call.err


def test_the_entry_point_gives_the_exit_code_to_the_shell(command):
    done = subprocess.run([*command, "models", "show", "nothing"], capture_output=True, check=False)
    assert done.returncode == 2
    assert done.stdout == b""
