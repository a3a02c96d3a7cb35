"""Pictures to calibrate on: of the sign data by track, of a drive by track or by stretch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qpde_perception.assessment.errors import AssessmentError
from qpde_perception.bags import camera_frame, open_drive, regions_of
from qpde_perception.bags.cameras import cameras_of
from qpde_perception.bags.messages import stamp_of
from qpde_perception.bags.pairing import Pairing
from qpde_perception.frames import FrameError, cut_out, decode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from qpde_perception.bags.drive import Drive
    from qpde_perception.bags.pairing import Paired
    from qpde_perception.frames import InputSpec
    from qpde_perception.learning.signs import SignSet

    Image = NDArray[np.uint8]

STRETCH_NS = 10_000_000_000
"""Length of a stretch of a drive whose regions have no tracks."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """Pictures in groups that are independent of each other.

    Attributes:
        source: A set and its split, or a drive.
        grouping: What one group is.
        pictures: What is cut out of each frame, uint8 BGR, shape (rows, columns, 3), and the name
            of its group; can be gone through once.
    """

    source: str
    grouping: str
    pictures: Iterable[tuple[Image, str]]


def pictures_of_signs(signs: SignSet, source: str) -> Pictures:
    """Return the pictures of a split of the sign data.

    Raises:
        AssessmentError: If its tracks are not known.
    """
    if not all(record.track for record in signs.records):
        msg = (
            f"{source}: its tracks are not known, so that nothing says which pictures depend on "
            "each other; take val, or a drive"
        )
        raise AssessmentError(msg)
    pairs = ((signs.image(index), record.track) for index, record in enumerate(signs.records))
    return Pictures(source, "track", pairs)


def pictures_of_drive(path: Path, spec: InputSpec) -> Pictures:
    """Return the regions of all cameras of a drive, or its whole frames where it has no regions."""
    return Pictures(
        path.name,
        f"track of a region, or {STRETCH_NS // 1_000_000_000} s of a camera where it has none",
        _regions(path, spec),
    )


def _regions(path: Path, spec: InputSpec) -> Iterator[tuple[Image, str]]:
    with open_drive(path) as drive:
        for paired in _paired(drive):
            try:
                picture = decode(camera_frame(paired.recorded))
                cuts = cut_out(picture, paired.regions, spec)
            except FrameError:
                continue  # as the vehicle does
            planes = (
                [0, 0, 0]
                if picture.order == "mono"
                else [picture.order.index(channel) for channel in "bgr"]
            )
            for index, cut in cuts.items():
                track = paired.regions.ids[index] if paired.regions is not None else ""
                group = f"id {track}" if track else f"stretch {paired.stamp_ns // STRETCH_NS}"
                rows, columns = cut.shape[:2]
                image = cut.reshape(rows, columns, -1)[..., planes]
                yield image, f"{paired.camera.topic} {group}"


def _paired(drive: Drive) -> Iterator[Paired]:
    cameras = cameras_of(drive.topics)
    topics = {topic for each in cameras for topic in (each.topic, each.regions_topic) if topic}
    pairing = Pairing()
    for recorded in drive.messages(topics):
        for camera in cameras:
            if recorded.topic == camera.topic:
                pairing.add_frame(camera, recorded, stamp_of(recorded.message))
            if recorded.topic == camera.regions_topic:
                pairing.add_regions(camera, *regions_of(recorded))
        yield from pairing.ready(recorded.log_time_ns)
    yield from pairing.rest()
