"""Notes when each answer of a classifier was published: one line for each on standard output.

    python -m ros2_nodes.latency_monitor --ros-args -p topic:=/classifier/output/classification

A line holds two numbers, nanoseconds: the stamp of the answer's header, which is that of its image,
and when the middleware took the answer from the classifier. `ready` stands alone on a line once a
classifier offers the topic. Nothing is deserialized: a monitor must not take the processor from
what it monitors.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile
from vision_msgs.msg import Classification, Detection2DArray

from qpde_perception.bags import stamp_in
from ros2_nodes.declarations import Declaration, declare
from ros2_nodes.process import run, spinning

NAME = "latency_monitor"
DECLARATIONS = (
    Declaration("topic", "/classifier/output/classification", "The answers."),
    Declaration(
        "kind",
        "classification",
        "What they are: one class for a frame, or one for each region.",
        choices=("classification", "detections"),
    ),
)
_KINDS: dict[str, Any] = {"classification": Classification, "detections": Detection2DArray}
_LOOK_AGAIN_S = 0.05
# What the monitor has not taken yet must wait, not be overwritten.
_ANSWERS = QoSProfile(depth=1000)


class LatencyMonitor(Node):
    """Listens to the answers of one classifier."""

    def __init__(self) -> None:
        super().__init__(NAME)
        values = declare(self, DECLARATIONS)
        self._topic: str = values["topic"]
        self.create_subscription(
            _KINDS[values["kind"]], self._topic, self._on_answer, _ANSWERS, raw=True
        )

    def wait_for_classifier(self) -> None:
        """Return once a classifier offers the answers, or ROS is shut down."""
        parent = os.getppid()
        # Started by a process that has ended, there is nobody left to tell.
        while rclpy.ok() and os.getppid() == parent and not self.count_publishers(self._topic):
            time.sleep(_LOOK_AGAIN_S)

    def _on_answer(self, answer: bytes, info: Any) -> None:
        _tell(f"{stamp_in(answer)} {info['source_timestamp']}")


def _tell(line: str) -> None:
    # In one write: nobody reads half a line.
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _monitor() -> None:
    node = LatencyMonitor()
    with spinning(node):
        node.wait_for_classifier()
        _tell("ready")
        sys.stdin.read()  # who started it has ended, or has enough


def main() -> int:
    """Monitor until the standard input ends, and return the exit code of the process."""
    return run(NAME, _monitor)


if __name__ == "__main__":
    sys.exit(main())
