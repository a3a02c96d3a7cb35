"""Camera frames to profile with: made, the same in every run."""

from __future__ import annotations

import re
from dataclasses import dataclass

import cv2
import numpy as np

from qpde_perception.frames import CameraFrame, Regions
from qpde_perception.profiling.errors import ProfilingError

SIZES = {"480p": (640, 480), "720p": (1280, 720), "1080p": (1920, 1080), "2160p": (3840, 2160)}
_SOURCE = re.compile(r"(raw|jpeg):(?:(\d+)x(\d+)|(\d+p))")
_JPEG_QUALITY = 90
_LEAST, _MOST = 64, 8192


@dataclass(frozen=True, slots=True)
class Source:
    """Encoding and size of a camera's frames.

    Attributes:
        encoding: `bgr8` or `jpeg`.
        width: Columns.
        height: Rows.
    """

    encoding: str
    width: int
    height: int

    @property
    def name(self) -> str:
        """What a profile calls it."""
        kind = "jpeg" if self.encoding == "jpeg" else "raw"
        return f"{kind} {self.width}x{self.height}"

    @classmethod
    def parsed(cls, text: str) -> Source:
        """Read `jpeg:1280x720`, `raw:1080p` and the like.

        Raises:
            ProfilingError: If the text is something else.
        """
        match = _SOURCE.fullmatch(text)
        if match is None or (match[4] and match[4] not in SIZES):
            msg = (
                f"source {text!r}: give raw:WIDTHxHEIGHT or jpeg:WIDTHxHEIGHT, or a size of "
                f"{', '.join(SIZES)} in its place"
            )
            raise ProfilingError(msg)
        width, height = SIZES[match[4]] if match[4] else (int(match[2]), int(match[3]))
        if not (_LEAST <= width <= _MOST and _LEAST <= height <= _MOST):
            msg = f"source {text!r}: give sizes from {_LEAST} to {_MOST} pixels"
            raise ProfilingError(msg)
        return cls("jpeg" if match[1] == "jpeg" else "bgr8", width, height)


def frames_of(source: Source, count: int) -> list[CameraFrame]:
    """Make frames of a scene: a sky, a road, shapes and the noise of a sensor.

    A JPEG of pure noise would take several times as long to decode as a camera's.

    Args:
        source: Encoding and size.
        count: Number of different frames.
    """
    rng = np.random.default_rng(0)
    height, width = source.height, source.width
    frames = []
    for number in range(count):
        rows = np.linspace(200.0, 90.0, height, dtype=np.float32)[:, None, None]
        picture = np.broadcast_to(rows, (height, width, 3)).astype(np.uint8)
        for _ in range(60):
            corner = rng.integers(0, (width, height))
            size = rng.integers(height // 40, height // 6, 2)
            colour = rng.integers(30, 220, 3).tolist()
            cv2.rectangle(picture, corner, corner + size, colour, thickness=-1)
        noise = rng.integers(-6, 7, picture.shape, np.int16)
        picture = np.clip(picture + noise, 0, 255).astype(np.uint8)
        step, data = width * 3, picture.tobytes()
        if source.encoding == "jpeg":
            quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
            step, data = 0, cv2.imencode(".jpg", picture, quality)[1].tobytes()
        stamp_ns = (number + 1) * 33_333_333
        frames.append(
            CameraFrame(stamp_ns, "profile", source.encoding, height, width, step, memoryview(data))
        )
    return frames


def regions_of(source: Source, count: int) -> Regions:
    """Return boxes a tenth of the frame's height wide, spread over the frame."""
    side = source.height / 10
    places = (np.arange(count) * 0.618033988) % 1.0, (np.arange(count) * 0.754877666) % 1.0
    x, y = places[0] * (source.width - side), places[1] * (source.height - side)
    boxes = np.stack([x, y, x + side, y + side], axis=1).astype(np.float32)
    return Regions(boxes, tuple(f"track-{number}" for number in range(count)))
