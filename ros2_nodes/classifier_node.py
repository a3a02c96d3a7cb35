"""The classifier: a lifecycle node from camera images to classes that watches its own health."""

from __future__ import annotations

import gc
import os
import signal
import time
import traceback
from functools import wraps
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType, JumpThreshold  # type: ignore[attr-defined]
from rclpy.duration import Duration
from rclpy.executors import MultiThreadedExecutor
from rclpy.lifecycle import LifecycleNodeMixin, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.signals import SignalHandlerOptions
from vision_msgs.msg import LabelInfo, VisionInfo

from qpde_perception.bundles import BundleError, find_model, golden_of, load_bundle
from qpde_perception.engines import EngineError
from qpde_perception.monitoring import (
    Accounting,
    CameraReport,
    Counts,
    DropReason,
    EngineReport,
    Level,
    ProcessingTimeWatchdog,
    TaskStatus,
    WatchdogLimits,
    camera_input_task,
    engine_task,
    frame_accounting_task,
    processing_time_task,
    transport_task,
)
from qpde_perception.perception import Classifier
from ros2_nodes.camera import Camera
from ros2_nodes.declarations import ConfiguredParameters, DeclarationError
from ros2_nodes.messages import ResultWriter, diagnostics, label_info, vision_info
from ros2_nodes.parameters import DECLARATIONS, Settings
from ros2_nodes.worker import EngineLine, Job, Loss, Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.lifecycle import LifecycleState

    from qpde_perception.bundles import Bundle
    from qpde_perception.perception import Perception

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_NS_PER_MS = 1e6


def _logged(
    transition: Callable[[ClassifierNode, LifecycleState], TransitionCallbackReturn],
) -> Callable[[ClassifierNode, LifecycleState], TransitionCallbackReturn]:
    """Log what a transition raises; rclpy alone would only call it an error."""

    @wraps(transition)
    def run(self: ClassifierNode, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(self, state)
        except Exception:
            self.get_logger().error(traceback.format_exc())
            raise

    return run


class ClassifierNode(LifecycleNodeMixin, Node):
    """Wires cameras, worker, engines and diagnostics together."""

    def __init__(self, **options: Any) -> None:
        """Declare the parameters; nothing is loaded before `configure`."""
        # Transitions may take long, so they must not keep images and diagnostics waiting.
        Node.__init__(self, "classifier", **options)
        LifecycleNodeMixin.__init__(self, callback_group=ReentrantCallbackGroup())
        self._counting = Lock()
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._accounting = Accounting()
        self._cameras: list[Camera] = []
        self._running: list[Any] = []
        self._latched: list[Any] = []
        self._worker: Worker | None = None
        self._line: EngineLine | None = None
        self._busy = ""
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

    @_logged
    def on_configure(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Check the parameters, verify the model, open and warm up an engine."""
        try:
            self._settings = settings = Settings.of(self._declared.values())
            period_s = settings["diagnostic_updater.period"]
            self._every(period_s, self._publish_diagnostics)
            self._say(f"verifying model {settings['model'] or 'traffic_signs'}")
            self._bundle = bundle = load_bundle(find_model(settings["model"] or None))
            names = (settings["engine"],) if settings["engine"] else bundle.manifest.engines
            self._say(f"opening the first engine that works of: {', '.join(names)}")
            self._line = EngineLine(bundle, names, settings["threads"])
            engine = self._line.advance()
            if engine is None:
                refusals = "; ".join(self._line.refusals.values())
                self.get_logger().error(f"no engine serves {bundle.manifest.name}: {refusals}")
                self.release()
                return TransitionCallbackReturn.FAILURE
            for name, refusal in self._line.refusals.items():
                self.get_logger().warning(f"engine {name} is passed over: {refusal}")
            self._say("warming up")
            engine.infer(golden_of(bundle).pixels)
        except (DeclarationError, BundleError, EngineError, OSError) as error:
            self.get_logger().error(str(error))
            self.release()
            return TransitionCallbackReturn.FAILURE
        self._say("")
        self._announce(bundle)
        manifest = bundle.manifest
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

    @_logged
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the worker and subscribe."""
        settings, line = self._settings, self._line
        assert line is not None
        if line.engine is None and line.restart() is None:
            self.get_logger().error("no engine is left: " + "; ".join(line.refusals.values()))
            return TransitionCallbackReturn.FAILURE
        assert line.engine is not None
        self._claim_processors(settings["cpu_affinity"])
        self._by_name = {camera.name: camera for camera in self._cameras}
        limits = WatchdogLimits(
            settings["diagnostics.max_allowed_processing_time_ms"],
            settings["diagnostics.max_acceptable_consecutive_delay_ms"],
            settings["input_timeout_ms"],
        )
        self._accounting = Accounting()
        self._counts = Counts(0, 0, {})
        self._reports: dict[str, CameraReport] = {}
        self._transport = tuple(camera.transport for camera in self._cameras)
        topics = [camera.topic for camera in self._cameras]
        self._watchdog = ProcessingTimeWatchdog(topics, time.monotonic_ns(), limits)
        classifiers = {
            camera.name: Classifier(self._bundle, line.engine, settings.new_filter())
            for camera in self._cameras
        }
        self._worker = Worker(
            line,
            classifiers,
            self._on_outcome,
            admit=self._admit,
            report=self._warn,
        )
        self._worker.start(settings["priority"])
        interval_s = settings["diagnostics.validation_callback_interval_ms"] / 1e3
        self._watching = self._every(interval_s, self._publish_watchdog)
        for camera in self._cameras:
            camera.listen()
        if settings["freeze_gc"]:
            gc.collect()
            gc.freeze()
        return super().on_activate(state)

    @_logged
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe and let the frame at hand be finished."""
        self._stop()
        return super().on_deactivate(state)

    @_logged
    def on_cleanup(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Free the engine and everything else."""
        self.release()
        return TransitionCallbackReturn.SUCCESS

    @_logged
    def on_shutdown(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything for good."""
        self.release()
        return TransitionCallbackReturn.SUCCESS

    @_logged
    def on_error(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything; the node can be configured anew."""
        self.release()
        return TransitionCallbackReturn.SUCCESS

    def _stop(self) -> None:
        for camera in self._cameras:
            camera.silence()
        if self._worker is not None:
            self._worker.stop()
            self._worker = None
            self._cancel(self._watching)
            self._publish_diagnostics()
            gc.unfreeze()

    def start(self) -> None:
        """Configure and activate without a manager."""
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def release(self) -> None:
        """Free everything; nothing is received any more."""
        self._stop()
        for camera in self._cameras:
            camera.close()
        self._cameras = []
        for timer in list(self._running):
            self._cancel(timer)
        for publisher in self._latched:
            self.destroy_publisher(publisher)
        self._latched = []
        if self._line is not None:
            self._line.close()
            self._line = None

    def _announce(self, bundle: Bundle) -> None:
        """Publish, latched, which class stands behind which number."""
        manifest = bundle.manifest
        labels = list(manifest.labels)
        if self.has_parameter("class_labels"):
            self.undeclare_parameter("class_labels")
        self.declare_parameter("class_labels", labels)
        stamp = self.get_clock().now().to_msg()
        path = f"{self.get_fully_qualified_name()}/class_labels"
        for kind, topic, message in (
            (
                LabelInfo,
                "~/label_info",
                label_info(stamp, labels, self._settings["confidence_threshold"]),
            ),
            (VisionInfo, "~/vision_info", vision_info(stamp, manifest.network, path)),
        ):
            publisher = self.create_publisher(kind, topic, LATCHED)
            publisher.publish(message)
            self._latched.append(publisher)

    def _on_arrival(self, camera: Camera) -> None:
        with self._counting:
            self._accounting.received(camera.topic)
        self._watchdog.arrived(camera.topic, time.monotonic_ns())

    def _on_ready(self, job: Job) -> None:
        worker = self._worker  # another thread may take it away
        if worker is None:
            self._on_outcome(job, Loss(DropReason.SUPERSEDED, "the node was deactivated"))
        else:
            worker.put(job)

    def _admit(self, job: Job) -> str | None:
        limit_ms = self._settings["max_age_ms"]
        age_ms = (self.get_clock().now().nanoseconds - job.frame.stamp_ns) / _NS_PER_MS
        if limit_ms and age_ms > limit_ms:
            return f"{age_ms:.0f} ms old, at most {limit_ms:.0f}"
        self._watchdog.started(self._by_name[job.camera].topic, time.monotonic_ns())
        return None

    def _on_outcome(self, job: Job, outcome: Perception | Loss) -> None:
        """Publish a result, or log why there is none; count either."""
        camera = self._by_name[job.camera]
        if isinstance(outcome, Loss):
            self._watchdog.abandoned(camera.topic)
            with self._counting:
                self._accounting.dropped(camera.topic, outcome.reason)
            self.get_logger().warning(
                f"{camera.topic}: {outcome.reason.value}: {outcome.fault}",
                throttle_duration_sec=1.0,
            )
            return
        self._watchdog.finished(camera.topic, outcome.stages_ms, time.monotonic_ns())
        with self._counting:
            self._accounting.published(camera.topic)
        camera.publish(job, outcome)

    def _warn(self, text: str) -> None:
        self.get_logger().warning(text)

    def _on_jump(self, _jump: Any) -> None:
        self.get_logger().warning("the clock jumped; rates and waiting images start anew")
        for camera in self._cameras:
            camera.jumped()

    def _publish_watchdog(self) -> None:
        if self._worker is not None:
            self._tell([processing_time_task(self._watchdog.report(time.monotonic_ns()))])

    def _publish_diagnostics(self) -> None:
        tasks = [self._engine_status()]
        if self._worker is not None:
            ages = self._watchdog.report(time.monotonic_ns()).inputs
            with self._counting:
                counts, by_topic = self._accounting.totals, self._accounting.topics
            nothing = Counts(0, 0, {})
            for camera in self._cameras:
                report = CameraReport(
                    topic=camera.topic,
                    stream=camera.stream.snapshot(),
                    losses=camera.losses.snapshot(),
                    counts=by_topic.get(camera.topic, nothing),
                    age=ages[camera.topic],
                )
                tasks.append(camera_input_task(report, self._reports.get(camera.topic)))
                self._reports[camera.topic] = report
            transport = tuple(camera.transport for camera in self._cameras)
            tasks.append(frame_accounting_task(counts, self._counts))
            tasks.append(transport_task(transport, self._transport))
            self._counts, self._transport = counts, transport
        self._tell(tasks)

    def _engine_status(self) -> TaskStatus:
        if self._busy or self._line is None:
            return TaskStatus("engine", Level.STALE, self._busy or "Not configured.", {})
        engine = self._line.engine
        return engine_task(
            EngineReport(
                model=self._bundle.manifest.name,
                name=engine.name if engine else "",
                version=engine.version if engine else "",
                refused=self._line.refusals,
            )
        )

    def _tell(self, tasks: list[TaskStatus]) -> None:
        fqn = self.get_fully_qualified_name()
        name = fqn if self._settings["diagnostic_updater.use_fqn"] else self.get_name()
        self._diagnostics.publish(diagnostics(self.get_clock().now().to_msg(), name, tasks))

    def _say(self, what: str) -> None:
        self._busy = what
        if what:
            self.get_logger().info(what)
            self._publish_diagnostics()

    def _every(self, period_s: float, callback: Callable[[], None]) -> Any:
        # A steady clock: diagnostics go on where a simulated one stands still.
        timer = self.create_timer(period_s, callback, clock=self._steady)
        self._running.append(timer)
        return timer

    def _cancel(self, timer: Any) -> None:
        if timer in self._running:
            self._running.remove(timer)
            self.destroy_timer(timer)

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
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    stop = Event()
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, lambda *_: stop.set())
    node = ClassifierNode()
    # One thread for images, services and timers, one for transitions, which may take long.
    executor = MultiThreadedExecutor(num_threads=2)
    executor.add_node(node)
    spinning = Thread(target=executor.spin, name="executor")
    spinning.start()
    if node.get_parameter("autostart").value:
        node.start()
    stop.wait()
    executor.shutdown()
    spinning.join()
    node.release()
    node.destroy_node()
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()
