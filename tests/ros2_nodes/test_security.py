"""What each node may do, and what it does: the policy and the page, held against running nodes."""

from __future__ import annotations

import ast
import os
import re
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed (the extra `ros`)")
pytest.importorskip("vision_msgs.msg", reason="vision_msgs is not installed (the extra `ros`)")

from rclpy.node import NodeNameNonExistentError  # noqa: E402
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy  # noqa: E402
from vision_msgs.msg import Classification  # noqa: E402

from ros2_nodes.declarations import markdown_table  # noqa: E402
from ros2_nodes.message_types import InterfaceError, message_class  # noqa: E402
from ros2_nodes.reference import DECLARATIONS  # noqa: E402

ROOT = Path(__file__).parents[2]
POLICY = ROOT / "security" / "policy.xml"
PAGE = ROOT / "docs" / "nodes.md"
SAMPLE = ROOT / "samples" / "traffic_signs.mcap"
# What a policy of this version can hold: the rules of each list, and the name of its items.
RULES = {
    "topics": ({"publish", "subscribe"}, "topic"),
    "services": ({"reply", "request"}, "service"),
    "actions": ({"call", "execute"}, "action"),
}
NAME = re.compile(r"(~/|/)?[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*")
# Each node in all the ways that change what it says and hears.
NODES = {
    "classifier": (
        ("ros2_nodes.classifier_node", {}),
        (
            "ros2_nodes.classifier_node",
            {"image_transport": "compressed", "regions": "topic", "use_sim_time": "true"},
        ),
    ),
    "bag_player": (
        (
            "ros2_nodes.bag_player_node",
            {"drive": SAMPLE, "start_paused": "true", "publish_clock": "true"},
        ),
    ),
    "camera_sim": (
        ("ros2_nodes.camera_sim", {}),
        ("ros2_nodes.camera_sim", {"transport": "compressed", "use_sim_time": "true"}),
    ),
    "dashboard": (
        ("ros2_nodes.dashboard", {"classifier": "/way_0/classifier"}),
        ("ros2_nodes.dashboard", {"classifier": "/way_1/classifier"}),
    ),
    "latency_monitor": (
        ("ros2_nodes.latency_monitor", {"topic": "/way_0/classifier/output/classification"}),
        (
            "ros2_nodes.latency_monitor",
            {"topic": "/way_1/classifier/output/detections", "kind": "detections"},
        ),
    ),
}
GRAPH = {
    "publish": "get_publisher_names_and_types_by_node",
    "subscribe": "get_subscriber_names_and_types_by_node",
    "reply": "get_service_names_and_types_by_node",
    "request": "get_client_names_and_types_by_node",
}
PATIENCE_S, QUIET_S = 40.0, 1.5


def policy_of(node):
    """What the policy allows a node, as (rule, name)."""
    (profile,) = (each for each in ET.parse(POLICY).iter("profile") if each.get("node") == node)
    return {(rule, item.text) for group in profile for rule in group.attrib for item in group}


def table(page, section, title):
    """The rows of a table of the page: cells by what stands in the first one."""
    text = page.split(f"\n## {section}\n")[1].split("\n## ")[0]
    text = text.split(f"\n### {title}\n")[1].split("\n### ")[0]
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    found = {row[0].strip(" `"): row[1:] for row in cells}
    assert len(found) == len(cells), f"{section}: a name stands twice under {title}"
    return found


def page_of(node):
    """What the page says of a node: types and quality of service by (rule, name)."""
    page = PAGE.read_text(encoding="utf-8")
    said = {}
    for section in (f"The node `{node}`", "Every node"):
        for name, (way, kinds, quality, _) in table(page, section, "Topics").items():
            rule = {"in": "subscribe", "out": "publish"}[way]
            said[rule, name] = (re.findall(r"`(.+?)`", kinds), quality.rpartition(", ")[0])
        for name, (kind, _) in table(page, section, "Services").items():
            said["reply", name] = ([kind.strip("`")], "")
    return said


def quality_of(profile):
    latched = profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
    reliable = profile.reliability == ReliabilityPolicy.RELIABLE
    return ("reliable" if reliable else "best effort") + (", latched" if latched else "")


def usage_of(asking, node, space):
    """What a running node uses: type and quality of service by (rule, name).

    Names are as in the policy: of the node ~/..., of its namespace without a slash.
    """
    endpoints = {
        "publish": asking.get_publishers_info_by_topic,
        "subscribe": asking.get_subscriptions_info_by_topic,
    }
    found = {}
    for rule, ask in GRAPH.items():
        for full, (kind,) in getattr(asking, ask)(node, space):
            infos = endpoints[rule](full) if rule in endpoints else ()
            mine = [
                each for each in infos if (each.node_name, each.node_namespace) == (node, space)
            ]
            name = full.replace(f"{space}/{node}/", "~/").removeprefix(f"{space}/")
            found[rule, name] = (kind, *{quality_of(each.qos_profile) for each in mine})
    return found


def settled(look, enough):
    """What there is to see once it is enough and has not changed for a while, or too late."""
    end, since, last = time.monotonic() + PATIENCE_S, time.monotonic(), None
    while not (last and enough(last) and time.monotonic() - since > QUIET_S):
        if time.monotonic() > end:
            return last  # too little, which the caller says better
        time.sleep(0.1)
        now = look()
        if now != last:
            last, since = now, time.monotonic()
    return last


def test_policy_and_page_name_exactly_what_the_nodes_use(start_node, listener):
    for ways in NODES.values():
        for way, (module, parameters) in enumerate(ways):
            start_node(module, "-r", f"__ns:=/way_{way}", **parameters)

    def look():
        found = {node: {} for node in NODES}
        for node, ways in NODES.items():
            for way in range(len(ways)):
                with suppress(NodeNameNonExistentError):  # it has yet to start
                    found[node] |= usage_of(listener.node, node, f"/way_{way}")
        return found

    promised = {node: policy_of(node) for node in NODES}

    def enough(found):
        return all(len(found[node]) >= len(promised[node]) for node in NODES)

    for node, usage in settled(look, enough).items():
        assert set(usage) == promised[node]
        page = page_of(node)
        assert set(usage) == set(page)
        for key, (kind, *qualities) in usage.items():
            kinds, quality = page[key]
            assert kind in kinds, key
            assert qualities == [quality] * (key[0] in {"publish", "subscribe"}), key


def test_the_policy_has_the_form_that_ros2_security_takes():
    policy = ET.parse(POLICY).getroot()
    assert (policy.tag, policy.attrib) == ("policy", {"version": "0.2.0"})
    (enclaves,) = policy
    paths = [enclave.get("path") for enclave in enclaves]
    assert paths == [f"/qpde_perception/{node}" for node in NODES]
    for enclave in enclaves:
        ((profile,),) = enclave
        assert [each.tag for each in (enclaves, enclave, enclave[0], profile)] == [
            "enclaves",
            "enclave",
            "profiles",
            "profile",
        ]
        assert profile.attrib == {"ns": "/", "node": enclave.get("path").rpartition("/")[2]}
        for group in profile:
            rules, item = RULES[group.tag]
            assert group.attrib, ET.tostring(group)
            assert set(group.attrib) <= rules
            assert set(group.attrib.values()) == {"ALLOW"}
            assert {each.tag for each in group} == {item}
            names = [each.text for each in group]
            assert all(NAME.fullmatch(name) for name in names), names  # no wildcards
            assert len(set(names)) == len(names)


def test_ros2_security_takes_the_policy():
    sros2 = pytest.importorskip("sros2.policy", reason="sros2 comes with a ROS 2 distribution only")
    assert sros2.load_policy(POLICY).getroot().tag == "policy"


@pytest.mark.parametrize("node", DECLARATIONS)
def test_the_page_holds_the_parameters_as_they_are_declared(node):
    page = PAGE.read_text(encoding="utf-8")
    text = page.split(f"\n## The node `{node}`\n")[1].split("\n## ")[0]
    section = text.split("\n### Parameters\n")[1]
    shown = "\n".join(line for line in section.splitlines() if line.startswith("|"))
    assert shown == markdown_table(DECLARATIONS[node]), (
        f"put what `python -m ros2_nodes.reference` prints for {node} into docs/nodes.md"
    )


def sockets_of(pid):
    """How many sockets of each protocol a process has open."""
    held = set()
    for link in Path("/proc", str(pid), "fd").iterdir():
        with suppress(OSError):
            held |= set(re.findall(r"socket:\[(\d+)\]", str(link.readlink())))
    count = Counter()
    for protocol in Path("/proc", str(pid), "net").iterdir():
        with suppress(OSError, UnicodeDecodeError):
            words = set(protocol.read_text().split())
            count[protocol.name] = len(held & words)
            held -= words
    return {**+count, "others": len(held)}


@pytest.mark.skipif(not Path("/proc/self/net").is_dir(), reason="this system has no /proc/PID/net")
def test_a_classifier_at_work_has_no_sockets_but_those_of_any_ros_node(
    start_node, listener, tmp_path, monkeypatch
):
    (tmp_path / "bare.py").write_text(
        "import rclpy\nrclpy.init()\nrclpy.spin(rclpy.create_node('bare'))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    bare = start_node("bare")
    classifier = start_node("ros2_nodes.classifier_node")
    start_node("ros2_nodes.camera_sim", "-r", "camera_0/image_raw:=/classifier/input/image")
    results = listener.collect("/classifier/output/classification", Classification, 10)
    seen = set()

    def at_work():
        if classifier.running:
            seen.update(sockets_of(classifier.pid))
        return len(results) > 5

    listener.wait_until(at_work, "results")
    plain = sockets_of(bare.pid)
    assert plain.get("udp"), plain
    assert sockets_of(classifier.pid) == plain
    assert seen <= set(plain), "sockets that were open on the way"


def sources(*modules):
    """The files of this project that modules import, and what those import, and so on."""
    found, waiting = {}, list(modules)
    while waiting:
        name = waiting.pop()
        path = ROOT / Path(*name.split("."))
        path = (
            path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"
        )
        if path in found or not path.is_file():
            continue
        found[path] = tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                waiting += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Constant) and str(node.value).startswith("qpde_perception."):
                waiting.append(node.value)  # engines are named in a table
    return found


FORBIDDEN = {
    *("eval", "exec", "compile", "__import__", "breakpoint", "system", "popen", "startfile"),
    *("execv", "execve", "execvp", "spawnv", "posix_spawn", "import_module", "exec_module"),
    *("load_module", "unsafe_load", "full_load", "literal_eval"),
}
MODULES = {
    *("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"),
    *("runpy", "code", "codeop", "subprocess", "pty", "yaml", "socket", "ssl"),
    *("http", "urllib", "requests", "ftplib", "smtplib", "xmlrpc", "socketserver", "asyncio"),
}
# Where a module is imported by a name: from a table of the source, or after a check of its own.
BY_NAME = {
    *(f"qpde_perception/engines/{each}.py" for each in ("cuda", "registry", "torch_tensorrt")),
    *(f"qpde_perception/engines/tensorrt_{each}.py" for each in ("library", "rtx")),
    "ros2_nodes/message_types.py",
}


def test_no_node_runs_code_of_a_bundle_a_drive_or_a_parameter_or_opens_a_connection():
    road = sources(*(module for ways in NODES.values() for module, _ in ways))
    assert len(road) > 60
    for path, tree in road.items():
        for node in ast.walk(tree):
            where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import):
                used = {alias.name.split(".")[0] for alias in node.names}
                assert not used & MODULES, where
            elif isinstance(node, ast.ImportFrom):
                assert node.module.split(".")[0] not in MODULES, where
            elif isinstance(node, ast.Call):
                called = getattr(node.func, "id", getattr(node.func, "attr", ""))
                method = isinstance(node.func, ast.Attribute)
                pattern = method and getattr(node.func.value, "id", "") == "re"
                named = called == "import_module" and str(path.relative_to(ROOT)) in BY_NAME
                assert called not in FORBIDDEN or pattern or named, where
                pickled = [word for word in node.keywords if word.arg == "allow_pickle"]
                assert all(getattr(word.value, "value", True) is False for word in pickled), where


def test_a_recording_cannot_name_a_module_that_is_no_package_of_messages(tmp_path, monkeypatch):
    trap = tmp_path / "trap_msgs"
    trap.mkdir()
    (trap / "__init__.py").write_text("raise SystemExit")
    (trap / "msg.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(str(tmp_path))
    for kind in ("trap_msgs/msg/Trap", "os/msg/System", "sensor_msgs/msg/../Image"):
        with pytest.raises(InterfaceError):
            message_class(kind)
    assert "trap_msgs" not in sys.modules
