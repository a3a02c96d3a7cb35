"""The classifier's drift watch: real nodes whose engines are, or become, other than validated."""

import dataclasses
import hashlib
import json
import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed (the extra `ros`)")
pytest.importorskip("vision_msgs.msg", reason="vision_msgs is not installed (the extra `ros`)")

from rosgraph_msgs.msg import Clock

from qpde_perception.bags import open_drive
from qpde_perception.bags.cameras import cameras_of
from qpde_perception.bags.replay import replay
from qpde_perception.bundles import CALIBRATION, CERTIFICATE, GOLDEN, calibration_of, golden_of
from qpde_perception.engines import REFERENCE, open_engine
from qpde_perception.engines.onnxruntime import OnnxRuntimeEngine
from qpde_perception.engines.registry import CPU_GRAPH, UNROUNDED_GRAPH
from qpde_perception.frames.statistics import input_statistics
from qpde_perception.monitoring import Accounting
from qpde_perception.monitoring.diagnosis import rank
from qpde_perception.perception import Classifier, NoFilter
from ros2_nodes.messages import Number

ROOT = Path(__file__).parents[2]
STAMP_NS = 1_600_000_000_000_000_000
TASK = "quantization_drift"
OK, WARN, ERROR = range(3)
ALL = {"threads": 1, "drift.share": 1.0, "input_timeout_ms": 60_000.0}
NUMBERS = ("noise_ratio", "disagreement", "saturation", "evidence")
# The node as it is, with an engine that changes when a file says so.
CHANGING = """
import os
from pathlib import Path

import numpy as np

from qpde_perception.engines.onnxruntime import OnnxRuntimeEngine
from ros2_nodes import classifier_node

plain = OnnxRuntimeEngine.infer
said = Path(os.environ["ENGINE_CHANGE"])


def read():
    try:
        return said.read_text()
    except FileNotFoundError:
        return None


def infer(self, batch):
    logits = plain(self, batch)
    change = read() if self.name == "onnxruntime" else None
    if change is not None:
        logits = logits * np.float32("nan") if change == "nan" else logits + np.float32(change)
    return logits


OnnxRuntimeEngine.infer = infer
classifier_node.main()
"""


@pytest.fixture
def bundle_with(shipped_bundle, tmp_path):
    """Copy the model that ships with other contents of files, or without some."""

    def make(name, engines=("onnxruntime",), **contents):
        folder = tmp_path / name
        shutil.copytree(shipped_bundle.path, folder)
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        manifest["engines"] = engines
        for file, content in contents.items():
            if content is None:
                (folder / file).unlink()
                del manifest["files"][file]
            else:
                (folder / file).write_bytes(content)
                manifest["files"][file] = hashlib.sha256(content).hexdigest()
        (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        return str(folder)

    return make


@pytest.fixture
def changing(classifier, tmp_path, monkeypatch):
    """Start nodes whose engine onnxruntime changes as soon as it is told how, or None for not."""
    (tmp_path / "changing_node.py").write_text(CHANGING)
    said, draft = tmp_path / "change", tmp_path / "draft"
    monkeypatch.setenv("ENGINE_CHANGE", str(said))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)

    def change(how):
        if how is None:
            said.unlink()
        else:
            draft.write_text(how)
            draft.replace(said)  # the node never reads half of it

    def start(**parameters):
        return classifier(module="changing_node", **{**ALL, **parameters}), change

    return start


@pytest.fixture
def pictures(shipped_bundle, messages):
    """Images that the model was validated on, one after another."""
    return in_turn(golden_of(shipped_bundle).pixels, messages)


@pytest.fixture
def ordinary_pictures(shipped_bundle, messages):
    """Images of the sample drive that are, on the whole, as those of the calibration."""
    seen = []
    engine = open_engine(shipped_bundle)
    with open_drive(ROOT / "samples" / "traffic_signs.mcap") as drive:
        (camera,) = cameras_of(drive.topics, (), regions=None)
        classifier = Classifier(
            shipped_bundle, engine, NoFilter(), lambda batch, _: seen.append(batch.copy())
        )
        assert list(replay(drive, {camera: classifier}, Accounting()))
    engine.close()
    pixels = np.concatenate(seen)
    statistics = calibration_of(shipped_bundle).inputs.statistics
    off = np.array(
        [
            [rank(value, each.quantiles) - 0.5 for value, each in zip(row, statistics, strict=True)]
            for row in input_statistics(pixels)
        ]
    )
    total, chosen = np.zeros(len(statistics)), []
    while len(chosen) < 40:
        left = [index for index in range(len(pixels)) if index not in chosen]
        chosen.append(min(left, key=lambda index: ((total + off[index]) ** 2).sum()))
        total += off[chosen[-1]]
    return in_turn(pixels[chosen], messages)


def in_turn(pixels, messages):
    return [
        messages.raw(each, STAMP_NS + number * 10**7, encoding="rgb8")
        for number, each in enumerate(pixels)
    ]


def show_until(camera, pictures, condition, what):
    """Send images one after another until a condition holds."""
    done = threading.Event()

    def send():
        while True:
            for each in pictures:
                camera.send(each)
                if done.wait(0.02):
                    return

    sender = threading.Thread(target=send)
    sender.start()
    try:
        camera.rig.listener.wait_until(condition, what, camera.rig.process)
    finally:
        done.set()
        sender.join()


def drift_of(rig):
    return rig.values(TASK) if rig.statuses(TASK) else {}


def observed(rig, count):
    return lambda: int(drift_of(rig).get("observed", 0)) >= count


def test_a_healthy_engine_is_watched_without_a_verdict_and_its_numbers_are_published(
    classifier, pictures
):
    rig = classifier(autostart="false", engine="onnxruntime", **ALL)
    camera = rig.camera()
    numbers = {
        name: rig.listener.collect(f"{rig.name}/debug/drift/{name}", Number, 100)
        for name in NUMBERS
    }
    assert rig.change("configure")
    assert rig.change("activate")
    # The golden frames are asked before any frame has come.
    rig.listener.wait_until(lambda: drift_of(rig).get("golden_checks") == "1", "golden frames")
    camera.meet(pictures[0])
    first = int(drift_of(rig)["observed"])
    show_until(camera, pictures, observed(rig, first + 15), "observations")
    rig.listener.wait_until(lambda: all(numbers.values()), "the numbers")
    status = rig.statuses(TASK)[-1]
    assert (ord(status.level), status.message) == (OK, "OK")
    values = drift_of(rig)
    assert (values["unwatched"], values["cause"]) == ("none", "none")
    assert (values["golden_identical"], values["golden_rms_over_noise"]) == ("True", "0.000")
    rig.listener.wait_until(
        lambda: (
            numbers["evidence"][-1][1].data
            == pytest.approx(float(drift_of(rig)["evidence"]), abs=1e-3)
        ),
        "the last evidence",
    )
    assert 0.0 < numbers["noise_ratio"][-1][1].data < 10.0
    accounts = rig.finish()
    assert accounts["published"] == accounts["received"]


def test_golden_frames_come_again_by_a_steady_clock_and_only_at_first_with_period_0(
    classifier, pictures, listener
):
    rig = classifier(
        **{**ALL, "drift.share": 0.0, "drift.golden_period_s": 0.3, "use_sim_time": "true"}
    )
    camera = rig.camera()
    clock = listener.node.create_publisher(Clock, "/clock", 10)
    stands = Clock()
    stands.clock.sec = 400
    clock.publish(stands)
    show_until(
        camera,
        pictures,
        lambda: int(drift_of(rig).get("golden_checks", 0)) >= 4,
        "golden frames again",
    )
    values = drift_of(rig)
    assert (values["observed"], values["noise_ratio"]) == ("0", "N/A")
    assert values["unwatched"] == "everything but golden frames: no frame is sampled"
    rig.finish()
    once = classifier(**{**ALL, "drift.golden_period_s": 0.0})
    camera = once.camera()
    show_until(camera, pictures, observed(once, 5), "observations")
    assert drift_of(once)["golden_checks"] == "1"


def test_an_engine_of_another_scale_is_named_by_its_noise_though_golden_frames_agree(
    classifier, ordinary_pictures, bundle_with, shipped_bundle
):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed (the extra `learning`)")
    model = onnx.load_from_string(shipped_bundle.read(CPU_GRAPH))
    (scale,) = (each for each in model.graph.initializer if each.name == "head.scale")
    wrong = onnx.numpy_helper.to_array(scale) * np.float32(4)
    scale.CopyFrom(onnx.numpy_helper.from_array(wrong, scale.name))
    graph = model.SerializeToString()
    golden = golden_of(shipped_bundle)
    logits = OnnxRuntimeEngine(graph, 1).infer(golden.pixels)
    remade = dataclasses.replace(golden, logits=logits).to_bytes()
    path = bundle_with("scaled", **{CPU_GRAPH: graph, GOLDEN: remade})
    rig = classifier(**ALL, model=path)
    camera = rig.camera()
    show_until(camera, ordinary_pictures, lambda: rig.level(TASK) == ERROR, "a verdict")
    named = next(each for each in rig.statuses(TASK) if ord(each.level) == ERROR)
    values = {pair.key: pair.value for pair in named.values}
    assert (values["cause"], values["rule"]) == ("engine changed", "noise")
    assert float(values["noise_ratio"]) > 5.0
    assert float(values["evidence"]) >= float(values["evidence_alarm"]) == 3.0
    # Suspicion has the golden frames asked at once, which agree: it is no change at run time.
    again = lambda: int(drift_of(rig)["golden_checks"]) >= 2  # noqa: E731
    show_until(camera, ordinary_pictures, again, "golden frames again")
    assert drift_of(rig)["golden_identical"] == "True"
    logged = "quantization drift, engine changed: The squared distance"
    show_until(camera, ordinary_pictures, lambda: logged in rig.process.output, "the log's line")
    assert rig.state() == "active"
    rig.finish()


def test_an_engine_that_changes_is_proved_by_golden_frames_and_by_default_only_told(
    changing, pictures
):
    rig, change = changing(**{"drift.golden_period_s": 0.5, "engine": "onnxruntime"})
    camera = rig.camera()
    show_until(camera, pictures, observed(rig, 3), "observations")
    assert rig.level(TASK) == OK
    change("0.001")  # far below what any score shows
    show_until(camera, pictures, lambda: rig.level(TASK) == ERROR, "a verdict")
    values = drift_of(rig)
    assert (values["cause"], values["rule"]) == ("engine changed", "exact")
    assert values["golden_identical"] == "False"
    assert "Golden frames are answered otherwise than at first." in rig.statuses(TASK)[-1].message
    assert (rig.state(), rig.values("engine")["engine"]) == ("active", "onnxruntime")
    rig.finish()


def test_the_float_reference_takes_the_place_of_a_changed_engine_where_it_is_asked_to(
    changing, pictures
):
    rig, change = changing(**{"drift.golden_period_s": 0.5, "drift.action": "reference"})
    camera = rig.camera()
    show_until(camera, pictures, observed(rig, 3), "observations")
    before = len(camera.results)
    change("5.0")

    def replaced():
        return rig.values("engine")["engine"] == REFERENCE

    show_until(camera, pictures, replaced, "the reference")
    status = rig.wait_level("engine", WARN)
    assert status.message.startswith(f"{REFERENCE} serves in place of onnxruntime. onnxruntime: ")
    assert "engine changed" in status.message
    assert rig.values("engine")["cache_reason"] == "it stands in for onnxruntime"
    rig.wait_level(TASK, OK)
    rig.listener.wait_until(lambda: REFERENCE in rig.process.output, "the log")
    camera.answer(pictures[0])
    assert len(camera.results) > before
    values = drift_of(rig)
    assert "the float reference serves" in values["unwatched"]
    accounts = rig.wait_accounts()
    assert accounts["dropped_engine_down"] == accounts["dropped_malformed"] == 0
    rig.finish()


def test_the_node_is_deactivated_where_it_is_asked_to_and_starts_anew_without_suspicion(
    changing, pictures
):
    rig, change = changing(**{"drift.golden_period_s": 0.5, "drift.action": "deactivate"})
    camera = rig.camera()
    show_until(camera, pictures, observed(rig, 3), "observations")
    change("5.0")
    show_until(camera, pictures, lambda: rig.state() == "inactive", "the deactivation")
    assert "drift.action is deactivate" in rig.process.output
    assert rig.level(TASK) == ERROR
    change(None)
    assert rig.change("activate")
    rig.wait_level(TASK, OK)
    show_until(camera, pictures, observed(rig, 3), "observations")
    assert rig.state() == "active"
    # The first answer is that of the engine's first activation: a change in between is seen.
    assert rig.change("deactivate")
    change("0.001")
    assert rig.change("activate")
    rig.listener.wait_until(lambda: rig.state() == "inactive", "the second deactivation")
    assert drift_of(rig)["rule"] == "exact"


def test_logits_that_are_not_finite_are_an_engine_fault_and_the_next_engine_takes_over(
    changing, pictures, bundle_with
):
    path = bundle_with("two", engines=("onnxruntime", "openvino"))
    rig, change = changing(model=path)
    camera = rig.camera()
    show_until(camera, pictures, observed(rig, 3), "observations")
    change("nan")
    show_until(
        camera, pictures, lambda: rig.values("engine")["engine"] == "openvino", "the next engine"
    )
    status = rig.wait_level(TASK, WARN)
    assert (
        status.message == "engine changed: engine onnxruntime: logits that are not finite; use "
        "another engine; it serves no more."
    )
    show_until(
        camera,
        pictures,
        lambda: drift_of(rig)["golden_identical"] == "True" and observed(rig, 3)(),
        "golden frames and observations of the next engine",
    )
    assert drift_of(rig)["cause"] == "none"
    rig.finish()


def test_an_only_engine_without_finite_logits_is_named_as_changed(changing, pictures):
    rig, change = changing(engine="onnxruntime")
    camera = rig.camera()
    show_until(camera, pictures, observed(rig, 3), "observations")
    change("nan")
    show_until(camera, pictures, lambda: rig.level(TASK) == ERROR, "a verdict")
    values = drift_of(rig)
    assert (values["cause"], values["rule"]) == ("engine changed", "exact")
    assert "not finite" in rig.statuses(TASK)[-1].message
    assert rig.level("engine") == ERROR


@pytest.mark.parametrize("missing", [UNROUNDED_GRAPH, "both"])
def test_a_model_without_what_drift_is_held_against_is_served_and_told(
    classifier, pictures, bundle_with, missing
):
    files = (CALIBRATION, CERTIFICATE) if missing == "both" else (missing,)
    rig = classifier(**ALL, model=bundle_with("bare", **dict.fromkeys(files)))
    camera = rig.camera()
    camera.meet(pictures[0])
    rig.wait_level(TASK, OK if missing == "both" else WARN)
    time.sleep(0.3)
    values = drift_of(rig)
    if missing == "both":
        assert "has no calibration" in values["unwatched"]
        assert "has no certificate" in values["unwatched"]
        assert int(values["observed"]) > 0
        assert values["noise_ratio"] == "N/A"
    else:
        assert values["cause"] == "reference unavailable"
        assert UNROUNDED_GRAPH in values["unwatched"]
        assert values["observed"] == "0"
    assert values["golden_checks"] == "1"
    rig.finish()


def test_a_calibration_that_is_damaged_is_refused_at_configure_by_its_name(classifier, bundle_with):
    rig = classifier(autostart="false", **ALL, model=bundle_with("bad", **{CALIBRATION: b"{}"}))
    assert not rig.change("configure")
    assert CALIBRATION in rig.wait_level("engine", ERROR).message
    assert rig.state() == "unconfigured"
