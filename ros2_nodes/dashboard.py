"""A dashboard on the terminal: what the classifier says and how it fares, live.

python -m ros2_nodes.dashboard --ros-args -p classifier:=/classifier
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from vision_msgs.msg import Classification, Detection2DArray, LabelInfo

from ros2_nodes.declarations import Declaration, declare
from ros2_nodes.process import run, spinning

if TYPE_CHECKING:
    from rich.console import RenderableType

NAME = "dashboard"
DECLARATIONS = (
    Declaration("classifier", "/classifier", "Full name of the classifier node."),
    Declaration("refresh_hz", 4.0, "Redraws a second.", minimum=0.1, maximum=30.0),
)
_LEVELS = ("OK", "WARN", "ERROR", "STALE")
_STYLES = ("green", "yellow", "red", "magenta")
# What a person watches; the rest is on /diagnostics.
_SHOWN = (
    "processing_time_ms",
    "inference_time_ms",
    "frame_rate_node",
    "current_delay_from_realtime_ms",
    "received",
    "published",
    "dropped",
    "engine",
)
_ROWS = 8


class Dashboard(Node):
    """Listens to one classifier."""

    def __init__(self) -> None:
        super().__init__(NAME)
        values = declare(self, DECLARATIONS)
        self.refresh_hz: float = values["refresh_hz"]
        classifier = values["classifier"]
        self._prefix = f"{classifier.rpartition('/')[2]}: "
        self._labels: dict[str, str] = {}
        self._tasks: dict[str, Any] = {}
        self._seen: list[tuple[str, str, float]] = []
        self._topics: dict[str, Any] = {}
        self._root = classifier
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.create_subscription(LabelInfo, f"{classifier}/label_info", self._on_labels, latched)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def discover(self) -> None:
        """Subscribe to the results of cameras that have appeared."""
        kinds = {
            "vision_msgs/msg/Classification": (Classification, self._on_classification),
            "vision_msgs/msg/Detection2DArray": (Detection2DArray, self._on_detections),
        }
        for topic, types in self.get_topic_names_and_types():
            ends = topic.endswith(("/output/classification", "/output/detections"))
            if topic in self._topics or not ends or not topic.startswith(f"{self._root}/"):
                continue
            kind, callback = kinds[types[0]]
            self._topics[topic] = self.create_subscription(kind, topic, callback, 1)

    def view(self) -> RenderableType:
        """Return what is shown."""
        health = Table("task", "level", "message", "figures", title="health", expand=True)
        for name, status in sorted(self._tasks.items()):
            level = min(int.from_bytes(status.level, "little"), len(_LEVELS) - 1)
            values = {each.key: each.value for each in status.values}
            figures = "  ".join(f"{key} {values[key]}" for key in _SHOWN if key in values)
            state = f"[{_STYLES[level]}]{_LEVELS[level]}[/]"
            health.add_row(name.removeprefix(self._prefix), state, status.message, figures)
        classes = Table("camera frame", "class", "score", title="seen last", expand=True)
        for frame_id, label, score in self._seen[-_ROWS:]:
            classes.add_row(frame_id, label, f"{score:.0%}")
        return Group(classes, health)

    def _on_labels(self, message: Any) -> None:
        self._labels = {str(each.class_id): each.class_name for each in message.class_map}

    def _on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            if status.name.startswith(self._prefix):
                self._tasks[status.name] = status

    def _on_classification(self, message: Any) -> None:
        self._note(message.header.frame_id, message.results)

    def _on_detections(self, message: Any) -> None:
        for detection in message.detections:
            hypotheses = [each.hypothesis for each in detection.results]
            self._note(message.header.frame_id, hypotheses)

    def _note(self, frame_id: str, hypotheses: list[Any]) -> None:
        if hypotheses:
            best = hypotheses[0]
            label = self._labels.get(best.class_id, best.class_id)
            self._seen = [*self._seen[-_ROWS:], (frame_id, label, best.score)]


def main() -> int:
    """Show the dashboard until it is interrupted, and return the exit code of the process."""
    return run(NAME, _show)


def _show() -> None:
    node = Dashboard()
    parent = os.getppid()
    with (
        spinning(node),
        Live(console=Console(), refresh_per_second=node.refresh_hz, screen=False) as live,
    ):
        # Started by a process that has ended, there is nobody left to look.
        while rclpy.ok() and os.getppid() == parent:
            node.discover()
            live.update(node.view())
            time.sleep(1.0 / node.refresh_hz)


if __name__ == "__main__":
    sys.exit(main())
