"""Making a drive from pictures that were never recorded as one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np

from qpde_perception.bags.definitions import COMPRESSED_IMAGE, IMAGE, typestore
from qpde_perception.bags.errors import BagError
from qpde_perception.bags.messages import detections, header_of
from qpde_perception.bags.sources import open_source, shot_pixels
from qpde_perception.bags.writer import McapWriter
from qpde_perception.frames import Regions

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from qpde_perception.bags.sources import LabelledBox, Shot

START_NS = 1_600_000_000_000_000_000
CLIP_GAP_NS = 2_000_000_000
CAMERA = "/camera/front"
FRAME_ID = "camera_front"
_JPEG_QUALITY = 90
_JPEG_MAGIC = b"\xff\xd8\xff"


@dataclass(frozen=True, slots=True)
class MadeDrive:
    """What a made drive holds.

    Attributes:
        path: The file.
        frames: Pictures written.
        clips: Uninterrupted sequences; `CLIP_GAP_NS` lies between them.
        boxes_per_class: Labelled boxes of each class index.
    """

    path: Path
    frames: int
    clips: int
    boxes_per_class: dict[int, int]


def make_drive(
    source: Path,
    out: Path,
    *,
    rate_hz: float = 10.0,
    encoding: Literal["jpeg", "raw"] = "jpeg",
    parts: Collection[str] | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> MadeDrive:
    """Write a drive with one front camera; where the source has labels, with regions and truth.

    The stamps are invented: they begin at `START_NS` and follow the rate. JPEG files go into a
    JPEG drive as they are. The same source gives the same bytes.

    Args:
        source: See `sources.open_source`.
        out: The MCAP file to write.
        rate_hz: Frames per second within a clip.
        encoding: `jpeg` for CompressedImage, `raw` for Image in bgr8.
        parts: The bursts or tracks to take (see `sources.choose_bursts`); None takes all.
        overwrite: Whether a file that is there may be replaced.
        progress: Called with the frames done and their number (0: not known).

    Raises:
        BagError: If the source cannot be read, the file exists, or it cannot be written.
    """
    if not 0.001 <= rate_hz <= 1000:
        msg = f"a rate of {rate_hz} Hz is none that a camera has; give 0.001 to 1000"
        raise BagError(msg)
    if out.exists() and not overwrite:
        msg = f"{out} exists; name another file, or replace it with --overwrite"
        raise BagError(msg)
    if out.exists() and out.samefile(source):
        msg = f"{out} is the source as well; name another file"
        raise BagError(msg)
    opened = open_source(source, parts)
    stamp_ns, in_clip, frames, clips = START_NS, 0, 0, 0
    clip_start_ns, clip = START_NS, None
    classes: Counter[int] = Counter()
    with McapWriter(out, compress=encoding == "raw") as writer:
        for shot in opened.shots:
            if shot.clip != clip:
                clip_start_ns = stamp_ns + CLIP_GAP_NS if clips else START_NS
                clip, in_clip, clips = shot.clip, 0, clips + 1
            stamp_ns = clip_start_ns + round(in_clip * 1_000_000_000 / rate_hz)
            _write_image(writer, shot, stamp_ns, encoding)
            if shot.boxes is not None:
                _write_boxes(writer, shot.boxes, stamp_ns)
                classes.update(box.class_index for box in shot.boxes)
            in_clip, frames = in_clip + 1, frames + 1
            if progress is not None:
                progress(frames, opened.count)
    return MadeDrive(out, frames, clips, dict(sorted(classes.items())))


def _write_image(
    writer: McapWriter, shot: Shot, stamp_ns: int, encoding: Literal["jpeg", "raw"]
) -> None:
    types, header = typestore().types, header_of(stamp_ns, FRAME_ID)
    if encoding == "jpeg":
        data = np.frombuffer(_jpeg(shot), np.uint8)
        message = types[COMPRESSED_IMAGE](header=header, format="jpeg", data=data)
        writer.write(f"{CAMERA}/image/compressed", message, stamp_ns)
        return
    pixels = shot_pixels(shot)
    height, width = pixels.shape[:2]
    message = types[IMAGE](
        header=header,
        height=height,
        width=width,
        encoding="bgr8",
        is_bigendian=0,
        step=3 * width,
        data=np.ascontiguousarray(pixels).reshape(-1),
    )
    writer.write(f"{CAMERA}/image", message, stamp_ns)


def _write_boxes(writer: McapWriter, boxes: tuple[LabelledBox, ...], stamp_ns: int) -> None:
    corners = np.array([each.box for each in boxes], np.float32).reshape(-1, 4)
    regions = Regions(corners, tuple(each.track_id for each in boxes))
    truth = [each.class_index for each in boxes]
    writer.write(f"{CAMERA}/regions", detections(stamp_ns, FRAME_ID, regions), stamp_ns)
    labelled = detections(stamp_ns, FRAME_ID, regions, truth)
    writer.write(f"{CAMERA}/ground_truth", labelled, stamp_ns)


def _jpeg(shot: Shot) -> bytes:
    if isinstance(shot.image, bytes) and shot.image.startswith(_JPEG_MAGIC):
        return shot.image
    good, data = cv2.imencode(".jpg", shot_pixels(shot), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    if not good:
        msg = f"{shot.name} cannot be encoded as JPEG"
        raise BagError(msg)
    return bytes(data)
