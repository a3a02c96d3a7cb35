"""Pairing of camera frames with the regions that a detector found in them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from qpde_perception.frames import Regions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qpde_perception.bags.cameras import Camera
    from qpde_perception.bags.drive import RecordedMessage

# A detector needs time: its boxes may be recorded after the image. Nobody's takes longer.
WAIT_NS = 500_000_000
MAX_WAITING_BYTES = 256 * 2**20
MAX_UNCLAIMED = 1024


@dataclass(frozen=True, slots=True)
class Paired:
    """A frame whose turn has come.

    Attributes:
        camera: The camera.
        recorded: The image as recorded.
        stamp_ns: Stamp of its header.
        regions: The boxes of exactly this stamp, empty where none came; None for a camera whose
            whole frames are classified.
    """

    camera: Camera
    recorded: RecordedMessage
    stamp_ns: int
    regions: Regions | None


@dataclass(slots=True)
class Pairing:
    """Holds frames back until their regions come, for a short time and in bounded memory.

    Frames leave in the order they came, whatever order the regions come in.
    """

    _waiting: deque[tuple[Camera, RecordedMessage, int]] = field(default_factory=deque)
    _waiting_bytes: int = 0
    _regions: dict[tuple[str, int], Regions] = field(default_factory=dict)

    def add_frame(self, camera: Camera, recorded: RecordedMessage, stamp_ns: int) -> None:
        """Add a frame to the end of the queue."""
        self._waiting.append((camera, recorded, stamp_ns))
        self._waiting_bytes += len(recorded.raw)

    def add_regions(self, camera: Camera, stamp_ns: int, regions: Regions) -> None:
        """Add the regions of the frame with this stamp, which may come later or never."""
        self._regions[camera.topic, stamp_ns] = regions
        if len(self._regions) > MAX_UNCLAIMED:
            del self._regions[next(iter(self._regions))]

    def ready(self, now_ns: int) -> Iterator[Paired]:
        """Yield the frames that need not wait any longer.

        Args:
            now_ns: Log time that the drive has reached.
        """
        while self._waiting:
            camera, recorded, stamp_ns = self._waiting[0]
            if (
                camera.regions_topic is not None
                and (camera.topic, stamp_ns) not in self._regions
                and now_ns - recorded.log_time_ns <= WAIT_NS
                and self._waiting_bytes <= MAX_WAITING_BYTES
            ):
                return
            yield self._leave()

    def rest(self) -> Iterator[Paired]:
        """Yield the frames that still wait, because the drive has ended."""
        while self._waiting:
            yield self._leave()

    def _leave(self) -> Paired:
        camera, recorded, stamp_ns = self._waiting.popleft()
        self._waiting_bytes -= len(recorded.raw)
        regions = self._regions.pop((camera.topic, stamp_ns), None)
        if regions is None and camera.regions_topic is not None:
            regions = Regions(np.empty((0, 4), np.float32), ())
        return Paired(camera, recorded, stamp_ns, regions)
