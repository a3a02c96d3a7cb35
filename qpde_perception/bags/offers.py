"""How publishers offered the topics of a recording: reliably or not, latched or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rosbags.interfaces import ConnectionExtRosbag2, QosDurability, QosHistory, QosReliability
from rosbags.rosbag2.metadata import parse_qos

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rosbags.interfaces import ConnectionExtRosbag1, Qos

# What a recorder that did not know the depth is taken to have seen: sensor data of REP-2003.
_DEPTH = 5


class Offer(NamedTuple):
    """The quality of service that matters when a topic is published again.

    Attributes:
        reliable: Whether lost messages were sent again.
        latched: Whether a late subscriber got the last messages too (`transient_local`).
        depth: Messages kept, at least 1.
    """

    reliable: bool
    latched: bool
    depth: int


def offers_of(ext: ConnectionExtRosbag1 | ConnectionExtRosbag2) -> tuple[Offer, ...]:
    """Return what the publishers of an indexed connection offered, as far as it was recorded."""
    if isinstance(ext, ConnectionExtRosbag2):
        return tuple(_offer(each) for each in ext.offered_qos_profiles)
    return (latching_offer(),) if ext.latching else ()


def latching_offer() -> Offer:
    """Return what a latching publisher of ROS 1 offered."""
    return Offer(reliable=True, latched=True, depth=1)


def parse_offers(text: str) -> tuple[Offer, ...]:
    """Read `offered_qos_profiles` of a rosbag2; none where it cannot be read."""
    try:
        return tuple(_offer(each) for each in parse_qos(text))
    except Exception:  # noqa: BLE001  # damaged text makes the parser fail in many ways
        return ()


def together(offers: Iterable[Offer]) -> Offer | None:
    """Return one offer that serves every subscriber whom any of them served; None for none.

    The depths add up: each publisher kept its own last messages.
    """
    each = tuple(offers)
    if not each:
        return None
    return Offer(
        reliable=any(offer.reliable for offer in each),
        latched=any(offer.latched for offer in each),
        depth=sum(offer.depth for offer in each),
    )


def _offer(qos: Qos) -> Offer:
    # A depth was seen only with a history that says keep last.
    known = qos.history is QosHistory.KEEP_LAST and qos.depth > 0
    return Offer(
        reliable=qos.reliability is not QosReliability.BEST_EFFORT,
        latched=qos.durability is QosDurability.TRANSIENT_LOCAL,
        depth=qos.depth if known else _DEPTH,
    )
