"""What a lifecycle node needs beside its work: transitions that are logged and answered, timers."""

from __future__ import annotations

import traceback
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNodeMixin, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.lifecycle import LifecycleState

_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_N = TypeVar("_N", bound=Node)


def logged(
    transition: Callable[[_N, LifecycleState], TransitionCallbackReturn],
) -> Callable[[_N, LifecycleState], TransitionCallbackReturn]:
    """Log what a transition raises; rclpy alone would only call it an error."""

    @wraps(transition)
    def run(self: _N, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(self, state)
        except Exception:
            self.get_logger().error(traceback.format_exc())
            raise

    return run


class ManagedNode(LifecycleNodeMixin, Node):
    """A lifecycle node whose transitions may take long, with timers that no stopped clock holds."""

    def __init__(self, name: str, **options: Any) -> None:
        """Offer the services of the life cycle.

        Args:
            name: Of the node, unless remapped.
            options: Of `rclpy.node.Node`.
        """
        Node.__init__(self, name, **options)
        # Transitions may take long, so they must not keep images and diagnostics waiting.
        LifecycleNodeMixin.__init__(self, callback_group=ReentrantCallbackGroup())
        self.changing_state = self._service_change_state
        """The service that asks for transitions."""
        self.changing_state.callback = _answered(self.changing_state.callback)
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._steady_timers: list[Any] = []
        self._latched: list[Any] = []

    def start(self) -> None:
        """Configure and activate without a manager."""
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def every(self, period_s: float, callback: Callable[[], None]) -> Any:
        """Call back again and again; on a steady clock: it goes on where a simulated one stands."""
        timer = self.create_timer(period_s, callback, clock=self._steady)
        self._steady_timers.append(timer)
        return timer

    def cancel(self, timer: Any) -> None:
        """End a timer, unless it has ended."""
        if timer in self._steady_timers:
            self._steady_timers.remove(timer)
            self.destroy_timer(timer)

    def latch(self, kind: Any, topic: str, message: Any) -> None:
        """Publish a message that also those get who subscribe later."""
        publisher = self.create_publisher(kind, topic, _LATCHED)
        publisher.publish(message)
        self._latched.append(publisher)

    def free(self) -> None:
        """End all timers, and take back what was latched."""
        for timer in list(self._steady_timers):
            self.cancel(timer)
        for publisher in self._latched:
            self.destroy_publisher(publisher)
        self._latched.clear()


def _answered(change: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Answer a request for an impossible transition, for which rclpy of Jazzy only raises."""

    def run(request: Any, response: Any) -> Any:
        try:
            return change(request, response)
        except rclpy_implementation.RCLError:
            response.success = False
            return response

    return run
