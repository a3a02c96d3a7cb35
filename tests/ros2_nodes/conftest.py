"""Real nodes in processes of their own, and a node here that listens to them."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from copy import deepcopy
from pathlib import Path

import pytest

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

    def call(self, kind, name, request):
        """Call a service, and return its response."""
        client = self._clients.get(name)
        if client is None:
            client = self._clients[name] = self.node.create_client(kind, name)
        assert client.wait_for_service(PATIENCE_S), f"no service {name}"
        future = client.call_async(request)
        self.wait_until(future.done, f"the answer of {name}")
        return future.result()


@pytest.fixture(scope="session", autouse=True)
def own_domain(tmp_path_factory):
    """Give this process a ROS domain of its own on this machine, and keep it while it runs."""
    profiles = tmp_path_factory.mktemp("fastdds") / "profiles.xml"
    profiles.write_text(PROFILES)
    for domain in range(1, 100):
        with Path(tempfile.gettempdir(), f"ros-domain-{domain}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("ROS_DOMAIN_ID", str(domain))
                patch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
                patch.setenv("FASTDDS_DEFAULT_PROFILES_FILE", str(profiles))
                patch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
                yield domain
            return
    pytest.fail("all ROS domains are taken by other tests")


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
def listener(own_domain):
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


class Rig:
    """A classifier node in a namespace of its own, with what it says and what it can be asked."""

    def __init__(self, listener, process, space, contract):
        from diagnostic_msgs.msg import DiagnosticArray

        self.listener, self.process, self.space = listener, process, space
        self._contract = contract
        self.name = f"{space}/classifier"
        self.said = listener.collect("/diagnostics", DiagnosticArray, 1000)

    def statuses(self, task):
        """All that was said of a task so far, oldest first."""
        return [
            status
            for _, array in list(self.said)
            for status in array.status
            if status.name == f"{self.name}: {task}"
        ]

    def values(self, task):
        """The values of a task as it was said last."""
        return {pair.key: pair.value for pair in self.statuses(task)[-1].values}

    def level(self, task):
        statuses = self.statuses(task)
        return ord(statuses[-1].level) if statuses else None

    def wait_level(self, task, level):
        self.listener.wait_until(
            lambda: self.level(task) == level,
            f"level {level} of {task}",
        )
        return self.statuses(task)[-1]

    def state(self):
        from lifecycle_msgs.srv import GetState

        answer = self.listener.call(GetState, f"{self.name}/get_state", GetState.Request())
        return answer.current_state.label

    def change(self, transition):
        """Ask for a transition by its name; whether it succeeded."""
        from lifecycle_msgs.msg import Transition
        from lifecycle_msgs.srv import ChangeState

        number = getattr(Transition, f"TRANSITION_{transition.upper()}")
        request = ChangeState.Request(transition=Transition(id=number))
        return self.listener.call(ChangeState, f"{self.name}/change_state", request).success

    def set(self, name, value):
        """Set a parameter; why it was refused, empty where it was not."""
        from rcl_interfaces.srv import SetParameters
        from rclpy.parameter import Parameter

        request = SetParameters.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg()]
        )
        answer = self.listener.call(SetParameters, f"{self.name}/set_parameters", request)
        (result,) = answer.results
        return "" if result.successful else result.reason

    def get(self, name):
        from rcl_interfaces.srv import GetParameters
        from rclpy.parameter import parameter_value_to_python

        request = GetParameters.Request(names=[name])
        answer = self.listener.call(GetParameters, f"{self.name}/get_parameters", request)
        return parameter_value_to_python(answer.values[0])

    def camera(self, name="", *, compressed=False, depth=5):
        return CameraRig(self, name, compressed=compressed, depth=depth)

    def accounts(self):
        """Counts of the frames, by what became of them, as the last diagnostics have them."""
        return {key: int(value) for key, value in self.values("frame_accounting").items()}

    def wait_accounts(self, **wanted):
        """Wait for counts, and for every frame to have ended; what was said before is too old."""
        seen = len(self.statuses("frame_accounting"))

        def there():
            if len(self.statuses("frame_accounting")) < seen + 2:
                return False
            accounts = self.accounts()
            return not accounts["waiting"] and all(
                accounts[name] == number for name, number in wanted.items()
            )

        try:
            self.listener.wait_until(there, f"{wanted}")
        except AssertionError:
            pytest.fail(f"waited for {wanted}, got {self.accounts()}\n{self.process.output}")
        return self.accounts()

    def finish(self):
        """Deactivate the node; the last diagnostics have accounted for every frame."""
        seen = len(self.statuses("frame_accounting"))
        assert self.change("deactivate")
        self.listener.wait_until(
            lambda: len(self.statuses("frame_accounting")) > seen, "the last diagnostics"
        )
        time.sleep(0.05)
        self.check_contract()
        accounts = self.accounts()
        ended = {key: number for key, number in accounts.items() if key != "received"}
        assert ended["waiting"] == 0, accounts
        assert accounts["received"] == sum(ended.values()), accounts
        for noise in ("Traceback", "never retrieved", "ERROR"):
            assert noise not in self.process.output, self.process.output
        return accounts

    def check_contract(self):
        """Hold all that was said against docs/diagnostics.md, both ways."""
        tasks = set()
        for _, array in list(self.said):
            for status in array.status:
                if not status.name.startswith(f"{self.name}: "):
                    continue
                task = status.name.removeprefix(f"{self.name}: ")
                assert status.hardware_id == self.name
                assert status.message
                self._contract.check(task, {pair.key: pair.value for pair in status.values})
                level = ("OK", "WARN", "ERROR", "STALE")[ord(status.level)]
                assert level in self._contract.levels(task.split()[0]), status
                tasks.add(task.split()[0])
        assert tasks == set(self._contract.tasks)

    def usage(self):
        """Memory in KiB, open files and threads of the node's process."""
        folder = Path("/proc", str(self.process.pid))
        status = (folder / "status").read_text()
        (rss,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
        return (
            int(rss),
            len(list((folder / "fd").iterdir())),
            len(list((folder / "task").iterdir())),
        )


class CameraRig:
    """One camera of a classifier node: sends images and boxes, and collects the results."""

    def __init__(self, rig, name, *, compressed, depth):
        from sensor_msgs.msg import CompressedImage, Image
        from vision_msgs.msg import Classification, Detection2DArray

        self.rig, self.compressed = rig, compressed
        self.prefix = f"{rig.name}/{name}/" if name else f"{rig.name}/"
        self.topic = f"{self.prefix}input/image" + ("/compressed" if compressed else "")
        kind = CompressedImage if compressed else Image
        node, collect = rig.listener.node, rig.listener.collect
        self.images = node.create_publisher(kind, self.topic, depth)
        self.regions = node.create_publisher(Detection2DArray, f"{self.prefix}input/regions", depth)
        self.classes = collect(f"{self.prefix}output/classification", Classification, 1000)
        self.detections = collect(f"{self.prefix}output/detections", Detection2DArray, 1000)

    @property
    def results(self):
        return [message for _, message in (*self.classes, *self.detections)]

    def send(self, image, boxes=None):
        if boxes is not None:
            self.regions.publish(boxes)
        self.images.publish(image)

    def answer(self, image, boxes=None):
        """Send an image, and return its result."""
        seen = len(self.results)
        self.send(image, boxes)

        def found():
            return [each for each in self.results[seen:] if each.header == image.header]

        self.rig.listener.wait_until(found, f"a result of {self.topic}")
        return found()[0]

    def greet(self, image, boxes=None, *, lead_ns=10**10):
        """Send images until one is answered.

        They are stamped earlier than the image by `lead_ns`, so that filters start anew after them.
        """
        seen = len(self.results)
        self._send_until(lambda: len(self.results) > seen, lead_ns, image, boxes)

    def meet(self, image, boxes=None, *, lead_ns=10**10):
        """Send images until one is answered; return the accounts when all have ended."""
        self.greet(image, boxes, lead_ns=lead_ns)
        return self.rig.wait_accounts()

    def meet_silent(self, image):
        """Send images until one arrives, which need not be answered."""
        said = self.rig.statuses
        self._send_until(
            lambda: said("frame_accounting") and self.rig.accounts()["received"], 0, image
        )

    def _send_until(self, condition, lead_ns, image, boxes=None):
        stamp = image.header.stamp
        stamp_ns = stamp.sec * 10**9 + stamp.nanosec - lead_ns
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end, f"{self.topic}: no answer\n{self.rig.process.output}"
            # A stamp of its own for each: boxes that were not heard leave their image waiting.
            stamp_ns += 10**6
            self.send(*(each and headed(deepcopy(each), stamp_ns) for each in (image, boxes)))
            time.sleep(0.05)


@pytest.fixture
def classifier(start_node, listener, diagnostics_contract):
    """Start classifier nodes, each in a namespace of its own; parameters, then `autostart`."""
    count = 0

    def start(*arguments, space=None, **parameters):
        nonlocal count
        count += 1
        space = space or f"/vehicle_{count}"
        given = {**SHORT, "diagnostic_updater.use_fqn": "true", **parameters}
        rules = [part for rule in (f"__ns:={space}", *arguments) for part in ("-r", rule)]
        process = start_node(NODE, *rules, **given)
        return Rig(listener, process, space, diagnostics_contract)

    return start


def raw_image(pixels, stamp_ns, frame_id="front", encoding="bgr8"):
    """An `Image` of pixels, uint8 (height, width, channels)."""
    import array

    from sensor_msgs.msg import Image

    message = Image(
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        step=pixels[0].nbytes,
        data=array.array("B", pixels.tobytes()),
    )
    return headed(message, stamp_ns, frame_id)


def jpeg_image(pixels, stamp_ns, frame_id="front"):
    """A `CompressedImage` of pixels, uint8 (height, width, 3) bgr."""
    import array

    import cv2
    from sensor_msgs.msg import CompressedImage

    data = array.array("B", cv2.imencode(".jpg", pixels)[1].tobytes())
    message = CompressedImage(format="bgr8; jpeg compressed bgr8", data=data)
    return headed(message, stamp_ns, frame_id)


def boxes_message(boxes, stamp_ns, frame_id="front"):
    """A `Detection2DArray` of boxes (x_min, y_min, x_max, y_max), with the ids 0, 1, ..."""
    from vision_msgs.msg import Detection2D, Detection2DArray

    found = []
    for index, (x_min, y_min, x_max, y_max) in enumerate(boxes):
        each = Detection2D(id=str(index))
        each.bbox.center.position.x = (x_min + x_max) / 2
        each.bbox.center.position.y = (y_min + y_max) / 2
        each.bbox.size_x, each.bbox.size_y = float(x_max - x_min), float(y_max - y_min)
        found.append(each)
    return headed(Detection2DArray(detections=found), stamp_ns, frame_id)


def headed(message, stamp_ns, frame_id=None):
    stamp = message.header.stamp
    stamp.sec, stamp.nanosec = divmod(stamp_ns, 10**9)
    if frame_id is not None:
        message.header.frame_id = frame_id
    return message


@pytest.fixture(scope="session")
def messages():
    """Make messages of a camera."""
    from types import SimpleNamespace

    return SimpleNamespace(raw=raw_image, jpeg=jpeg_image, boxes=boxes_message)
