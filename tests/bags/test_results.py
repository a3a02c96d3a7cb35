"""The folder of a replay: nobody's files are lost, and what is written is whole lines."""

from __future__ import annotations

import errno
import hashlib
import json
import resource
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from qpde_perception.bags import BagError
from qpde_perception.bags.cameras import Camera
from qpde_perception.bags.replay import Dropped, Published
from qpde_perception.bags.results import FILES, MARKER, ResultFiles, claim_folder, write_text
from qpde_perception.monitoring import DropReason
from qpde_perception.perception import Perception, RegionResult

CAMERA = Camera("/camera/front/image", "/camera/front", None, None)
REGION = RegionResult(
    box=(1.0, 2.0, 3.3333333, 4.0),
    track_id="a",
    class_index=3,
    label="60 km/h",
    probability=0.123456789,
    filtered_class_index=3,
    filtered_probability=0.5,
    probabilities=np.full(4, 0.25),
    filtered_probabilities=np.full(4, 0.25),
)


def published(stamp_ns, total_ms=1.0):
    perception = Perception(stamp_ns, "front", (REGION,), {"total": total_ms})
    return Published(CAMERA, SimpleNamespace(), SimpleNamespace(), perception)


def test_a_new_folder_is_made_with_its_parents(tmp_path):
    claim_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b" / MARKER).exists()


def test_an_empty_folder_is_taken(tmp_path):
    claim_folder(tmp_path)
    assert (tmp_path / MARKER).exists()


def test_a_folder_with_foreign_files_is_refused_untouched(tmp_path):
    (tmp_path / "results.jsonl").write_text("mine")
    with pytest.raises(BagError, match="not made by a replay"):
        claim_folder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["results.jsonl"]
    assert (tmp_path / "results.jsonl").read_text() == "mine"


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(BagError, match="is a file"):
        claim_folder(tmp_path / "out")


def test_an_earlier_replay_is_replaced_and_files_beside_it_stay(tmp_path):
    claim_folder(tmp_path)
    for name in (*FILES, "notes.txt"):
        (tmp_path / name).write_text("old")
    claim_folder(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {MARKER, "notes.txt"}


def test_results_hold_no_timing_and_six_digits(tmp_path):
    with ResultFiles(tmp_path) as files:
        files.add(published(5, total_ms=1.0))
        first = files.results_sha256
    line = json.loads((tmp_path / "results.jsonl").read_text())
    assert line["regions"][0]["probability"] == 0.123457
    assert line["regions"][0]["box"] == [1.0, 2.0, 3.333333, 4.0]
    with ResultFiles(tmp_path) as files:
        files.add(published(5, total_ms=99.0))
        assert files.results_sha256 == first


def test_a_dropped_frame_goes_to_its_own_file(tmp_path):
    fault = "jpeg: cut\noff"
    with ResultFiles(tmp_path) as files:
        files.add(Dropped(CAMERA, SimpleNamespace(), 7, DropReason.MALFORMED, fault))
    (line,) = (tmp_path / "dropped.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "stamp_ns": 7,
        "topic": CAMERA.topic,
        "reason": "malformed",
        "fault": fault,
    }
    assert (tmp_path / "results.jsonl").read_text() == ""


def test_timings_have_one_row_a_frame_with_the_stages_that_ran(tmp_path):
    with ResultFiles(tmp_path) as files:
        files.add(published(5, total_ms=1.5))
    head, row = (tmp_path / "timings.csv").read_text().splitlines()
    assert head == "stamp_ns,topic,decode_ms,prepare_ms,infer_ms,postprocess_ms,total_ms"
    assert row == '5,"/camera/front/image",,,,,1.5000'


def test_the_hash_is_that_of_the_whole_file_before_it_is_closed(tmp_path):
    with ResultFiles(tmp_path) as files:
        for stamp in range(100):
            files.add(published(stamp))
        promised = files.results_sha256
    content = (tmp_path / "results.jsonl").read_bytes()
    assert content.count(b"\n") == 100
    assert promised == hashlib.sha256(content).hexdigest()


def test_a_long_replay_is_in_its_file_while_it_goes_on(tmp_path):
    with ResultFiles(tmp_path) as files:
        for stamp in range(1000):
            files.add(published(stamp))
        content = (tmp_path / "results.jsonl").read_text()
    stamps = [json.loads(line)["stamp_ns"] for line in content.splitlines()]
    assert stamps == list(range(len(stamps)))
    assert len(stamps) > 900


FULL_DISK = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[2]]
from test_results import ResultFiles, published
with ResultFiles(Path(sys.argv[1])) as files:
    try:
        for stamp in range(10_000):
            files.add(published(stamp))
    except OSError as error:
        print(error.errno, error.filename)
"""


def test_on_a_full_disk_the_file_ends_with_a_whole_line_and_the_error_names_it(tmp_path):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))

    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, tmp_path, __file__.rsplit("/", 1)[0]],
        capture_output=True,
        text=True,
        preexec_fn=limit,
        check=True,
    )
    assert done.stdout.split() == [str(errno.EFBIG), str(tmp_path / "results.jsonl")]
    content = (tmp_path / "results.jsonl").read_text()
    assert 4000 < len(content) <= 5000  # as much as fits, though lines are written together
    assert content.endswith("\n")
    stamps = [json.loads(line)["stamp_ns"] for line in content.splitlines()]
    assert stamps == list(range(len(stamps)))


def test_on_a_full_disk_no_half_document_is_left(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            write_text(tmp_path / "summary.json", "x" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert caught.value.filename == str(tmp_path / "summary.json")
    assert list(tmp_path.iterdir()) == []
