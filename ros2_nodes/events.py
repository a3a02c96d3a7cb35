"""Events of publishers and subscriptions, as every supported rclpy has them."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from rclpy.impl.implementation_singleton import rclpy_implementation

try:
    from rclpy.event_handler import (
        PublisherEventCallbacks,
        SubscriptionEventCallbacks,
        UnsupportedEventTypeError,
    )
except ImportError:  # Humble
    from rclpy.qos_event import (
        PublisherEventCallbacks,
        SubscriptionEventCallbacks,
        UnsupportedEventTypeError,
    )

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["UNWATCHED", "SubscriptionEvents", "UnsupportedEventTypeError"]

UNWATCHED = PublisherEventCallbacks(use_default_callbacks=False)
"""For publishers beside the main one: rclpy's warning of a subscription that asks for what is not
offered is one more thing to wait for with every message, for each publisher."""


class SubscriptionEvents(SubscriptionEventCallbacks):
    """Events of a subscription that may be destroyed while one of them is on its way.

    Without this the event raises where the executor takes it, which keeps the callback group
    locked for good.
    """

    def create_event_handlers(self, *arguments: Any, **options: Any) -> Any:
        """Create the handlers; they take nothing once their subscription is destroyed."""
        handlers = super().create_event_handlers(*arguments, **options)
        for handler in handlers:
            handler.take_data = _unless_destroyed(handler.take_data)  # type: ignore[method-assign]
        return handlers


def _unless_destroyed(take: Callable[[], Any]) -> Callable[[], Any]:
    def take_data() -> Any:
        with suppress(rclpy_implementation.InvalidHandle):
            return take()
        return None

    return take_data
