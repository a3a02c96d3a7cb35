"""`qpde replay` as users call it: the shipped sample, bad input, Ctrl-C, a full disk."""

from __future__ import annotations

import csv
import hashlib
import json
import resource
import shutil
import signal
import subprocess
import time
from itertools import pairwise
from types import SimpleNamespace

import pytest
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from qpde_perception.bags import McapWriter, open_drive
from qpde_perception.bags.results import FILES, MARKER
from qpde_perception.fleet import job as replay_job

CAMERA = "/camera/front/image/compressed"


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def messages(path):
    """Read a bag with nothing of ours: topic, message type, log time."""
    with AnyReader([path], default_typestore=get_typestore(Stores.EMPTY)) as reader:
        return [
            (link.topic, link.msgtype, stamp, reader.deserialize(raw, link.msgtype))
            for link, stamp, raw in reader.messages()
        ]


def test_the_sample_gives_all_files_and_one_json_object(replayed):
    out, call = replayed
    assert call.code == 0
    assert {path.name for path in out.iterdir()} == {*FILES, MARKER}
    assert call.document == json.loads((out / "summary.json").read_text())
    assert call.err == ""


def test_the_sample_is_accounted_for_to_the_last_frame(replayed):
    out, call = replayed
    summary, results = call.document, lines(out / "results.jsonl")
    assert summary["received"] == summary["published"] + sum(summary["dropped"].values())
    assert summary["published"] == len(results) > 100
    assert summary["dropped"] == {}
    assert summary["losses"] == []
    assert summary["interrupted"] is False
    digest = hashlib.sha256((out / "results.jsonl").read_bytes()).hexdigest()
    assert summary["results_sha256"] == digest
    assert [one["stamp_ns"] for one in results] == sorted(one["stamp_ns"] for one in results)
    with (out / "timings.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["stamp_ns"]) for row in rows] == [one["stamp_ns"] for one in results]
    assert all(float(row["total_ms"]) > 0 for row in rows)


def test_the_sample_is_judged_by_the_truth_it_carries(replayed):
    _, call = replayed
    summary = call.document
    assert 0.0 <= summary["accuracy"] <= 1.0
    assert summary["known_objects"] > 50
    assert summary["unknown_objects"] > 0
    assert summary["unmatched_objects"] == 0
    assert {"decode", "prepare", "infer", "postprocess", "total"} == summary["stages"].keys()
    assert all(times["p50"] <= times["p99"] for times in summary["stages"].values())


def test_the_accuracy_is_what_the_result_file_and_the_drive_say(replayed, sample):
    out, call = replayed
    truth = {}
    for topic, _, _, message in messages(sample):
        if topic == "/camera/front/ground_truth":
            stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
            truth[stamp] = [
                int(detection.results[0].hypothesis.class_id) for detection in message.detections
            ]
    right = known = 0
    for result in lines(out / "results.jsonl"):
        classes = truth[result["stamp_ns"]]
        assert len(classes) == len(result["regions"])
        for expected, region in zip(classes, result["regions"], strict=True):
            known += expected >= 0
            right += expected == region["class_index"]
    assert call.document["known_objects"] == known
    assert call.document["accuracy"] == pytest.approx(right / known)


def test_the_bag_holds_images_as_recorded_and_what_the_model_says(replayed, sample):
    out, call = replayed
    found = messages(out / "perception.mcap")
    by_topic = {}
    for topic, kind, stamp, message in found:
        by_topic.setdefault((topic, kind), []).append((stamp, message))
    frames = call.document["received"]
    assert {key: len(value) for key, value in by_topic.items() if key[0] != "/diagnostics"} == {
        (CAMERA, "sensor_msgs/msg/CompressedImage"): frames,
        ("/camera/front/classification", "vision_msgs/msg/Detection2DArray"): frames,
        ("/camera/front/annotations", "foxglove_msgs/msg/ImageAnnotations"): frames,
        ("/camera/front/label_info", "vision_msgs/msg/LabelInfo"): 1,
    }
    source = [
        (stamp, message.data.tobytes())
        for topic, _, stamp, message in messages(sample)
        if topic == CAMERA
    ]
    copied = by_topic[CAMERA, "sensor_msgs/msg/CompressedImage"]
    assert [(stamp, message.data.tobytes()) for stamp, message in copied] == source
    results = lines(out / "results.jsonl")
    said = by_topic["/camera/front/classification", "vision_msgs/msg/Detection2DArray"]
    for result, (_, message) in zip(results, said, strict=True):
        assert [int(one.results[0].hypothesis.class_id) for one in message.detections] == [
            region["class_index"] for region in result["regions"]
        ]
    overlays = by_topic["/camera/front/annotations", "foxglove_msgs/msg/ImageAnnotations"]
    for result, (_, overlay) in zip(results, overlays, strict=True):
        assert len(overlay.points) == len(overlay.texts) == len(result["regions"])
        for region, text in zip(result["regions"], overlay.texts, strict=True):
            assert text.text.startswith(region["label"])


def test_diagnostics_come_once_a_second_and_end_with_the_truth(replayed):
    out, call = replayed
    statuses = [
        (stamp, message.status[0])
        for topic, _, stamp, message in messages(out / "perception.mcap")
        if topic == "/diagnostics"
    ]
    gaps = [later - earlier for (earlier, _), (later, _) in pairwise(statuses)]
    assert min(gaps[:-1]) >= 10**9
    values = {entry.key: int(entry.value) for entry in statuses[-1][1].values}
    assert values["received"] == call.document["received"]


def test_the_same_drive_gives_the_same_bytes(replayed, sample, qpde, tmp_path):
    out, _ = replayed
    assert qpde("replay", sample, "--out", tmp_path / "again").code == 0
    for name in ("results.jsonl", "perception.mcap"):
        assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes()


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_threads_of_the_engine_change_no_byte(engine, sample, qpde, tmp_path):
    written = []
    for threads in (1, 2):
        options = ("--engine", engine, "--threads", threads, "--duration", "10", "--json")
        call = qpde("replay", sample, *options, "--out", tmp_path)
        assert call.document["engine"] == engine
        written.append((tmp_path / "results.jsonl").read_bytes())
    assert written[0] == written[1] != b""


def test_start_and_duration_choose_a_part_of_the_drive(replayed, sample, qpde, tmp_path):
    part = qpde("replay", sample, "--out", tmp_path / "part", "--duration", "1", "--json")
    assert 1 <= part.document["received"] <= 10
    late = qpde("replay", sample, "--out", tmp_path / "part", "--start", "1e6", "--json")
    assert (late.code, late.document["received"], late.document["accuracy"]) == (0, 0, None)
    assert "warning: no frame of /camera/front/image/compressed lies in the part" in late.err


def test_people_get_a_summary_on_stdout(qpde, short_drive, tmp_path):
    call = qpde("replay", short_drive, "--out", tmp_path / "out")
    assert call.code == 0
    for word in ("frames in", "published", "dropped", "frames per second", "p99"):
        assert word in call.out


def test_frames_that_cannot_be_decoded_are_counted_and_the_rest_goes_on(
    qpde, make_frames, short_drive, tmp_path
):
    good = messages(short_drive)[0][3].data.tobytes()
    drive = make_frames(tmp_path / "drive.mcap", [good, good[:-50], b"", b"text", good])
    call = qpde("replay", drive, "--out", tmp_path / "out", "--json")
    assert call.code == 0
    assert (call.document["received"], call.document["published"]) == (5, 2)
    assert call.document["dropped"] == {"malformed": 3}
    dropped = lines(tmp_path / "out" / "dropped.jsonl")
    assert [one["reason"] for one in dropped] == ["malformed"] * 3
    assert call.err.count("warning: dropped") == 3


def test_a_bag_cut_off_in_the_middle_gives_its_readable_frames_and_says_what_is_lost(
    qpde, sample, replayed, tmp_path
):
    content = sample.read_bytes()
    drive = tmp_path / "cut.mcap"
    drive.write_bytes(content[: len(content) // 2])
    call = qpde("replay", drive, "--out", tmp_path / "out", "--json")
    assert call.code == 0
    summary = call.document
    assert 0 < summary["received"] < replayed[1].document["received"]
    assert summary["received"] == summary["published"]
    (loss,) = summary["losses"]
    assert f"warning: {loss}" in call.err


def test_boxes_whose_stamps_fit_no_image_are_pointed_out(qpde, sample, tmp_path):
    topics = {"/camera/front/image/compressed": 0, "/camera/front/regions": 1}
    drive = tmp_path / "shifted.mcap"
    with open_drive(sample) as source, McapWriter(drive) as writer:
        for recorded in source.messages(topics, duration_s=1.0):
            recorded.message.header.stamp.nanosec += topics[recorded.topic]
            writer.write(recorded.topic, recorded.message, recorded.log_time_ns)
    call = qpde("replay", drive, "--out", tmp_path / "out", "--json")
    assert call.code == 0
    assert call.document["published"] == call.document["received"] > 0
    assert call.document["objects"] == 0
    assert "warning: no frame has regions" in call.err
    assert "/camera/front/regions" in call.err


def test_a_drive_cut_off_before_its_first_topic_says_so(qpde, short_drive, tmp_path):
    drive = tmp_path / "cut.mcap"
    drive.write_bytes(short_drive.read_bytes()[:20])
    call = qpde("replay", drive, "--out", tmp_path / "out")
    assert call.code == 2
    loss, error = call.err.splitlines()
    assert "cut off" in loss
    assert "no camera topic" in error


def test_a_true_class_that_the_model_has_not_is_one_it_does_not_know(qpde, sample, tmp_path):
    topics = {"/camera/front/image/compressed", "/camera/front/ground_truth"}
    drive = tmp_path / "foreign.mcap"
    with open_drive(sample) as source, McapWriter(drive) as writer:
        for recorded in source.messages(topics, duration_s=0.4):
            for detection in getattr(recorded.message, "detections", []):
                detection.results[0].hypothesis.class_id = "99"
            writer.write(recorded.topic, recorded.message, recorded.log_time_ns)
    call = qpde(
        *("replay", drive, "--regions", "/camera/front/ground_truth"),
        *("--out", tmp_path / "out", "--json"),
    )
    assert call.code == 0, call.err
    assert call.document["unknown_objects"] == call.document["objects"] > 0
    assert call.document["accuracy"] is None


def tampered(at):
    folder = shutil.copytree(at.model, at.folder / "model")
    weights = folder / "cpu.onnx"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    return folder


def of_the_future(at):
    folder = shutil.copytree(at.model, at.folder / "model")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "format_version": 99}))
    return folder


def text_file(folder):
    path = folder / "drive.mcap"
    path.write_text("not a bag")
    return path


def empty_file(folder):
    path = folder / "drive.bag"
    path.touch()
    return path


BAD_INPUT = {
    "no such drive": (lambda at: [at.folder / "nowhere.mcap"], "nowhere.mcap"),
    "a folder that is no bag": (lambda at: [at.folder], ""),
    "a text file": (lambda at: [text_file(at.folder)], "drive.mcap"),
    "an empty file": (lambda at: [empty_file(at.folder)], "drive.bag"),
    "a missing topic": (lambda at: [at.drive, "--camera", "/nowhere"], CAMERA),
    "missing regions": (lambda at: [at.drive, "--regions", "/nowhere"], CAMERA),
    "an unknown model": (lambda at: [at.drive, "--model", "nothing"], "traffic_signs"),
    "one changed byte": (lambda at: [at.drive, "--model", tampered(at)], "cpu.onnx"),
    "a newer format": (lambda at: [at.drive, "--model", of_the_future(at)], "99"),
    "an unknown engine": (lambda at: [at.drive, "--engine", "steam"], "openvino"),
    "a negative start": (lambda at: [at.drive, "--start", "-1"], "--start"),
    "a start at no time": (lambda at: [at.drive, "--start", "nan"], "--start"),
    "an endless duration": (lambda at: [at.drive, "--duration", "inf"], "--duration"),
    "an unknown option": (lambda at: [at.drive, "--quick"], "--quick"),
    "an unknown filter": (lambda at: [at.drive, "--filter", "kalman"], "exponential"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_gets_one_clear_line_and_code_2(case, qpde, short_drive, model, tmp_path):
    arguments, named = BAD_INPUT[case]
    out = tmp_path / "out"
    at = SimpleNamespace(folder=tmp_path, drive=short_drive, model=model)
    call = qpde("replay", *arguments(at), "--out", out, "--json")
    assert call.code == 2
    assert call.out == ""
    (line,) = call.err.splitlines()
    assert line.startswith("error: ")
    assert named in line
    assert not (out / "results.jsonl").exists()


def test_debug_shows_the_traceback_above_the_line(qpde, tmp_path):
    call = qpde("replay", tmp_path / "nowhere.mcap", "--debug")
    assert call.code == 2
    assert call.err.startswith("Traceback")
    assert call.err.splitlines()[-1].startswith("error: ")


def test_a_folder_with_other_files_is_refused_untouched(qpde, short_drive, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    call = qpde("replay", short_drive, "--out", tmp_path)
    assert call.code == 2
    assert str(tmp_path) in call.err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_folder_of_an_earlier_replay_is_replaced(qpde, short_drive, tmp_path):
    assert qpde("replay", short_drive, "--out", tmp_path, "--duration", "0.1").code == 0
    before = (tmp_path / "results.jsonl").read_text()
    assert qpde("replay", short_drive, "--out", tmp_path).code == 0
    assert len((tmp_path / "results.jsonl").read_text()) > len(before) > 0


def test_bad_input_leaves_an_earlier_replay_alone(qpde, short_drive, tmp_path):
    qpde("replay", short_drive, "--out", tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert qpde("replay", short_drive, "--out", tmp_path, "--engine", "steam").code == 2
    assert qpde("replay", short_drive, "--out", tmp_path, "--camera", "/none").code == 2
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_drive_inside_the_folder_to_be_replaced_is_refused(qpde, short_drive, tmp_path):
    qpde("replay", short_drive, "--out", tmp_path)
    bag = tmp_path / "perception.mcap"
    before = bag.read_bytes()
    assert qpde("replay", bag, "--out", tmp_path).code == 2
    assert bag.read_bytes() == before


def wait_for_lines(path, count, process):
    for _ in range(600):
        if path.exists() and path.read_text().count("\n") >= count:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    pytest.fail("the replay did not get going")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_replay_leaves_everything_valid(number, command, long_drive, tmp_path):
    out = tmp_path / "out"
    process = subprocess.Popen(
        [*command, "replay", long_drive, "--out", out, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_lines(out / "results.jsonl", 5, process)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.splitlines()[-1].startswith("interrupted")
    assert "Traceback" not in stderr
    summary = json.loads((out / "summary.json").read_text())
    assert json.loads(stdout) == summary
    assert summary["interrupted"] is True
    results = lines(out / "results.jsonl")
    assert 5 <= len(results) == summary["published"] == summary["received"] < 600
    topics = [topic for topic, *_ in messages(out / "perception.mcap")]
    assert topics.count(CAMERA) == len(results)
    assert "interrupted" in (out / "report.html").read_text()


def test_ctrl_c_while_the_report_is_written_waits_until_it_is(
    qpde, short_drive, tmp_path, monkeypatch
):
    written = replay_job.write_text

    def interrupted(path, text):
        signal.raise_signal(signal.SIGINT)
        written(path, text)
        monkeypatch.setattr(replay_job, "write_text", written)

    monkeypatch.setattr(replay_job, "write_text", interrupted)
    call = qpde("replay", short_drive, "--out", tmp_path, "--json")
    assert call.code == 0
    assert json.loads((tmp_path / "summary.json").read_text()) == call.document
    assert (tmp_path / "report.html").read_text().endswith("</html>\n")


@pytest.mark.parametrize("limit", [1_000, 40_000])
def test_on_a_full_disk_there_is_one_line_and_whole_files(limit, command, long_drive, tmp_path):
    """A limit on the size of files stands for the disk: the same error at the same place."""

    def full():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    out = tmp_path / "out"
    done = subprocess.run(
        [*command, "replay", long_drive, "--out", out],
        check=False,
        capture_output=True,
        text=True,
        preexec_fn=full,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert str(out) in line
    content = (out / "results.jsonl").read_text()
    assert content == "" or content.endswith("\n")
    assert lines(out / "results.jsonl") is not None


def test_a_folder_that_cannot_be_made_is_named(qpde, short_drive, tmp_path):
    (tmp_path / "file").touch()
    call = qpde("replay", short_drive, "--out", tmp_path / "file" / "out")
    assert call.code == 2
    (line,) = call.err.splitlines()
    assert str(tmp_path / "file") in line


def test_replay_never_imports_torch_nor_ros(command, short_drive, tmp_path):
    program = (
        "import sys; from qpde_perception.cli.main import run; "
        "code = run(sys.argv[1:]); print(code, sorted({'torch', 'rclpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [command[0], "-c", program, "replay", short_drive, "--out", tmp_path / "out", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "0 []"
