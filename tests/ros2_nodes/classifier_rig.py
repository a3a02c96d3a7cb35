"""A classifier node under test: what it is asked and sent, and what it says."""

from __future__ import annotations

import array
import time
from copy import deepcopy
from pathlib import Path

import cv2
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.parameter import Parameter, parameter_value_to_python
from sensor_msgs.msg import CompressedImage, Image
from vision_msgs.msg import Classification, Detection2D, Detection2DArray


class Rig:
    """A classifier node in a namespace of its own, with what it says and what it can be asked."""

    def __init__(self, listener, process, space, contract):
        self.listener, self.process, self.space = listener, process, space
        self._contract = contract
        self.name = f"{space}/classifier"
        self.said = listener.collect("/diagnostics", DiagnosticArray, 1000)

    def statuses(self, task):
        """All that was said of a task so far, oldest first."""
        return [
            status
            for _, said in list(self.said)
            for status in said.status
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
        service = f"{self.name}/get_state"
        answer = self.listener.call(GetState, service, GetState.Request(), repeatable=True)
        return answer.current_state.label

    def change(self, transition):
        """Ask for a transition by its name; whether it succeeded."""
        number = getattr(Transition, f"TRANSITION_{transition.upper()}")
        request = ChangeState.Request(transition=Transition(id=number))
        return self.listener.call(ChangeState, f"{self.name}/change_state", request).success

    def set(self, name, value):
        """Set a parameter; why it was refused, empty where it was not."""
        request = SetParameters.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg()]
        )
        service = f"{self.name}/set_parameters"
        answer = self.listener.call(SetParameters, service, request, repeatable=True)
        (result,) = answer.results
        return "" if result.successful else result.reason

    def get(self, name):
        request = GetParameters.Request(names=[name])
        service = f"{self.name}/get_parameters"
        answer = self.listener.call(GetParameters, service, request, repeatable=True)
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
        for _, said in list(self.said):
            for status in said.status:
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

        def answered():
            nonlocal stamp_ns
            if condition():
                return True
            # A stamp of its own for each: boxes that were not heard leave their image waiting.
            stamp_ns += 10**6
            self.send(*(each and headed(deepcopy(each), stamp_ns) for each in (image, boxes)))
            time.sleep(0.05)
            return False

        self.rig.listener.wait_until(answered, f"an answer to {self.topic}")


def raw_image(pixels, stamp_ns, frame_id="front", encoding="bgr8"):
    """An `Image` of pixels, uint8 (height, width, channels)."""
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
    data = array.array("B", cv2.imencode(".jpg", pixels)[1].tobytes())
    message = CompressedImage(format="bgr8; jpeg compressed bgr8", data=data)
    return headed(message, stamp_ns, frame_id)


def boxes_message(boxes, stamp_ns, frame_id="front"):
    """A `Detection2DArray` of boxes (x_min, y_min, x_max, y_max), with the ids 0, 1, ..."""
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
