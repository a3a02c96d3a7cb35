"""Planning: which drives a folder, a pattern or a list stands for, and what each is called."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpde_perception.bags.results import MARKER
from qpde_perception.fleet.errors import FleetError
from qpde_perception.fleet.planning import FLEET_MARKER, plan_drives


@pytest.fixture
def tree(tmp_path):
    """Make files; a name that ends with a slash is a rosbag2 folder."""

    def make(*names):
        for name in names:
            path = tmp_path / name
            if name.endswith("/"):
                path.mkdir(parents=True)
                (path / "metadata.yaml").write_text("rosbag2_bagfile_information:\n  version: 5\n")
                path = path / "part_0.mcap"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path

    return make


def names(*named):
    return [drive.name for drive in plan_drives([str(each) for each in named])]


def test_a_folder_stands_for_its_drives_at_any_depth_sorted(tree):
    folder = tree(
        "z.bag", "a/1.mcap", "a/deep/down/2.db3", "a/packed.mcap.zstd", "b/", "a/note.txt"
    )
    assert names(folder) == ["a/1.mcap", "a/deep/down/2.db3", "a/packed.mcap.zstd", "b", "z.bag"]


def test_a_rosbag2_folder_is_one_drive(tree):
    folder = tree("recording/")
    assert plan_drives([str(folder / "recording")]) == (("recording", folder / "recording"),)


def test_what_a_killed_recorder_left_is_one_drive_and_other_files_are_many(tree):
    folder = tree("ride/ride_0.mcap", "ride/ride_1.mcap", "rides/ride_0.mcap", "rides/ride_1.mcap")
    assert names(folder) == ["ride", "rides/ride_0.mcap", "rides/ride_1.mcap"]


def test_a_part_of_a_rosbag2_folder_is_no_drive_of_its_own(tree):
    folder = tree("recording/", "other.mcap")
    assert names(f"{folder}/**") == ["other.mcap", "recording"]
    assert names(f"{folder}/**/*.mcap") == ["other.mcap", "recording/part_0.mcap"]


def test_a_pattern_takes_drives_and_folders_and_passes_over_the_rest(tree):
    folder = tree("mon/1.mcap", "mon/2.mcap", "tue/1.mcap", "wed/1.mcap", "mon.txt")
    assert names(f"{folder}/[mt]*") == ["mon/1.mcap", "mon/2.mcap", "tue/1.mcap"]
    assert names(f"{folder}/*/1.mcap") == ["mon/1.mcap", "tue/1.mcap", "wed/1.mcap"]


def test_equal_names_in_different_folders_stay_apart(tree):
    folder = tree("mon/1.mcap", "tue/1.mcap", "tue/1.bag")
    shown = names(folder / "tue" / "1.mcap", folder / "mon" / "1.mcap", folder / "tue" / "1.bag")
    assert shown == ["mon/1.mcap", "tue/1.bag", "tue/1.mcap"]


def test_a_drive_named_twice_is_one_drive(tree):
    folder = tree("mon/1.mcap", "mon/2.mcap")
    assert names(folder / "mon", folder / "mon" / ".." / "mon" / "1.mcap", f"{folder}/mon/*") == [
        "1.mcap",
        "2.mcap",
    ]


def test_a_file_that_is_named_is_a_drive_whatever_it_is_called(tree):
    folder = tree("recording [3].dat")
    assert names(folder / "recording [3].dat") == ["recording [3].dat"]


def test_hidden_files_and_results_of_earlier_replays_are_passed_over(tree):
    folder = tree(
        *("a.mcap", ".cache/b.mcap", "out/perception.mcap", f"out/{MARKER}"),
        *(f"fleet/{FLEET_MARKER}", "fleet/drives/a.mcap/perception.mcap"),
    )
    assert names(folder) == ["a.mcap"]
    assert names(f"{folder}/*") == ["a.mcap"]


def test_links_are_followed_and_lead_nobody_in_circles(tree):
    folder = tree("real/a.mcap", "chosen/note.txt")
    (folder / "chosen" / "first.mcap").symlink_to(folder / "real" / "a.mcap")
    (folder / "chosen" / "again").symlink_to(folder / "chosen")
    (folder / "chosen" / "all").symlink_to(folder / "real")
    assert names(folder / "chosen") == ["all/a.mcap", "first.mcap"]


@pytest.mark.parametrize(
    ("named", "remedy"),
    [("nowhere", "does not exist"), ("empty", "no drive there"), ("nowhere/*.mcap", "no drive")],
)
def test_where_no_drive_is_the_error_names_the_place_and_the_remedy(tree, named, remedy):
    folder = tree("empty/note.txt")
    with pytest.raises(FleetError, match=remedy) as error:
        plan_drives([f"{folder}/{named}"])
    assert f"{folder}/{named}" in str(error.value)


PARTS = st.lists(st.sampled_from(["a", "A", "b", "a.mcap", "b__a", "é"]), min_size=1, max_size=3)
FILES = st.tuples(PARTS, st.sampled_from([".mcap", ".bag", ".db3", ".mcap.lz4"]))


def touch(folder, files):
    """Make what can be made of these files: a path cannot be a file and a folder."""
    made = set()
    for parts, suffix in files:
        path = Path(folder, *parts[:-1], parts[-1] + suffix)
        if path.is_dir() or any(above.is_file() for above in path.parents):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        made.add(path)
    return made


@given(st.lists(FILES, min_size=1, max_size=8), st.lists(FILES, max_size=3))
def test_names_are_unique_never_within_each_other_and_stay_when_drives_are_added(files, more):
    with tempfile.TemporaryDirectory() as folder:
        made = touch(folder, files)
        before = plan_drives([folder])
        assert {drive.path for drive in before} == made
        paths = {PurePosixPath(drive.name) for drive in before}
        assert len(paths) == len(made)
        assert not any(paths & set(path.parents) for path in paths)
        assert sorted(before, key=lambda drive: drive.name.split("/")) == list(before)
        touch(folder, more)
        assert set(before) <= set(plan_drives([folder]))
        anyhow = [os.path.join(folder, drive.name) for drive in reversed(before)]  # noqa: PTH118
        assert [drive.path for drive in plan_drives(anyhow)] == [drive.path for drive in before]
