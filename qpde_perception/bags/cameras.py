"""The cameras of a drive, and the topics that belong to each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qpde_perception.bags.definitions import DETECTION_2D_ARRAY
from qpde_perception.bags.errors import BagError
from qpde_perception.bags.messages import CAMERA_TYPES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qpde_perception.bags.drive import TopicInfo


@dataclass(frozen=True, slots=True)
class Camera:
    """One camera of a drive.

    Attributes:
        topic: Its images.
        namespace: What the names of its other topics start with.
        regions_topic: The boxes that a detector found; None where whole frames are classified.
        truth_topic: The true classes; None where the drive has none.
    """

    topic: str
    namespace: str
    regions_topic: str | None
    truth_topic: str | None


def cameras_of(
    topics: Sequence[TopicInfo], wanted: Sequence[str] = (), *, regions: str | None = None
) -> tuple[Camera, ...]:
    """Find the cameras of a drive.

    Args:
        topics: The topics of the drive.
        wanted: Image topics to use; empty uses all.
        regions: Topic with the boxes, `none` for whole frames; None takes `regions` in the
            camera's namespace where the drive has it.

    Raises:
        BagError: If a topic does not exist or has another type; the message lists those that exist.
    """
    types = {topic.name: topic.type for topic in topics}
    images = tuple(name for name in types if types[name] in CAMERA_TYPES)
    names = tuple(dict.fromkeys(wanted)) or images
    if not names:
        msg = f"the drive has no camera topic; it has: {_listed(types)}"
        raise BagError(msg)
    for name in names:
        _demand(types, name, CAMERA_TYPES)
    if regions not in (None, "none"):
        _demand(types, regions, (DETECTION_2D_ARRAY,))
        if len(names) > 1:
            msg = f"{regions}: belongs to one camera; choose it with --camera: {', '.join(names)}"
            raise BagError(msg)
    spaces = [_namespace(name) for name in names]
    return tuple(
        # Two topics of one namespace must not write over each other's results.
        _camera(name, space, name if spaces.count(space) > 1 else space, types, regions)
        for name, space in zip(names, spaces, strict=True)
    )


def _camera(
    topic: str, space: str, namespace: str, types: dict[str, str], regions: str | None
) -> Camera:
    def beside(name: str) -> str | None:
        return f"{space}/{name}" if types.get(f"{space}/{name}") == DETECTION_2D_ARRAY else None

    if regions is None:
        regions = beside("regions")
    elif regions == "none":
        regions = None
    return Camera(topic, namespace, regions, truth_topic=beside("ground_truth"))


def _namespace(topic: str) -> str:
    """Return `/camera/front` for `/camera/front/image_raw/compressed`."""
    stem = topic.removesuffix("/compressed")
    head, _, tail = stem.rpartition("/")
    return head if tail.startswith("image") else stem


def _demand(types: dict[str, str], name: str, expected: tuple[str, ...]) -> None:
    if name not in types:
        msg = f"{name}: the drive has no such topic; it has: {_listed(types)}"
        raise BagError(msg)
    if types[name] not in expected:
        msg = (
            f"{name}: is {types[name]}, expected {' or '.join(expected)}; it has: {_listed(types)}"
        )
        raise BagError(msg)


def _listed(types: dict[str, str]) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in types.items()) or "no topics"
