"""The message packages that are built for the wheels of ROS 2."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from qpde_perception.bags.definitions import MESSAGE_TEXTS, typestore
from qpde_perception.cli.nodes import own_domain
from ros2_nodes.interfaces import state
from ros2_nodes.interfaces.__main__ import main
from ros2_nodes.interfaces.building import (
    DISTRIBUTIONS,
    Distribution,
    build_packages,
    check_tools,
    installed_distribution,
)
from ros2_nodes.interfaces.errors import InterfacesError, ToolsMissingError
from ros2_nodes.interfaces.packages import PACKAGES

VISION, FOXGLOVE = PACKAGES
KILTED = Distribution("kilted", "9.1.2", "cmake==4.4.5\n")


def missing_reason():
    """Why `vision_msgs` cannot be had with rclpy, or an empty string."""
    if find_spec("rclpy") is None:
        return "rclpy is not installed"
    if find_spec("vision_msgs") is not None:
        return ""
    try:
        check_tools()
    except ToolsMissingError as error:
        return str(error)
    return ""


needs_ros = pytest.mark.skipif(bool(missing_reason()), reason=missing_reason())

SUBSCRIBER = """
import sys, rclpy
from rclpy.node import Node
from vision_msgs.msg import Classification, Detection2DArray, LabelInfo
from foxglove_msgs.msg import ImageAnnotations

rclpy.init()
node, got = Node("reader"), {}
for kind in (Classification, Detection2DArray, LabelInfo, ImageAnnotations):
    node.create_subscription(kind, kind.__name__, lambda m, k=kind: got.update({k.__name__: m}), 5)
print("ready", flush=True)
while len(got) < 4:
    rclpy.spin_once(node)
detection = got["Detection2DArray"].detections[0]
print(got["Classification"].header.frame_id, got["Classification"].results[0].class_id)
print(detection.id, detection.bbox.center.position.x, detection.results[0].hypothesis.score)
print([(c.class_id, c.class_name) for c in got["LabelInfo"].class_map], got["LabelInfo"].threshold)
print(got["ImageAnnotations"].texts[0].text, got["ImageAnnotations"].points[0].type)
"""

PUBLISHER = """
import time, rclpy
from rclpy.node import Node
from foxglove_msgs.msg import ImageAnnotations, PointsAnnotation, TextAnnotation
from vision_msgs.msg import (Classification, Detection2D, Detection2DArray, LabelInfo,
    ObjectHypothesis, ObjectHypothesisWithPose, VisionClass)

rclpy.init()
node = Node("writer")
classification = Classification(results=[ObjectHypothesis(class_id="14", score=0.75)])
classification.header.frame_id = "camera"
detection = Detection2D(id="7", results=[ObjectHypothesisWithPose()])
detection.results[0].hypothesis.score = 0.5
detection.bbox.center.position.x = 12.5
messages = (
    classification,
    Detection2DArray(detections=[detection]),
    LabelInfo(class_map=[VisionClass(class_id=14, class_name="stop")], threshold=0.25),
    ImageAnnotations(
        points=[PointsAnnotation(type=PointsAnnotation.LINE_LOOP)],
        texts=[TextAnnotation(text="stop 75 %")],
    ),
)
publishers = [node.create_publisher(type(m), type(m).__name__, 5) for m in messages]
while not all(p.get_subscription_count() for p in publishers):
    time.sleep(0.05)
for publisher, message in zip(publishers, messages):
    publisher.publish(message)
    assert publisher.wait_for_all_acked(rclpy.duration.Duration(seconds=20))
"""


@needs_ros
def test_two_processes_exchange_the_built_messages():
    with own_domain() as domain:
        variables = {**os.environ, "ROS_DOMAIN_ID": str(domain)}
        reader = subprocess.Popen(
            [sys.executable, "-c", SUBSCRIBER], env=variables, stdout=subprocess.PIPE, text=True
        )
        try:
            assert reader.stdout.readline() == "ready\n"
            subprocess.run([sys.executable, "-c", PUBLISHER], env=variables, check=True, timeout=60)
            output, _ = reader.communicate(timeout=60)
        finally:
            reader.kill()
            reader.wait()
    assert output.splitlines() == [
        "camera 14",
        "7 12.5 0.5",
        "[(14, 'stop')] 0.25",
        "stop 75 % 2",
    ]


@needs_ros
@pytest.mark.parametrize("name", MESSAGE_TEXTS)
def test_a_built_message_is_the_message_of_a_recorded_drive(name):
    from rclpy.serialization import deserialize_message, serialize_message

    package, _, kind = name.split("/")
    module = importlib.import_module(f"{package}.msg")
    built, store = getattr(module, kind), typestore()
    read = store.deserialize_cdr(serialize_message(built()), name)
    assert deserialize_message(bytes(store.serialize_cdr(read, name)), built) == built()
    # Subscribers of another package compare this hash of all names and types.
    prefix = Path(module.__file__).parents[5]
    path = prefix / "share" / package / "msg" / f"{kind}.json"
    hashes = json.loads(path.read_text(encoding="utf-8"))["type_hashes"]
    assert store.hash_rihs01(name) in {h["hash_string"] for h in hashes if h["type_name"] == name}


@needs_ros
def test_the_program_finds_nothing_to_do_where_all_is_current(capsys):
    for package in PACKAGES:
        if not state.is_provided(package.name):
            fingerprint = package.fingerprint(installed_distribution().fingerprint())
            assert state.is_current(package.name, fingerprint), "run ros2_nodes.interfaces"
    assert main() == 0
    assert capsys.readouterr() == ("", "")


def test_a_sourced_installation_provides_its_packages(tmp_path, monkeypatch):
    name = "some_interfaces"
    monkeypatch.setenv("AMENT_PREFIX_PATH", os.pathsep.join(("", str(tmp_path))))
    assert not state.is_provided(name)
    marker = tmp_path / "share" / "ament_index" / "resource_index" / "packages" / name
    marker.parent.mkdir(parents=True)
    marker.touch()
    assert state.is_provided(name)
    # The environment's own package does not count as somebody else's.
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert not state.is_provided(name)


def test_a_module_that_was_not_built_here_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.delenv("AMENT_PREFIX_PATH", raising=False)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert state.is_provided("pytest")
    write_stamp("pytest", "of a build")
    assert not state.is_provided("pytest")


def write_stamp(name, text):
    state.stamp_of(name).parent.mkdir(parents=True)
    state.stamp_of(name).write_text(text, encoding="utf-8")


def test_a_build_is_current_until_a_definition_or_a_tool_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert not state.is_current(VISION.name, VISION.fingerprint(KILTED.fingerprint()))
    write_stamp(VISION.name, VISION.fingerprint(KILTED.fingerprint()))
    assert state.is_current(VISION.name, VISION.fingerprint(KILTED.fingerprint()))
    other = replace(KILTED, tools="cmake==4.4.4\n")
    assert not state.is_current(VISION.name, VISION.fingerprint(other.fingerprint()))
    monkeypatch.setitem(MESSAGE_TEXTS, "vision_msgs/msg/Point2D", "float32 x\nfloat32 y\n")
    assert not state.is_current(VISION.name, VISION.fingerprint(KILTED.fingerprint()))


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_sources_hold_every_message_and_name_every_package_they_use(package, tmp_path):
    package.write(tmp_path)
    messages = {path.stem: path.read_text() for path in (tmp_path / "msg").glob("*.msg")}
    names = [name for name in MESSAGE_TEXTS if name.startswith(f"{package.name}/")]
    assert {f"{package.name}/msg/{kind}" for kind in messages} == set(names)
    used = set(re.findall(r"^(\w+)/", "\n".join(messages.values()), re.MULTILINE))
    assert used - {package.name} == set(package.dependencies)
    manifest = ET.parse(tmp_path / "package.xml").getroot()
    assert manifest.findtext("name") == package.name
    assert {depend.text for depend in manifest.iter("depend")} == set(package.dependencies)


def test_without_a_compiler_the_program_says_what_to_install(tmp_path, monkeypatch, capsys):
    pytest.importorskip("rclpy", reason="the wheels of ROS 2 are not installed")
    monkeypatch.delenv("AMENT_PREFIX_PATH", raising=False)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    for package in PACKAGES:
        write_stamp(package.name, "something older")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main() == 2
    said = capsys.readouterr().err
    assert "vision_msgs and foxglove_msgs cannot be built here: no C compiler" in said
    assert "sudo apt install g++" in said


def test_a_failing_step_is_named_with_its_last_words():
    try:
        check_tools()
    except ToolsMissingError as error:
        pytest.skip(str(error))
    broken = replace(KILTED, tools="/nonexistent/tools.whl\n")
    with pytest.raises(InterfacesError, match=r"step 'pip' failed[^$]*nonexistent/tools.whl"):
        build_packages([FOXGLOVE], broken)


@pytest.mark.parametrize("name", DISTRIBUTIONS.values())
def test_every_build_tool_of_a_distribution_is_pinned(name):
    text = files("ros2_nodes.interfaces").joinpath(f"{name}.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert all(re.match(r"[a-z0-9-]+==[0-9.]+( ; .*)?$", line) for line in lines)
    assert {"cmake", "ninja", "empy"} <= {line.split("==")[0] for line in lines}


def test_the_wheels_that_are_pinned_are_ones_that_the_program_knows():
    lock = (Path(__file__).parents[2] / "requirements" / "test.txt").read_text(encoding="utf-8")
    major = re.search(r"^ros-rclpy==(\d+)", lock, re.MULTILINE)[1]
    assert major in DISTRIBUTIONS
