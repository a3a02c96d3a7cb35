"""Real nodes in processes of their own, and a node here that listens to them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from qpde_perception.cli.nodes import own_domain

ROOT = Path(__file__).parents[2]
# Generous, for machines that have much else to do; nothing waits longer than it must.
PATIENCE_S = 30.0
# Publishers ask every 50 ms, not every 3 s, whether all was received: what is lost while two nodes
# find each other comes at once, and a player knows at once that it is done.
PROFILES = """\
<?xml version="1.0" encoding="UTF-8" ?>
<dds xmlns="http://www.eprosima.com"><profiles>
  <data_writer profile_name="quick" is_default_profile="true">
    <times><heartbeat_period><sec>0</sec><nanosec>50000000</nanosec></heartbeat_period></times>
  </data_writer>
</profiles></dds>
"""


class NodeProcess:
    """A node in a process of its own; what it writes is in `output`."""

    def __init__(self, module, arguments, log):
        self._log = log
        with log.open("wb") as stream:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, "--ros-args", *arguments],
                cwd=ROOT,
                stdin=subprocess.PIPE,  # open as long as it runs: the monitor ends with its input
                stdout=stream,
                stderr=subprocess.STDOUT,
            )

    @property
    def output(self):
        return self._log.read_text(encoding="utf-8")

    @property
    def pid(self):
        return self._process.pid

    @property
    def running(self):
        return self._process.poll() is None

    def wait(self, timeout_s=PATIENCE_S):
        """Wait for its end, and return the exit code."""
        return self._process.wait(timeout_s)

    def interrupt(self, number=signal.SIGINT):
        """Ask it to end, and return the exit code."""
        self._process.send_signal(number)
        return self.wait()

    def kill(self):
        self._process.stdin.close()
        if self.running:
            self._process.kill()
            self._process.wait()


class Listener:
    """A node of the test: collects messages and calls services."""

    def __init__(self, node):
        self.node, self._clients = node, {}

    def collect(self, topic, kind, qos, *, raw=False):
        """Subscribe, and return a list to which (time of sending in ns, message) is appended."""
        got = []

        def append(message, info):
            got.append((info["source_timestamp"], message))

        self.node.create_subscription(kind, topic, append, qos, raw=raw)
        return got

    @staticmethod
    def wait_until(condition, what, node=None):
        """Wait until a condition holds; fails with what was waited for, or when the node ends."""
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert node is None or node.running, node.output
            assert time.monotonic() < end, f"waited {PATIENCE_S} s in vain for {what}"
            time.sleep(0.005)

    def call(self, kind, name, request, *, repeatable=False):
        """Call a service, and return its response.

        A server that has not met this client's reader yet loses its first response; a request that
        may be carried out twice is made again.
        """
        client = self._clients.get(name)
        if client is None:
            client = self._clients[name] = self.node.create_client(kind, name)
        assert client.wait_for_service(PATIENCE_S), f"no service {name}"
        futures = [client.call_async(request)]
        again = time.monotonic() + PATIENCE_S / 6

        def answered():
            if repeatable and len(futures) == 1 and time.monotonic() > again:
                futures.append(client.call_async(request))
            return any(future.done() for future in futures)

        self.wait_until(answered, f"the answer of {name}")
        return next(future.result() for future in futures if future.done())


@pytest.fixture(scope="session", autouse=True)
def domain(tmp_path_factory):
    """Give this process a ROS domain of its own on this machine, and keep it while it runs."""
    profiles = tmp_path_factory.mktemp("fastdds") / "profiles.xml"
    profiles.write_text(PROFILES)
    with own_domain() as domain, pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_DOMAIN_ID", str(domain))
        patch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        patch.setenv("FASTDDS_DEFAULT_PROFILES_FILE", str(profiles))
        patch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
        yield domain


@pytest.fixture(scope="session")
def log_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ros-logs")


@pytest.fixture
def start_node(tmp_path, log_folder, monkeypatch):
    """Start nodes: a module, its parameters, and what else belongs after `--ros-args`.

    The values of parameters are written as YAML writes them: `"[/a, /b]"`, `2.0`, `"true"`.
    """
    monkeypatch.setenv("ROS_LOG_DIR", str(log_folder))
    started = []

    def start(module, *arguments, **parameters):
        given = [part for name, value in parameters.items() for part in ("-p", f"{name}:={value}")]
        log = tmp_path / f"node-{len(started)}.log"
        started.append(NodeProcess(module, [*given, *arguments], log))
        return started[-1]

    yield start
    for process in started:
        process.kill()


@pytest.fixture
def listener(domain):
    """A node of the test's own process that runs in a thread."""
    rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed (the extra `ros`)")
    from rclpy.context import Context
    from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
    from rclpy.node import Node

    context = Context()
    rclpy.init(context=context)
    node = Node("listener", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)

    def spin():
        with suppress(ExternalShutdownException):
            executor.spin()

    thread = threading.Thread(target=spin)
    thread.start()
    yield Listener(node)
    executor.shutdown()
    thread.join()
    node.destroy_node()
    context.try_shutdown()


NODE = "ros2_nodes.classifier_node"
SHORT = {
    "diagnostic_updater.period": 0.1,
    "diagnostics.validation_callback_interval_ms": 20.0,
}


@pytest.fixture
def classifier(start_node, listener, diagnostics_contract):
    """Start classifier nodes, each in a namespace of its own; parameters, then `autostart`."""
    from classifier_rig import Rig

    count = 0

    def start(*arguments, space=None, module=NODE, **parameters):
        nonlocal count
        count += 1
        space = space or f"/vehicle_{count}"
        given = {**SHORT, "diagnostic_updater.use_fqn": "true", **parameters}
        rules = [part for rule in (f"__ns:={space}", *arguments) for part in ("-r", rule)]
        process = start_node(module, *rules, **given)
        return Rig(listener, process, space, diagnostics_contract)

    return start


@pytest.fixture(scope="session")
def messages():
    """Make messages of a camera."""
    from types import SimpleNamespace

    import classifier_rig

    return SimpleNamespace(
        raw=classifier_rig.raw_image,
        jpeg=classifier_rig.jpeg_image,
        boxes=classifier_rig.boxes_message,
    )
