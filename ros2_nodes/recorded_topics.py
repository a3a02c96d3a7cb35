"""The topics of a drive on the middleware: offered as recorded, sent byte for byte, waited for."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from rclpy.duration import Duration
from rclpy.exceptions import NameValidationException
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

from qpde_perception.bags import BagError, NewStamps, begins_with_header, restamped, stamp_in
from ros2_nodes.message_types import InterfaceError, demand_layout, message_class

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, KeysView

    from rclpy.node import Node
    from rclpy.publisher import Publisher

    from qpde_perception.bags import Drive, Offer, SerializedMessage, TopicInfo

_SENSOR_DATA = QoSProfile(depth=5)  # reliable and volatile, as REP-2003 publishes
_LOOK_AGAIN_S = 0.02
_LOOK_AGAIN = Duration(nanoseconds=20_000_000)
# A subscriber finds the player a moment after the player has found it. What is sent in between
# reaches it only when the middleware repeats it.
_SETTLE_S = 0.3
# The middleware asks whether all was received every three seconds.
_RECEIVED_WITHIN_S = 4.0


class RecordedTopics:
    """Publishers of a drive's topics."""

    def __init__(
        self, node: Node, drive: Drive, *, restamp: bool, stopped: Callable[[], bool]
    ) -> None:
        """Offer nothing yet.

        Args:
            node: Whose publishers they are.
            drive: The recording.
            restamp: Whether the header that a message begins with gets the time of sending.
            stopped: Whether to wait no longer.
        """
        self._node, self._drive, self._stopped = node, drive, stopped
        self._publishers: dict[str, Publisher[Any]] = {}
        self._new_stamps = NewStamps() if restamp else None
        self.stamped: set[str] = set()
        """Topics that are offered and whose messages begin with a header."""
        self.sent: Counter[str] = Counter()
        """Messages sent, by topic."""

    @property
    def names(self) -> KeysView[str]:
        """Topics that are offered."""
        return self._publishers.keys()

    def offer(self, topic: TopicInfo) -> None:
        """Make the publisher of a topic, or warn that it cannot be played."""
        try:
            layout = self._drive.layout(topic.name)
            demand_layout(layout)
            publisher = self._node.create_publisher(
                message_class(topic.type),
                topic.name,
                _profile(topic.offer),
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            )
        except (BagError, InterfaceError, NameValidationException) as error:
            self._node.get_logger().warning(f"{topic.name} is left out: {error}")
            return
        self._publishers[topic.name] = publisher
        if begins_with_header(layout, topic.type):
            self.stamped.add(topic.name)

    def publish(self, message: SerializedMessage) -> bytes:
        """Send a message of a topic that is offered, and return it as it was sent."""
        cdr = message.cdr
        if self._new_stamps is not None and message.topic in self.stamped:
            now_ns = self._node.get_clock().now().nanoseconds
            cdr = restamped(cdr, self._new_stamps.stamp_ns(message.topic, stamp_in(cdr), now_ns))
        self._publishers[message.topic].publish(cdr)
        self.sent[message.topic] += 1
        return cdr

    def wait_for_subscribers(self, names: Iterable[str]) -> None:
        """Return once each of these topics has a subscriber, or it is to wait no longer."""
        waiting = list(names)
        if not waiting:
            return
        for name in waiting:
            self._node.get_logger().info(f"waiting for a subscriber of {name}")
        while waiting and not self._stopped():
            time.sleep(_LOOK_AGAIN_S)
            waiting = [
                name for name in waiting if not self._publishers[name].get_subscription_count()
            ]
        time.sleep(_SETTLE_S)

    def wait_for_receipts(self) -> None:
        """Return once all subscribers have everything, or warn; or it is to wait no longer."""
        end = time.monotonic() + _RECEIVED_WITHIN_S
        waiting = dict(self._publishers)
        # In short turns: who asks it to end meanwhile need not wait.
        while waiting and time.monotonic() < end and not self._stopped():
            for name in list(waiting):
                if waiting[name].wait_for_all_acked(_LOOK_AGAIN):
                    del waiting[name]
        for name in waiting if not self._stopped() else ():
            self._node.get_logger().warning(f"{name}: a subscriber has not received everything")


def _profile(offer: Offer | None) -> QoSProfile:
    if offer is None:
        return _SENSOR_DATA
    reliability, durability = QoSReliabilityPolicy, QoSDurabilityPolicy
    return QoSProfile(
        depth=offer.depth,
        reliability=reliability.RELIABLE if offer.reliable else reliability.BEST_EFFORT,
        durability=durability.TRANSIENT_LOCAL if offer.latched else durability.VOLATILE,
    )
