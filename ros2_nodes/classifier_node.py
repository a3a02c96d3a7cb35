"""The classifier: a lifecycle node from camera images to classes that watches its own health."""

from __future__ import annotations

import gc
import os
import signal
from threading import Event, Lock
from typing import TYPE_CHECKING, Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import JumpThreshold
from rclpy.duration import Duration
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions
from vision_msgs.msg import LabelInfo, VisionInfo

from qpde_perception.bundles import BundleError, find_model, load_bundle
from qpde_perception.bundles.shelf import DEFAULT_MODEL
from qpde_perception.engines import EngineError, engines_for
from qpde_perception.frames import keep_memory
from qpde_perception.perception import Classifier
from ros2_nodes.camera import Camera
from ros2_nodes.declarations import ConfiguredParameters, DeclarationError
from ros2_nodes.drift import Drift
from ros2_nodes.engine_line import EngineLine
from ros2_nodes.executor import NodeExecutor
from ros2_nodes.health import Traffic, engine_status
from ros2_nodes.lifecycle import ManagedNode, logged
from ros2_nodes.messages import ResultWriter, diagnostics, label_info, vision_info
from ros2_nodes.parameters import DECLARATIONS, Settings
from ros2_nodes.worker import Job, Loss, Worker

if TYPE_CHECKING:
    from rclpy.lifecycle import LifecycleState

    from qpde_perception.bundles import Bundle
    from qpde_perception.engines import Engine
    from qpde_perception.monitoring import TaskStatus
    from qpde_perception.perception import Perception

_NS_PER_MS = 1e6


class ClassifierNode(ManagedNode):
    """Wires cameras, worker, engines and diagnostics together."""

    def __init__(self, **options: Any) -> None:
        """Declare the parameters; nothing is loaded before `configure`."""
        super().__init__("classifier", **options)
        self._telling = Lock()
        self._cameras: list[Camera] = []
        self._traffic: Traffic | None = None
        self._worker: Worker | None = None
        self._line: EngineLine | None = None
        self._drift: Drift | None = None
        self._busy = self._fault = ""
        self._declared = ConfiguredParameters(
            self, DECLARATIONS, lambda: bool(self._line or self._busy)
        )
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._jump = self.get_clock().create_jump_callback(
            JumpThreshold(
                min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=True
            ),
            post_callback=self._on_jump,
        )

    @logged
    def on_configure(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Check the parameters, verify the model, open and warm up an engine."""
        self._fault = ""
        try:
            engine = self._open()
        except (DeclarationError, BundleError, EngineError, OSError) as error:
            self.get_logger().error(str(error))
            self.release()
            self._fault = str(error)
            self._publish_diagnostics()
            return TransitionCallbackReturn.FAILURE
        self._busy = ""
        self._announce(self._bundle)
        settings, manifest = self._settings, self._bundle.manifest
        writer = ResultWriter(
            manifest.labels, top_k=settings["top_k"], threshold=settings["confidence_threshold"]
        )
        self._cameras = [
            Camera(
                self,
                name,
                settings,
                writer,
                arrived=self._on_arrival,
                ready=self._on_ready,
                lost=self._on_outcome,
            )
            for name in settings["cameras"]
        ]
        self.get_logger().info(
            f"{manifest.name} with {engine.name} {engine.version}: "
            f"{', '.join(camera.topic for camera in self._cameras)}"
        )
        return TransitionCallbackReturn.SUCCESS

    @logged
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the worker and subscribe."""
        settings, line, drift = self._settings, self._line, self._drift
        assert line is not None
        assert drift is not None
        engine = line.engine or line.restart()
        if engine is None:
            self.get_logger().error(line.why_none)
            return TransitionCallbackReturn.FAILURE
        self._claim_processors(settings["cpu_affinity"])
        self._by_name = {camera.name: camera for camera in self._cameras}
        self._traffic = Traffic(self._cameras, settings)
        classifiers = {
            camera.name: Classifier(self._bundle, engine, settings.new_filter(), drift.observe)
            for camera in self._cameras
        }
        self._worker = Worker(
            line,
            classifiers,
            self._on_outcome,
            admit=self._admit,
            report=self._warn,
            decoders=settings.decoders,
            watch=drift,
        )
        drift.start()
        self._worker.start(settings["priority"])
        interval_s = settings["diagnostics.validation_callback_interval_ms"] / 1e3
        self._watching = self.every(interval_s, self._publish_watchdog)
        for camera in self._cameras:
            camera.listen()
        if settings["freeze_gc"]:
            gc.collect()
            gc.freeze()
        return super().on_activate(state)

    @logged
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe and let the frame at hand be finished."""
        self._stop()
        return super().on_deactivate(state)

    @logged
    def on_cleanup(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Free the engine and everything else."""
        self.release()
        return TransitionCallbackReturn.SUCCESS

    @logged
    def on_shutdown(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything for good."""
        self.release()
        return TransitionCallbackReturn.SUCCESS

    @logged
    def on_error(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything; the node can be configured anew."""
        self.release()
        return TransitionCallbackReturn.SUCCESS

    def _stop(self) -> None:
        for camera in self._cameras:
            camera.silence()
        if self._worker is not None:
            self._worker.stop()
            self.cancel(self._watching)
            # Every frame has ended by now; the last word on them is the exact one.
            self._publish_diagnostics()
            self._worker = self._traffic = None
            gc.unfreeze()

    def release(self) -> None:
        """Free everything; nothing is received any more."""
        self._stop()
        for camera in self._cameras:
            camera.close()
        self._cameras = []
        self.free()
        if self._drift is not None:
            self._drift.close()
            self._drift = None
        if self._line is not None:
            self._line.close()
            self._line = None
        self._busy = ""

    def _open(self) -> Engine:
        self._settings = settings = Settings.of(self._declared.values())
        self.every(settings["diagnostic_updater.period"], self._publish_diagnostics)
        self._say(f"verifying model {self._model}")
        self._bundle = bundle = load_bundle(find_model(settings["model"] or None))
        names = (settings["engine"],) if settings["engine"] else engines_for(bundle)
        self._say(f"opening the first engine that works of: {', '.join(names)}")
        self._line = EngineLine(bundle, names, settings["threads"])
        engine = self._line.advance()
        if engine is None:
            raise EngineError(self._line.why_none)
        for refusal in self._line.refusals.values():
            self.get_logger().warning(f"passed over: {refusal}")
        self._drift = Drift(self, bundle, settings)
        return engine

    def _announce(self, bundle: Bundle) -> None:
        """Publish, latched, which class stands behind which number."""
        manifest = bundle.manifest
        labels = list(manifest.labels)
        self._declared.show("class_labels", labels)
        stamp = self.get_clock().now().to_msg()
        path = f"{self.get_fully_qualified_name()}/class_labels"
        threshold = self._settings["confidence_threshold"]
        self.latch(LabelInfo, "~/label_info", label_info(stamp, labels, threshold))
        self.latch(VisionInfo, "~/vision_info", vision_info(stamp, manifest.network, path))

    def _on_arrival(self, camera: Camera) -> None:
        assert self._traffic is not None  # cameras are silenced before it is taken away
        self._traffic.arrived(camera.topic)

    def _on_ready(self, job: Job) -> None:
        assert self._worker is not None  # cameras are silenced before it is taken away
        self._worker.put(job)

    def _admit(self, job: Job) -> str | None:
        limit_ms = self._settings["max_age_ms"]
        age_ms = (self.get_clock().now().nanoseconds - job.frame.stamp_ns) / _NS_PER_MS
        if limit_ms and age_ms > limit_ms:
            return f"{age_ms:.0f} ms old, at most {limit_ms:.0f}"
        assert self._traffic is not None
        self._traffic.started(self._by_name[job.camera].topic)
        return None

    def _on_outcome(self, job: Job, outcome: Perception | Loss) -> None:
        """Publish a result, or log why there is none; count either."""
        camera = self._by_name[job.camera]
        assert self._traffic is not None
        self._traffic.ended(camera.topic, outcome)
        if isinstance(outcome, Loss):
            self.get_logger().warning(
                f"{camera.topic}: {outcome.reason.value}: {outcome.fault}",
                throttle_duration_sec=1.0,
            )
            return
        camera.publish(job, outcome)

    def _warn(self, text: str) -> None:
        self.get_logger().warning(text)

    def _on_jump(self, _jump: Any) -> None:
        self.get_logger().warning("the clock jumped; rates and waiting images start anew")
        for camera in self._cameras:
            camera.jumped()

    def _publish_watchdog(self) -> None:
        traffic = self._traffic  # another thread may take it away
        if traffic is not None:
            self._tell([traffic.processing_time()])

    def _publish_diagnostics(self) -> None:
        # A timer's and a transition's must not overtake each other.
        with self._telling:
            self._tell(self._tasks())
            if self._drift is not None:
                self._drift.publish()

    def _tasks(self) -> list[TaskStatus]:
        model = self._bundle.manifest.name if self._line else self._model
        engine = engine_status(self._line, model, waiting=self._busy, fault=self._fault)
        traffic, drift = self._traffic, self._drift
        watched = [drift.task()] if drift else []
        return [engine, *watched, *(traffic.tasks() if traffic else ())]

    @property
    def _model(self) -> str:
        """The model as it is asked for."""
        return self.get_parameter("model").value or DEFAULT_MODEL

    def _tell(self, tasks: list[TaskStatus]) -> None:
        fqn = self.get_fully_qualified_name()
        name = fqn if self.get_parameter("diagnostic_updater.use_fqn").value else self.get_name()
        self._diagnostics.publish(diagnostics(self.get_clock().now().to_msg(), name, tasks))

    def _say(self, what: str) -> None:
        self._busy = what
        self.get_logger().info(what)
        self._publish_diagnostics()

    def _claim_processors(self, processors: tuple[int, ...]) -> None:
        wanted = {processor for processor in processors if processor >= 0}
        if wanted:
            try:
                os.sched_setaffinity(0, wanted)
            except (OSError, AttributeError) as error:
                self.get_logger().warning(f"cpu_affinity {sorted(wanted)}: {error}; ignored")


def main() -> None:
    """Run the node until it is told to stop."""
    # Handled here and not in ROS, which would end before the last diagnostics are said.
    keep_memory()
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    stop = Event()
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, lambda *_: stop.set())
    node = ClassifierNode()
    with NodeExecutor(apart=node.changing_state).serving(node):
        if node.get_parameter("autostart").value:
            node.start()
        stop.wait()
    node.release()
    node.destroy_node()
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()
