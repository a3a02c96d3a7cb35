"""Frames of a camera that is not there: from pictures, a video, a drive, or a moving pattern."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING

import cv2
import numpy as np

from qpde_perception.bags.cameras import cameras_of
from qpde_perception.bags.drive import open_drive
from qpde_perception.bags.errors import BagError
from qpde_perception.bags.messages import camera_frame
from qpde_perception.bags.opening import is_recording
from qpde_perception.bags.sources import open_source, shot_pixels
from qpde_perception.frames import CameraFrame, FrameError, decode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from qpde_perception.frames.picture import Order

    Pixels = NDArray[np.uint8]

PATTERN_SIZE = (480, 640)
# From BGR; None where the pixels are sent as they are.
_CONVERSIONS = {
    "bgr8": None,
    "rgb8": cv2.COLOR_BGR2RGB,
    "bgra8": cv2.COLOR_BGR2BGRA,
    "rgba8": cv2.COLOR_BGR2RGBA,
    "mono8": cv2.COLOR_BGR2GRAY,
    "uyvy": cv2.COLOR_BGR2YUV_UYVY,
    "yuyv": cv2.COLOR_BGR2YUV_YUY2,
}
_TO_BGR: dict[Order, int | None] = {
    "bgr": None,
    "rgb": cv2.COLOR_RGB2BGR,
    "bgra": cv2.COLOR_BGRA2BGR,
    "rgba": cv2.COLOR_RGBA2BGR,
    "mono": cv2.COLOR_GRAY2BGR,
}
_FILES = {"jpeg": ".jpg", "png": ".png"}
ENCODINGS = (*_CONVERSIONS, *_FILES)


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong with a camera.

    Attributes:
        drop_share: Share of frames that never come, 0 to 1.
        corrupt_share: Share of frames of which only the beginning comes, 0 to 1.
        freeze_after: Frames after which the picture stays the same; 0 for never.
        seed: Equal seeds give equal faults.
    """

    drop_share: float = 0.0
    corrupt_share: float = 0.0
    freeze_after: int = 0
    seed: int = 0


def simulated_camera(
    source: Path | None,
    encoding: str,
    *,
    camera: int = 0,
    size: tuple[int, int] | None = None,
) -> Iterator[CameraFrame]:
    """Yield the frames of a camera without end, without stamps and names.

    Args:
        source: A folder of images, a video, a zip of `open_source`, or a recorded drive, shown
            again from the start when it ends; None for a moving pattern.
        encoding: One of `ENCODINGS`.
        camera: Which camera it is: of a drive, the camera of this number, or of those there are in
            turn; the pattern tells cameras apart.
        size: (height, width) to make the pictures, pixels; None leaves them, and the pattern gets
            `PATTERN_SIZE`.

    Raises:
        BagError: If the source cannot be read or has no picture; raised with the first frame.
    """
    if source is None:
        pictures = _pattern(camera, size or PATTERN_SIZE)
    else:
        pictures = _again_and_again(source, camera)
    for picture in pictures:
        pixels = picture
        if size is not None and pixels.shape[:2] != size:
            pixels = np.asarray(cv2.resize(pixels, size[::-1]), np.uint8)
        yield encoded(pixels, encoding)


def encoded(pixels: Pixels, encoding: str) -> CameraFrame:
    """Return a frame of some pixels, without stamp and name.

    Args:
        pixels: uint8 (height, width, 3), BGR; an odd last column is left out where the encoding
            joins columns in pairs.
        encoding: One of `ENCODINGS`.
    """
    if encoding in _FILES:
        _, file = cv2.imencode(_FILES[encoding], pixels)
        return CameraFrame(0, "", encoding, height=0, width=0, step=0, data=file.data)
    if encoding in {"uyvy", "yuyv"}:
        pixels = pixels[:, : pixels.shape[1] // 2 * 2]
    conversion = _CONVERSIONS[encoding]
    rows = np.ascontiguousarray(pixels if conversion is None else cv2.cvtColor(pixels, conversion))
    height, width = rows.shape[:2]
    data = rows.reshape(-1).data
    return CameraFrame(0, "", encoding, height, width, step=rows.strides[0], data=data)


def with_faults(frames: Iterable[CameraFrame], faults: Faults) -> Iterator[CameraFrame | None]:
    """Yield the frames as a faulty camera sends them, None for one that does not come."""
    random = Random(faults.seed)  # noqa: S311  # the same faults every time
    held = None
    for number, arrived in enumerate(frames):
        if held is None or not faults.freeze_after or number < faults.freeze_after:
            held = arrived
        # Always as many numbers per frame, so that one fault does not move another.
        dropped, corrupt, rest = random.random(), random.random(), random.random()
        if dropped < faults.drop_share:
            yield None
        elif corrupt < faults.corrupt_share:
            yield replace(held, data=held.data[: int(rest * len(held.data))])
        else:
            yield held


def _again_and_again(source: Path, camera: int) -> Iterator[Pixels]:
    while True:
        empty = True
        for pixels in _from_drive(source, camera) if _is_drive(source) else _from_shots(source):
            empty = False
            yield pixels
        if empty:
            msg = f"{source}: not one of its pictures can be decoded"
            raise BagError(msg)


def _is_drive(source: Path) -> bool:
    if source.is_dir():
        return any(is_recording(each) for each in source.iterdir() if each.is_file())
    return source.is_file() and is_recording(source)


def _from_drive(source: Path, camera: int) -> Iterator[Pixels]:
    with open_drive(source) as drive:
        cameras = cameras_of(drive.topics)
        topic = cameras[camera % len(cameras)].topic
        for recorded in drive.messages([topic]):
            try:
                picture = decode(camera_frame(recorded))
            except FrameError:
                continue
            conversion = _TO_BGR[picture.order]
            if conversion is None:
                yield picture.pixels
            else:
                yield np.asarray(cv2.cvtColor(picture.pixels, conversion), np.uint8)


def _from_shots(source: Path) -> Iterator[Pixels]:
    for shot in open_source(source).shots:
        yield shot_pixels(shot)


def _pattern(camera: int, size: tuple[int, int]) -> Iterator[Pixels]:
    """Yield a colour gradient that moves by one pixel a frame, with a bright square before it."""
    height, width = size
    rows, columns = np.mgrid[:height, :width]
    side = max(1, min(height, width) // 4)
    number = 0
    while True:
        blue = (columns + number) % 256
        green = (rows + 40 * camera) % 256
        red = np.full_like(rows, 60 * camera % 256)
        pixels = np.stack((blue, green, red), axis=2).astype(np.uint8)
        left = number % (width - side + 1)
        top = (height - side) // 2
        pixels[top : top + side, left : left + side] = 255
        yield pixels
        number += 1
