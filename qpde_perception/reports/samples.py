"""Sample frames of a replay, with the results drawn in."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import cv2
import numpy as np

from qpde_perception.frames import FrameError, decode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from qpde_perception.frames import CameraFrame, Picture
    from qpde_perception.perception import Perception

LONG_SIDE = 640
_WANTED = 8
_TO_BGR = {
    "rgb": cv2.COLOR_RGB2BGR,
    "bgra": cv2.COLOR_BGRA2BGR,
    "rgba": cv2.COLOR_RGBA2BGR,
    "mono": cv2.COLOR_GRAY2BGR,
}
_GREEN = (80, 220, 60)
_BLACK = (0, 0, 0)


class Seen(Protocol):
    """What is drawn of a region."""

    @property
    def box(self) -> tuple[float, float, float, float] | None:
        """x_min, y_min, x_max, y_max in pixels of the frame; None for the whole frame."""

    @property
    def label(self) -> str:
        """What the model says."""

    @property
    def probability(self) -> float:
        """Its probability, between 0 and 1."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A drawn frame.

    Attributes:
        caption: Where it comes from and what the model sees, for people.
        jpeg: The picture with the boxes drawn in.
    """

    caption: str
    jpeg: bytes


@dataclass(slots=True)
class SampleFrames:
    """Keeps a few frames spread evenly over a drive, preferring frames that show something.

    Attributes:
        expected: Number of frames that the drive will bring, as far as known.
        samples: What was kept.
    """

    expected: int
    samples: list[Sample] = field(default_factory=list)
    _seen: int = 0

    def offer(self, frame: CameraFrame, perception: Perception, caption: str) -> None:
        """Keep a frame if it is time for the next one.

        Args:
            frame: A frame that was classified.
            perception: Its results.
            caption: Where it comes from.
        """
        due = len(self.samples) * self.expected <= self._seen * _WANTED
        self._seen += 1
        if len(self.samples) < _WANTED and due and perception.regions:
            # A JPEG that lacks its last rows may pass at the scale that the network needs, and
            # show its fault at the one that is drawn here.
            with suppress(FrameError):
                seen = (f"{one.label} {one.probability:.0%}" for one in perception.regions)
                jpeg = draw_frame(frame, perception.regions)
                self.samples.append(Sample(f"{caption}: {', '.join(seen)}", jpeg))


def draw_frame(frame: CameraFrame, regions: Sequence[Seen]) -> bytes:
    """Return a frame with its results drawn in, as JPEG.

    Raises:
        FrameError: If it cannot be decoded.
    """
    picture = decode(frame, minimum=(LONG_SIDE, LONG_SIDE))
    canvas = _canvas(picture)
    scale = canvas.shape[1] / picture.width
    for region in regions:
        text = f"{region.label} {region.probability:.0%}"
        corner = (0, 0)
        if region.box is not None:
            # A detector's box may reach far beyond the frame; OpenCV counts in 32 bits.
            limits = np.tile(canvas.shape[1::-1], 2)
            sides = np.clip(np.multiply(region.box, scale), -8, limits + 8).round().astype(int)
            x_min, y_min, x_max, y_max = sides.tolist()
            cv2.rectangle(canvas, (x_min, y_min), (x_max, y_max), _GREEN, 2)
            corner = (x_min, y_min)
        _write(canvas, text, corner)
    return cv2.imencode(".jpg", canvas, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()


def _canvas(picture: Picture) -> NDArray[np.uint8]:
    """Return the picture in BGR, its longer side `LONG_SIDE` pixels."""
    scale = LONG_SIDE / max(picture.height, picture.width)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    small = cv2.resize(picture.pixels, size, interpolation=cv2.INTER_AREA)
    if picture.order in _TO_BGR:
        small = cv2.cvtColor(small, _TO_BGR[picture.order])
    return np.ascontiguousarray(small, np.uint8)


def _write(canvas: NDArray[np.uint8], text: str, corner: tuple[int, int]) -> None:
    """Write on a filled ground above a corner, kept inside the picture."""
    # OpenCV's font has ASCII only.
    text = text.encode("ascii", "replace").decode()
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)
    x = max(0, min(corner[0], canvas.shape[1] - width - 4))
    y = max(height + 8, corner[1])
    cv2.rectangle(canvas, (x, y - height - 8), (x + width + 4, y), _GREEN, cv2.FILLED)
    cv2.putText(canvas, text, (x + 2, y - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.5, _BLACK, 1, cv2.LINE_AA)
