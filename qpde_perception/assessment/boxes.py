"""Signs of another country: boxes in whole frames, with the signs that the model does not know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qpde_perception.bags import BagError
from qpde_perception.bags.sources import choose_bursts, open_source
from qpde_perception.frames import CameraFrame, Regions, decode, prepare

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from qpde_perception.bags.sources import Shot
    from qpde_perception.frames import InputSpec

SAMPLE_BURSTS_EACH = 2
"""Bursts for each kind of sign in the drive that ships (see its README)."""


@dataclass(frozen=True, slots=True)
class Boxes:
    """What the network sees of the boxes.

    Attributes:
        pixels: uint8, shape (n, height, width, 3), channels in the network's order.
        classes: Class indexes, shape (n,); -1 for a sign that the model does not know.
        shipped: Which boxes are in the sample drive that ships, shape (n,).
    """

    pixels: NDArray[np.uint8]
    classes: NDArray[np.int64]
    shipped: NDArray[np.bool_]

    @property
    def known(self) -> NDArray[np.bool_]:
        """Which boxes show a sign that the model knows, shape (n,)."""
        return self.classes >= 0


def read_boxes(path: Path, spec: InputSpec) -> Boxes:
    """Cut out and resize all boxes of a zip of bursts, as the vehicle does.

    Args:
        path: A zip of bursts with `boxes.csv`, its frames JPEG files.
        spec: The network's input.

    Raises:
        BagError: If it is no such zip, or has no known or no unknown signs.
        FrameError: If a frame cannot be decoded.
    """
    sample = set(choose_bursts(path, SAMPLE_BURSTS_EACH))
    pixels, classes, shipped = [], [], []
    for shot in open_source(path).shots:
        batch, found = _prepared(shot, spec)
        pixels.append(batch)
        classes.append(found)
        shipped.append(np.full(len(found), shot.clip in sample))
    boxes = Boxes(np.concatenate(pixels), np.concatenate(classes), np.concatenate(shipped))
    if boxes.known.all() or not boxes.known.any():
        msg = f"{path}: needs boxes of signs that the model knows, and of others"
        raise BagError(msg)
    return boxes


def _prepared(shot: Shot, spec: InputSpec) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    assert isinstance(shot.image, bytes)
    labelled = shot.boxes or ()
    frame = CameraFrame(0, "", "jpeg", height=0, width=0, step=0, data=memoryview(shot.image))
    corners = np.array([each.box for each in labelled], np.float32).reshape(-1, 4)
    regions = Regions(corners, tuple(each.track_id for each in labelled))
    prepared = prepare(decode(frame), regions, spec)
    classes = np.array([each.class_index for each in labelled], np.int64)
    return prepared.batch, np.delete(classes, prepared.rejected)
