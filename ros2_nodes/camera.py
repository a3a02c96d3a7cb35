"""One camera of the classifier node: its topics, and the way of its images to the worker."""

from __future__ import annotations

import time
from threading import Lock
from typing import TYPE_CHECKING, Any

from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy, qos_policy_name_from_kind
from sensor_msgs.msg import CompressedImage, Image
from vision_msgs.msg import Classification, Detection2DArray

from qpde_perception.bags.messages import boxes_in, frame_in, stamp_of
from qpde_perception.monitoring import (
    CameraReport,
    DropReason,
    ExpectedRate,
    StreamStatistics,
    TransportReport,
    UpstreamLosses,
)
from qpde_perception.perception.matching import RegionMatcher
from ros2_nodes.events import UNWATCHED, SubscriptionEvents, UnsupportedEventTypeError
from ros2_nodes.messages import Number, number
from ros2_nodes.worker import Job, Loss

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.node import Node

    from qpde_perception.monitoring import Counts, InputAge
    from qpde_perception.perception import Perception
    from qpde_perception.perception.matching import Matches
    from ros2_nodes.messages import ResultWriter
    from ros2_nodes.parameters import Settings

RESULTS = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
_STAGES = {
    "processing_time/preprocess": ("decode", "prepare"),
    "processing_time/inference": ("infer",),
    "processing_time/postprocess": ("postprocess",),
}
_NS_PER_MS = 1e6


class Camera:
    """One camera's subscriptions and publishers, and what is known of its stream.

    Images and boxes come in one thread of the executor; `silence` and `report` may be called from
    another.
    """

    def __init__(
        self,
        node: Node,
        name: str,
        settings: Settings,
        writer: ResultWriter,
        *,
        arrived: Callable[[Camera], None],
        ready: Callable[[Job], None],
        lost: Callable[[Job, Loss], None],
    ) -> None:
        """Create the publishers; `listen` subscribes.

        Args:
            node: The node.
            name: Name of the camera.
            settings: The node's parameters.
            writer: Makes the results.
            arrived: Told of every image, in the executor's thread.
            ready: Gets each image that can be classified, in the executor's thread.
            lost: Gets each image whose regions did not come, in the executor's thread.
        """
        self._node, self.name, self._settings, self._writer = node, name, settings, writer
        self._arrived, self._ready, self._lost = arrived, ready, lost
        self._prefix = "~/" if len(settings["cameras"]) == 1 else f"~/{name}/"
        self._compressed = settings["image_transport"] == "compressed"
        topic = node.resolve_topic_name(f"{self._prefix}input/image")
        self.topic = f"{topic}/compressed" if self._compressed else topic
        self._fixed = settings.fixed_regions
        self._taking = Lock()
        self._listening = False
        self._matcher: RegionMatcher[Job] = RegionMatcher(slop_ns=settings.slop_ns)
        rate_hz = settings["expected_frequency"]
        expected = ExpectedRate(rate_hz, settings["tolerance"]) if rate_hz else None
        self._stream = StreamStatistics(expected)
        self._losses = UpstreamLosses(expected.period_ns if expected else None)
        self._incompatible: int | None = None
        self._policies: set[str] = set()
        self._messages_lost: int | None = None
        self._published_s: float | None = None
        self._subscriptions: list[Any] = []
        self._publishers: list[Any] = []
        kind, output = (
            (Classification, "classification")
            if settings["regions"] == "whole_frame"
            else (Detection2DArray, "detections")
        )
        self._by_region = kind is Detection2DArray
        self._result = self._publisher(kind, f"output/{output}")
        self._raw = self._publisher(kind, f"output/{output}_raw", UNWATCHED)
        self._overlay = self._publisher(Image, "output/annotations", UNWATCHED)
        names = ("processing_time", "cyclic_time", "pipeline_latency", *_STAGES)
        self._debug = {
            each: self._publisher(Number, f"debug/{each}_ms", UNWATCHED) for each in names
        }

    def listen(self) -> None:
        """Subscribe to the images, and to the boxes where these are asked for."""
        self._stream.reset()
        self._losses.reset()
        asked = self._settings["image_reliability"]
        with self._taking:
            self._listening = True
            self._subscribe_images(
                ReliabilityPolicy.RELIABLE if asked == "auto" else _policy(asked)
            )
        if self._settings["regions"] == "topic":
            topic = f"{self._prefix}input/regions"
            qos = self._qos(ReliabilityPolicy.BEST_EFFORT)
            self._subscribe(Detection2DArray, topic, self._on_regions, qos, watched=False)

    def _subscribe_images(self, reliability: ReliabilityPolicy) -> None:
        self._reliability = reliability
        kind = CompressedImage if self._compressed else Image
        self._images = self._subscribe(
            kind, self.topic, self._on_image, self._qos(reliability), watched=True
        )

    def _settle_for_best_effort(self) -> None:
        """Hear a camera that offers no more; a reliable one is then heard as best effort, too."""
        with self._taking:
            if not self._listening or self._reliability is ReliabilityPolicy.BEST_EFFORT:
                return
            self._subscriptions.remove(self._images)
            self._node.destroy_subscription(self._images)
            self._incompatible, self._policies = 0, set()
            self._losses.reset()
            self._subscribe_images(ReliabilityPolicy.BEST_EFFORT)

    def _qos(self, reliability: ReliabilityPolicy) -> QoSProfile:
        return QoSProfile(
            history=HistoryPolicy.KEEP_LAST,
            depth=self._settings["image_depth"],
            reliability=reliability,
        )

    def silence(self) -> None:
        """Unsubscribe; images that wait for their boxes are lost, and none arrives any more."""
        with self._taking:
            self._listening = False
            for subscription in self._subscriptions:
                self._node.destroy_subscription(subscription)
            self._subscriptions.clear()
            for job in self._matcher.clear():
                self._lost(job, Loss(DropReason.SUPERSEDED, "the node was deactivated"))

    def close(self) -> None:
        """Free the publishers."""
        for publisher in self._publishers:
            self._node.destroy_publisher(publisher)
        self._publishers.clear()

    def jumped(self) -> None:
        """Start anew after a jump of the clock."""
        with self._taking:
            self._stream.reset()
            self._losses.reset()
            for job in self._matcher.clear():
                self._lost(job, Loss(DropReason.SUPERSEDED, "the clock jumped"))

    def report(self, counts: Counts, age: InputAge) -> CameraReport:
        """Return what is known of the camera now.

        Args:
            counts: Its frames.
            age: How long it has been silent.
        """
        with self._taking:
            stream, losses = self._stream.snapshot(), self._losses.snapshot()
        return CameraReport(self.topic, stream, losses, counts, age)

    @property
    def transport(self) -> TransportReport:
        """What the middleware said of the subscription to the images."""
        policies = tuple(sorted(self._policies))
        return TransportReport(self.topic, self._incompatible, policies, self._messages_lost)

    def publish(self, job: Job, perception: Perception) -> None:
        """Publish a result and its latencies, in the worker's thread."""
        for publisher, raw in ((self._result, False), (self._raw, True)):
            if publisher is self._raw and not publisher.get_subscription_count():
                continue
            write = self._writer.detections if self._by_region else self._writer.classification
            publisher.publish(write(job.header, perception, raw=raw))
        now, now_s = self._node.get_clock().now(), time.monotonic()
        stages_ms = perception.stages_ms
        times_ms = {
            "processing_time": stages_ms["total"],
            "pipeline_latency": (now.nanoseconds - job.frame.stamp_ns) / _NS_PER_MS,
            **{
                name: sum(stages_ms.get(stage, 0.0) for stage in stages)
                for name, stages in _STAGES.items()
            },
        }
        if self._published_s is not None:
            times_ms["cyclic_time"] = (now_s - self._published_s) * 1e3
        self._published_s = now_s
        stamp = now.to_msg()
        for name, value in times_ms.items():
            if self._debug[name].get_subscription_count():
                self._debug[name].publish(number(stamp, value))
        if self._overlay.get_subscription_count():
            self._overlay.publish(self._writer.overlay(job.header, job.frame, perception))

    def _on_image(self, message: Any, info: Any) -> None:
        now_ns = self._node.get_clock().now().nanoseconds
        frame = frame_in(message, compressed=self._compressed)
        job = Job(self.name, message.header, frame, self._fixed, now_ns)
        with self._taking:
            if not self._listening:
                return  # taken by the executor before the subscription was destroyed
            self._stream.add(frame.stamp_ns, now_ns)
            self._losses.add(frame.stamp_ns, info.get("publication_sequence_number"))
            self._arrived(self)
            if self._settings["regions"] == "topic":
                self._settle(self._matcher.add_frame(frame.stamp_ns, job))
            else:
                self._ready(job)

    def _on_regions(self, message: Any) -> None:
        stamp_ns, regions = stamp_of(message), boxes_in(message)
        with self._taking:
            if self._listening:
                self._settle(self._matcher.add_regions(stamp_ns, regions))

    def _settle(self, matches: Matches[Job]) -> None:
        for job in matches.passed:
            self._lost(job, Loss(DropReason.SUPERSEDED, "no regions came before a newer frame's"))
        for job in matches.crowded:
            self._lost(job, Loss(DropReason.OVER_CAPACITY, "no regions came for too many frames"))
        for job, regions in matches.pairs:
            self._ready(Job(job.camera, job.header, job.frame, regions, arrived_ns=job.arrived_ns))

    def _publisher(self, kind: Any, name: str, events: Any = None) -> Any:
        publisher = self._node.create_publisher(
            kind, f"{self._prefix}{name}", RESULTS, event_callbacks=events
        )
        self._publishers.append(publisher)
        return publisher

    def _subscribe(
        self, kind: Any, topic: str, callback: Any, qos: QoSProfile, *, watched: bool
    ) -> Any:
        incompatible = SubscriptionEvents(incompatible_qos=self._on_incompatible)
        everything = SubscriptionEvents(
            incompatible_qos=self._on_incompatible, message_lost=self._on_message_lost
        )
        for events in (everything, incompatible, None) if watched else (None,):
            try:
                subscription = self._node.create_subscription(
                    kind, topic, callback, qos, event_callbacks=events
                )
            except UnsupportedEventTypeError:
                continue  # not every middleware reports everything
            self._subscriptions.append(subscription)
            if events is not None:
                self._incompatible = self._incompatible or 0
            if events is everything:
                self._messages_lost = self._messages_lost or 0
            return subscription
        raise AssertionError  # without events it is always supported

    def _on_incompatible(self, event: Any) -> None:
        self._incompatible = (self._incompatible or 0) + event.total_count_change
        policy = qos_policy_name_from_kind(event.last_policy_kind)
        self._policies.add(policy)
        if policy.startswith("RELIABILITY") and self._settings["image_reliability"] == "auto":
            # Not here: the subscription cannot be destroyed within its own event.
            executor = self._node.executor
            assert executor is not None
            executor.create_task(self._settle_for_best_effort)

    def _on_message_lost(self, event: Any) -> None:
        self._messages_lost = (self._messages_lost or 0) + event.total_count_change


def _policy(name: str) -> ReliabilityPolicy:
    return ReliabilityPolicy[name.upper()]
