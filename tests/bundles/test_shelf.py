"""Finding bundles by folder and by name."""

from __future__ import annotations

import os
import shutil
import sys

import pytest

from qpde_perception.bundles import BundleError, find_model, list_models


@pytest.fixture
def shelf(tmp_path, tiny_bundle, monkeypatch):
    """A shelf of the user with one bundle, `own`."""
    folder = tmp_path / "shelf"
    shutil.copytree(tiny_bundle.path, folder / "own")
    monkeypatch.setenv("QPDE_MODELS", str(folder))
    return folder


def test_without_a_name_the_traffic_sign_model_is_found():
    assert find_model(None).name == "traffic_signs"
    assert find_model(None) == find_model("traffic_signs")


def test_a_folder_is_found_as_it_is(tiny_bundle):
    assert find_model(str(tiny_bundle.path)) == tiny_bundle.path


def test_bundles_of_the_user_are_found_by_name(shelf):
    assert find_model("own") == shelf / "own"
    assert [path.name for path in list_models()] == sorted(["own", "traffic_signs"])


def test_a_bundle_of_the_user_goes_before_one_that_ships(shelf):
    shutil.copytree(shelf / "own", shelf / "traffic_signs")
    assert find_model(None) == shelf / "traffic_signs"
    assert [path.name for path in list_models()].count("traffic_signs") == 1


def test_several_shelves_are_searched_in_their_order(shelf, tmp_path, monkeypatch):
    other = tmp_path / "other"
    shutil.copytree(shelf / "own", other / "own")
    shutil.copytree(shelf / "own", other / "second")
    monkeypatch.setenv("QPDE_MODELS", os.pathsep.join([str(shelf), "", str(other)]))
    assert find_model("own") == shelf / "own"
    assert find_model("second") == other / "second"


def test_models_of_a_sourced_ros_workspace_and_of_an_installation_are_found(
    shelf, tmp_path, monkeypatch
):
    workspace, python = tmp_path / "workspace", tmp_path / "python"
    for prefix, name in ((workspace, "both"), (workspace, "sourced"), (python, "both")):
        shutil.copytree(shelf / "own", prefix / "share" / "qpde_perception" / "models" / name)
    monkeypatch.setattr(sys, "prefix", str(python))
    monkeypatch.setenv("AMENT_PREFIX_PATH", os.pathsep.join(["", "/nowhere", str(workspace)]))
    assert find_model("sourced").is_relative_to(workspace)
    assert find_model("both").is_relative_to(workspace)
    monkeypatch.delenv("AMENT_PREFIX_PATH")
    assert find_model("both").is_relative_to(python)


def test_unknown_model_error_lists_the_known_ones(shelf):
    with pytest.raises(BundleError, match=r"'nothing'.*own, traffic_signs"):
        find_model("nothing")


def test_a_shelf_that_is_not_there_hides_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("QPDE_MODELS", str(tmp_path / "nowhere"))
    assert find_model(None).name == "traffic_signs"


def test_folders_without_a_manifest_are_no_models(shelf):
    (shelf / "empty").mkdir()
    assert "empty" not in [path.name for path in list_models()]
    with pytest.raises(BundleError, match="'empty'"):
        find_model("empty")


def test_unfinished_bundles_are_not_listed(shelf):
    shutil.copytree(shelf / "own", shelf / ".own.k3jx0a1b" / "fresh")
    shutil.copytree(shelf / "own", shelf / ".hidden")
    assert [path.name for path in list_models()] == ["own", "traffic_signs"]
