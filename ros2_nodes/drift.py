"""The drift watch of the classifier: its parameters, its topics, and what follows a verdict."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from rclpy.impl.implementation_singleton import rclpy_implementation

from qpde_perception.bundles import Cause
from qpde_perception.drift import DriftPolicy, DriftWatch
from qpde_perception.engines import REFERENCE
from qpde_perception.monitoring import Level, drift_task
from ros2_nodes.camera import RESULTS
from ros2_nodes.events import UNWATCHED
from ros2_nodes.executor import NodeExecutor
from ros2_nodes.messages import Number, number

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from qpde_perception.bundles import Bundle
    from qpde_perception.monitoring import DriftReport, TaskStatus, Verdict
    from qpde_perception.perception import Classifier
    from ros2_nodes.classifier_node import ClassifierNode
    from ros2_nodes.parameters import Settings


class Drift:
    """Watches the engines of a configured node, and asks for what its parameters say."""

    def __init__(
        self,
        node: ClassifierNode,
        bundle: Bundle,
        settings: Settings,
    ) -> None:
        """Open the reference and create the publishers.

        Args:
            node: The node.
            bundle: The model.
            settings: The node's parameters.

        Raises:
            BundleError: If the calibration, the certificate or the golden frames are damaged.
        """
        self._node, self._action = node, settings["drift.action"]
        policy = DriftPolicy(
            settings["drift.share"], settings["drift.golden_period_s"], settings["drift.alpha"]
        )
        self._watch = DriftWatch(bundle, policy)
        self._publishers = {
            name: node.create_publisher(
                Number, f"~/debug/drift/{name}", RESULTS, event_callbacks=UNWATCHED
            )
            for name in _numbers(self._watch.report)
        }
        self._told = ("", "")
        self._objection = ""
        self._failed: dict[str, str] = {}

    def start(self) -> None:
        """Begin without suspicion, as the node is activated."""
        self._watch.renew()
        self._told, self._objection = ("", ""), ""
        self._failed.clear()

    def observe(self, batch: NDArray[np.uint8], logits: NDArray[np.float32]) -> None:
        """Take note of what the engine answered, in the worker's thread."""
        self._watch.observe(batch, logits)

    def between(self, classifier: Classifier) -> bool:
        """Ask golden frames that are due, and act on a new verdict; see `worker.Watch`."""
        more = self._watch.between(classifier)
        worst = self._watch.worst
        told = (worst.cause.value, worst.rule) if worst else ("", "")
        if told != self._told:
            self._told = told
            if worst is not None:
                self._act(worst, classifier.engine.name)
        return more

    def fail(self, fault: str) -> None:
        """Take note that the engine failed; the next one takes over, whatever the action is."""
        self._watch.fail(fault)
        self._failed[self._watch.engine_name] = fault

    def objection(self) -> str:
        """Say why the float reference should serve instead, once; empty where it should not."""
        why, self._objection = self._objection, ""
        return why

    def task(self) -> TaskStatus:
        """Return the task of the diagnostics."""
        task = drift_task(self._watch.report)
        gone = [
            f"{Cause.ENGINE_CHANGED.value}: {fault}; it serves no more."
            for name, fault in self._failed.items()
            if name != self._watch.engine_name
        ]
        if not gone:
            return task
        told = [task.message] if task.level > Level.OK else []
        level = max(task.level, Level.WARN)
        return replace(task, level=level, message=" ".join((*told, *gone)))

    def publish(self) -> None:
        """Publish the numbers for whoever listens."""
        stamp = self._node.get_clock().now().to_msg()
        values = _numbers(self._watch.report)
        for name, publisher in self._publishers.items():
            value = values[name]
            if value is not None and publisher.get_subscription_count():
                publisher.publish(number(stamp, value))

    def close(self) -> None:
        """Observe no more, and free the publishers."""
        self._watch.close()
        for publisher in self._publishers.values():
            self._node.destroy_publisher(publisher)
        self._publishers.clear()

    def _act(self, worst: Verdict, engine: str) -> None:
        said = f"quantization drift, {worst.cause.value}: {worst.message} {worst.remedy}"
        self._node.get_logger().warning(said)
        if worst.level < Level.ERROR:
            return
        if self._action == "deactivate":
            self._node.get_logger().error("drift.action is deactivate: deactivating")
            self._deactivate()
        elif (
            self._action == "reference"
            and worst.cause is Cause.ENGINE_CHANGED
            and engine != REFERENCE
        ):
            self._objection = f"{worst.cause.value}: {worst.message}"

    def _deactivate(self) -> None:
        """Deactivate the node as soon as no other transition is under way."""
        executor = self._node.executor
        assert isinstance(executor, NodeExecutor)
        executor.do_apart(self._deactivate_now)

    def _deactivate_now(self) -> None:
        with suppress(rclpy_implementation.RCLError):  # it is no longer active
            self._node.trigger_deactivate()


def _numbers(report: DriftReport) -> dict[str, float | None]:
    return {
        "noise_ratio": report.noise_ratio,
        "disagreement": report.disagreement,
        "saturation": max(report.saturation.values(), default=None),
        "evidence": report.combined_evidence,
    }
