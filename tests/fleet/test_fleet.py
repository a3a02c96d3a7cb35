"""A fleet: the same bytes as one process, nothing lost to a killed worker, and it goes on."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
from contextlib import redirect_stderr
from io import StringIO

import pytest
from fleet_rig import begin, busy_workers, cut, ended, half_done, here, kill, wait_for

from qpde_perception.bags.results import FILES as DRIVE_FILES
from qpde_perception.cli.main import run
from qpde_perception.fleet.digest import DIGEST
from qpde_perception.fleet.folder import FILES
from qpde_perception.fleet.running import RETRIES

MERGED = ("fleet.json", "results.jsonl", "fleet.html")
NAMES = ["a/damaged frame.mcap", "a/long.mcap", "a/no truth.mcap", "b.mcap", "c.mcap"]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def files_of(folder):
    return {path.name for path in folder.iterdir() if path.is_file()}


def contents(out):
    return {name: (out / name).read_bytes() for name in MERGED}


def test_every_drive_is_a_row_and_one_that_cannot_be_opened_is_not_the_end(alone):
    _, call = alone
    document = call.document
    assert call.code == 1
    assert [row["name"] for row in document["drives"]] == NAMES
    assert [row["status"] for row in document["drives"]] == ["replayed"] * 4 + ["failed"]
    assert "no recording" in document["drives"][-1]["error"]
    assert "warning: c.mcap: failed" in call.err
    assert (document["totals"]["replayed"], document["totals"]["failed"]) == (4, 1)
    assert document["complete"] is False


def test_the_folder_holds_what_it_promises(alone):
    out, call = alone
    assert {path.name for path in out.iterdir() if path.is_file() and path.name[0] != "."} == {
        *FILES
    }
    timings = json.loads((out / "timings.json").read_text())
    assert call.document == {
        **json.loads((out / "fleet.json").read_text()),
        "timings": {key: value for key, value in timings.items() if key != "drives"},
    }
    assert [one["name"] for one in timings["drives"]] == NAMES


def test_each_drive_has_what_a_replay_of_it_alone_leaves(alone, drives, tmp_path):
    out, _ = alone
    single = tmp_path / "single"
    command = [sys.executable, "-m", "qpde_perception.cli.main", "replay"]
    subprocess.run([*command, drives / "b.mcap", "--out", single], check=True, capture_output=True)
    folder = out / "drives" / "b.mcap"
    assert files_of(folder) == files_of(single) | {DIGEST}
    for name in ("results.jsonl", "dropped.jsonl", "perception.mcap"):
        assert (folder / name).read_bytes() == (single / name).read_bytes()
    ours, theirs = (json.loads((each / "summary.json").read_text()) for each in (folder, single))
    assert ours.keys() == theirs.keys()
    for measured in ("frames_per_second", "stages"):
        assert ours.pop(measured) != theirs.pop(measured)
    assert ours == theirs


def test_merged_results_are_those_of_the_drives_in_their_order(alone):
    out, call = alone
    expected = []
    for name in NAMES[:4]:
        results = lines(out / "drives" / name / "results.jsonl")
        expected += [{"drive": name, **result} for result in results]
    assert lines(out / "results.jsonl") == expected
    assert len(expected) == call.document["totals"]["published"] > 50
    digest = hashlib.sha256((out / "results.jsonl").read_bytes()).hexdigest()
    assert call.document["results_sha256"] == digest


def test_sums_are_those_of_the_drives_and_of_the_classes(alone):
    _, call = alone
    document, totals = call.document, call.document["totals"]
    rows = document["drives"][:4]
    for name in ("received", "published", "objects", "known_objects", "unknown_objects"):
        assert totals[name] == sum(row[name] for row in rows)
    assert totals["received"] == totals["published"] + sum(totals["dropped"].values())
    assert totals["dropped"] == {"malformed": 1}
    right = sum(row["accuracy"] * row["known_objects"] for row in rows if row["known_objects"])
    assert totals["accuracy"] == pytest.approx(right / totals["known_objects"])
    classes = document["classes"]
    assert sum(one["seen"] for one in classes) == totals["objects"]
    assert sum(one["objects"] for one in classes) == totals["known_objects"]
    known = [count for truth, _, count in document["confusion"] if truth >= 0]
    assert sum(known) == totals["known_objects"]


def test_worst_frames_are_real_frames_with_their_reason_and_their_picture(alone):
    out, call = alone
    results = {
        (one["drive"], one["topic"], one["stamp_ns"]): one for one in lines(out / "results.jsonl")
    }
    worst = call.document["worst"]
    kinds = {frame["kind"] for frame in worst}
    assert {"unsure", "dropped"} <= kinds
    for frame in worst:
        key = frame["drive"], frame["topic"], frame["stamp_ns"]
        if frame["kind"] == "dropped":
            assert key not in results
            continue
        seen = [(one["label"], one["probability"]) for one in results[key]["regions"]]
        assert (frame["label"], frame["probability"]) in seen
    html = (out / "fleet.html").read_text()
    assert html.count("data:image/jpeg") == sum(frame["kind"] != "dropped" for frame in worst)
    for name in NAMES:
        assert name in html


def test_two_workers_give_the_bytes_of_one_process_and_load_the_model_once_each(
    ray, alone, drives, tmp_path
):
    out = tmp_path / "out"
    call = ended(begin(drives, "--out", out, "--workers", 2))
    assert call.code == 1
    assert contents(out) == contents(alone[0])
    timings = json.loads((out / "timings.json").read_text())
    assert timings["workers"] == 2
    loaded = [one["worker"] for one in timings["drives"] if one["loading_s"] > 0]
    assert sorted(loaded) == sorted({one["worker"] for one in timings["drives"]})
    for name in NAMES[:4]:
        folder, single = out / "drives" / name, alone[0] / "drives" / name
        assert files_of(folder) == files_of(single) >= {*DRIVE_FILES, DIGEST}
        assert (folder / "perception.mcap").read_bytes() == (
            single / "perception.mcap"
        ).read_bytes()


def test_a_worker_killed_in_the_middle_of_a_drive_loses_nothing(
    cluster, long_alone, long_drives, tmp_path
):
    out = tmp_path / "out"
    process = begin(long_drives, "--out", out, "--address", cluster.address, **cluster.access)
    (folder, *_) = wait_for(lambda: half_done(out), process)
    assert kill(busy_workers(cluster)) in {1, 2}
    assert not (folder / DIGEST).exists()
    call = ended(process)
    assert (call.code, call.document["complete"]) == (0, True)
    assert f"{folder.name}: 1 workers died" in call.err
    assert contents(out) == contents(long_alone)


def test_a_drive_that_kills_every_worker_is_told_and_the_others_go_on(
    cluster, long_drives, tmp_path
):
    out = tmp_path / "out"
    process = begin(
        long_drives, "--out", out, "--address", cluster.address, "--workers", 1, **cluster.access
    )
    deaths = 0
    while deaths <= RETRIES:
        deaths += kill(wait_for(lambda: busy_workers(cluster), process))
    call = ended(process)
    assert (call.code, deaths) == (1, 1 + RETRIES)
    deadly, healthy = call.document["drives"]
    assert (deadly["status"], healthy["status"]) == ("failed", "replayed")
    assert f"its worker died {deaths} times" in deadly["error"]


@pytest.mark.parametrize("where", ["this process", "ray"])
def test_ctrl_c_stops_the_fleet_which_goes_on_where_it_was(
    request, where, long_alone, long_drives, tmp_path
):
    out, place, access = tmp_path / "out", ("--workers", 0), {}
    if where == "ray":
        cluster = request.getfixturevalue("cluster")
        place, access = ("--address", cluster.address), cluster.access
    process = begin(long_drives, "--out", out, *place, **access)
    wait_for(lambda: half_done(out), process)
    process.send_signal(signal.SIGINT)
    call = ended(process)
    assert call.code == 130, call
    assert "Traceback" not in call.err
    assert call.document["complete"] is False
    assert "not replayed" in {row["status"] for row in call.document["drives"]}
    again = here(long_drives, "--out", out, "--json")
    assert (again.code, again.document["complete"]) == (0, True)
    assert contents(out) == contents(long_alone)


def test_where_no_cluster_is_the_error_names_the_address_and_the_remedy(ray, drives, tmp_path):
    call = ended(begin(drives, "--out", tmp_path / "out", "--address", "127.0.0.1:1"))
    assert call.code == 2
    line = call.err.splitlines()[-1]
    assert line.startswith("error: no Ray cluster answers at 127.0.0.1:1")
    assert "ray start --head" in line


def test_finished_drives_are_left_alone_and_unfinished_or_changed_ones_done_again(
    alone, drives, tmp_path
):
    out = tmp_path / "out"
    shutil.copytree(alone[0], out)
    folders = {name: out / "drives" / name for name in NAMES[:4]}
    before = {name: (folder / "timings.csv").read_bytes() for name, folder in folders.items()}
    (folders["a/long.mcap"] / DIGEST).unlink()
    with (folders["b.mcap"] / "results.jsonl").open("ab") as results:
        results.write(b"{}\n")
    call = here(drives, "--out", out, "--json")
    done = {
        name
        for name, folder in folders.items()
        if (folder / "timings.csv").read_bytes() != before[name]
    }
    assert done == {"a/long.mcap", "b.mcap"}
    assert "2 drives were finished before" in call.err
    assert contents(out) == contents(alone[0])


def test_other_options_or_another_drive_of_the_name_are_done_anew(tmp_path):
    drives, out = tmp_path / "drives", tmp_path / "out"
    cut(drives / "1.mcap", 0.0, 1.0, truth=False)
    cut(drives / "2.mcap", 0.0, 1.0, truth=False)

    def again(*options):
        call = here(drives, "--out", out, "--json", *options)
        assert call.code == 0, call.err
        return call.document["timings"]["finished_before"], call.document["totals"]["received"]

    assert again() == (0, 8)
    cut(drives / "2.mcap", 0.0, 0.25, truth=False)
    assert again() == (1, 7)
    assert again("--duration", "0.15") == (0, 4)


def test_drives_of_an_earlier_fleet_are_told_and_left_out(alone, drives, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(alone[0], out)
    call = here(drives / "b.mcap", "--out", out, "--json")
    assert call.code == 0
    assert [row["name"] for row in call.document["drives"]] == ["b.mcap"]
    assert "from an earlier fleet: a/damaged frame.mcap, a/long.mcap" in call.err


def test_without_ray_the_error_names_what_brings_it(drives, tmp_path):
    program = (
        "import sys; sys.modules['ray'] = None; from qpde_perception.cli.main import run; "
        "sys.exit(run(sys.argv[1:]))"
    )
    arguments = ["replay", drives, "--fleet", "--out", tmp_path / "out"]
    call = ended(
        subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    )
    assert call.code == 2
    (line,) = call.err.splitlines()
    assert 'pip install "qpde_perception[fleet]"' in line


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--address", "10.0.0.1:6379"], "--address"),
        (["--engine", "steam"], "steam"),
        (["--out", "{drives}"], "lies in"),
    ],
)
def test_bad_use_gets_one_clear_line_and_code_2(arguments, named, drives, tmp_path):
    told = [each.format(drives=drives) for each in arguments]
    call = here(drives, *([] if "--out" in told else ["--out", tmp_path / "out"]), *told)
    assert call.code == 2
    (line,) = call.err.splitlines()
    assert line.startswith("error: ")
    assert named in line


def test_several_drives_without_fleet_are_pointed_to_it(drives):
    with redirect_stderr(StringIO()) as err:
        assert run(["replay", str(drives / "b.mcap"), str(drives / "c.mcap")]) == 2
    assert "add --fleet" in err.getvalue()


def test_people_get_a_table(drives, alone, monkeypatch):
    out, _ = alone
    monkeypatch.setenv("COLUMNS", "200")
    call = here(drives, "--out", out)
    for word in (*NAMES, "4 of 5", "failed", "fleet.html"):
        assert word in call.out
