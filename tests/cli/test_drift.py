"""`qpde drift` and the drift part of `qpde replay`, as users call them."""

from __future__ import annotations

import hashlib
import json
import shutil

import numpy as np
import pytest

from qpde_perception.bundles import CALIBRATION, load_bundle
from qpde_perception.engines.onnxruntime import OnnxRuntimeEngine


@pytest.fixture
def altered(model, tmp_path):
    """Copy the model that ships with other contents of files, or without some."""

    def alter(**contents):
        folder = tmp_path / "altered"
        shutil.copytree(model, folder)
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        for name, content in contents.items():
            if content is None:
                (folder / name).unlink()
                del manifest["files"][name]
            else:
                (folder / name).write_bytes(content)
                manifest["files"][name] = hashlib.sha256(content).hexdigest()
        (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        return folder

    return alter


@pytest.fixture
def change_engine(monkeypatch):
    """Have the engine change after a number of items, by less than any score shows."""

    def change(after):
        plain, items = OnnxRuntimeEngine.infer, 0

        def infer(self, batch):
            nonlocal items
            logits = plain(self, batch)
            if self.name == "onnxruntime":
                logits[max(after - items, 0) :] += np.float32(1e-3)
                items += len(batch)
            return logits

        monkeypatch.setattr(OnnxRuntimeEngine, "infer", infer)

    return change


def test_a_drive_with_the_engine_as_validated_is_no_failure_and_told_in_numbers(qpde, sample):
    call = qpde("drift", sample, "--duration", 10, "--json")
    assert (call.code, call.err) == (0, "")
    document = call.document
    assert document["engine"] == "onnxruntime"
    assert document["frames"] > 20
    assert document["observed"] == document["sampled"] > 20
    assert (document["golden_identical"], document["unwatched"]) == (True, [])
    assert document["level"] == "OK"
    assert document["verdicts"] == []
    assert 0.1 < document["noise_ratio"] < 10.0
    assert set(document["evidence"]) >= {"noise", "disagreement"}
    assert qpde("drift", sample, "--duration", 10, "--json").document == document
    call = qpde("drift", sample, "--duration", 10)
    assert "none found" in call.out
    assert "golden frames" in call.out


def test_an_engine_that_changes_fails_with_the_cause_the_time_and_the_remedy(
    qpde, sample, change_engine
):
    change_engine(after=90)
    call = qpde("drift", sample, "--json")
    assert call.code == 1
    document = call.document
    assert document["level"] == "ERROR"
    (found,) = (each for each in document["verdicts"] if each["level"] == "ERROR")
    assert (found["cause"], found["rule"]) == ("engine changed", "exact")
    assert 10.0 < found["begin_s"] < 54.0
    assert found["end_s"] is None
    change_engine(after=90)
    call = qpde("drift", sample)
    assert call.code == 1
    assert "engine changed" in call.out
    assert "restart the node" in " ".join(call.out.replace("│", " ").split())


def test_a_world_that_changed_is_told_and_no_failure(qpde, sample, model, altered):
    calibration = json.loads((model / CALIBRATION).read_text(encoding="utf-8"))
    for statistic in calibration["inputs"]["statistics"]:
        statistic["quantiles"] = [value - 1e3 for value in statistic["quantiles"]]
        statistic["above"] = {"mean": 0.05, "bound": 0.1}
    calibration["inputs"]["signatures"] = []
    darker = altered(**{CALIBRATION: json.dumps(calibration).encode()})
    call = qpde("drift", sample, "--model", darker, "--json")
    assert call.code == 0
    assert {each["cause"] for each in call.document["verdicts"]} == {"world changed"}
    assert {each["rule"] for each in call.document["verdicts"]} == {"inputs"}


def test_a_drive_of_other_signs_than_the_calibrations_is_no_false_alarm(qpde, sample):
    call = qpde("drift", sample, "--json")
    assert (call.code, call.document["verdicts"]) == (0, [])


def test_a_replay_tells_it_in_the_summary_the_report_and_the_bag(
    qpde, sample, change_engine, tmp_path
):
    out = tmp_path / "out"
    change_engine(after=90)
    call = qpde("replay", sample, "--out", out, "--json", "--drift-share", 1)
    assert call.code == 0
    assert "warning: engine changed at " in call.err
    drift = call.document["drift"]
    assert drift == json.loads((out / "summary.json").read_text(encoding="utf-8"))["drift"]
    assert (drift["share"], drift["level"]) == (1.0, "ERROR")
    causes = [each["cause"] for each in drift["verdicts"]]
    assert "engine changed" in causes
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<h2>Drift</h2>" in page
    assert "Evidence and noise over the drive" in page
    assert drift["verdicts"][causes.index("engine changed")]["remedy"] in page
    statuses = diagnostics_of(out / "perception.mcap")
    assert {status.name for status in statuses} >= {"qpde replay: quantization_drift"}
    last = [status for status in statuses if status.name.endswith("quantization_drift")][-1]
    values = {pair.key: pair.value for pair in last.values}
    assert (last.level, values["cause"]) == (2, "engine changed")


def test_no_share_of_the_items_changes_the_results(qpde, sample, tmp_path):
    found = []
    for share in ("0", "0.5"):
        options = ("--duration", 5, "--drift-share", share, "--out", tmp_path / share, "--json")
        found.append(qpde("replay", sample, *options).document)
    assert found[0]["results_sha256"] == found[1]["results_sha256"]
    assert found[0]["drift"]["observed"] == 0 < found[1]["drift"]["observed"]


def test_a_model_without_calibration_is_watched_as_far_as_it_can_be(qpde, sample, altered):
    bare = altered(**{CALIBRATION: None})
    assert load_bundle(bare).manifest.name == "traffic_signs"
    call = qpde("drift", sample, "--model", bare, "--duration", 1, "--json")
    assert call.code == 0
    assert "no calibration" in call.document["unwatched"][0]
    assert call.document["noise_ratio"] is None
    call = qpde("drift", sample, "--model", bare, "--duration", 1)
    assert "not watched" in call.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--share", "2"), "share"),
        (("--alpha", "0"), "alpha"),
        (("--camera", "/nowhere"), "/nowhere"),
        (("--engine", "abacus"), "abacus"),
    ],
)
def test_bad_input_is_told_in_one_line(qpde, sample, arguments, said):
    call = qpde("drift", sample, *arguments)
    assert (call.code, call.out) == (2, "")
    assert said in call.err
    assert len(call.err.splitlines()) == 1


def diagnostics_of(path):
    from rosbags.highlevel import AnyReader
    from rosbags.typesys import Stores, get_typestore

    with AnyReader([path], default_typestore=get_typestore(Stores.EMPTY)) as reader:
        links = [link for link in reader.connections if link.topic == "/diagnostics"]
        return [
            status
            for link, _, raw in reader.messages(links)
            for status in reader.deserialize(raw, link.msgtype).status
        ]
