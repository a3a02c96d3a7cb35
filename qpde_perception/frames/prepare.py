"""Preparation of the network's input: crop, resize, order the channels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from qpde_perception.frames.errors import FrameError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qpde_perception.frames.input_spec import InputSpec
    from qpde_perception.frames.picture import Picture
    from qpde_perception.frames.regions import Regions

Box = tuple[float, float, float, float]

_INTERPOLATION = {"area": cv2.INTER_AREA, "linear": cv2.INTER_LINEAR}
# A picture reduced by the JPEG decoder keeps at least this multiple of the network's input, so
# that the resize after it still averages.
_OVERSAMPLING = 2
# Samples along each side of one of the network's pixels; a picture with twice as many is sampled.
_SAMPLES = 4


@dataclass(frozen=True, slots=True)
class Prepared:
    """The network's input, and how each item maps back.

    Attributes:
        batch: uint8, shape (n, height, width, 3), C-contiguous; n is 0 where no box was usable.
        boxes: Per item the box as the detector gave it, in pixels of the full-resolution frame;
            None for the whole frame.
        ids: Per item the track identifier, empty where there is none.
        rejected: Indexes of the regions left out: not finite, without area, or outside the frame.
    """

    batch: NDArray[np.uint8]
    boxes: tuple[Box | None, ...]
    ids: tuple[str, ...]
    rejected: tuple[int, ...]


def resize(pixels: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.uint8]:
    """Resize to the network's input; training and the vehicle both call this function.

    The aspect ratio is not kept.

    Args:
        pixels: uint8, shape (rows, columns, channels) or (rows, columns), both at least 1.
        spec: The network's input.

    Returns:
        uint8, (height, width) of the input with the channels unchanged, in the order they had.
    """
    size = (spec.width, spec.height)
    if spec.interpolation == "area":
        pixels = _sampled(pixels, size)
    return np.asarray(
        cv2.resize(pixels, size, interpolation=_INTERPOLATION[spec.interpolation]), np.uint8
    )


def _sampled(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Leave out of a large picture what the average over it can do without.

    Each pixel of the network's is then the average of four by four samples, each interpolated
    between its neighbours. On a road this differs from the average of all pixels by one or two grey
    levels (root mean square), and takes a twentieth of the time.

    Args:
        pixels: uint8, shape (rows, columns, channels) or (rows, columns).
        size: Columns and rows of the network's input.
    """
    rows, columns = (
        _SAMPLES * wanted if own >= 2 * _SAMPLES * wanted else own
        for own, wanted in zip(pixels.shape, reversed(size), strict=False)
    )
    if (rows, columns) == pixels.shape[:2]:
        return pixels
    sampled = cv2.resize(pixels, (columns, rows), interpolation=cv2.INTER_LINEAR)
    return np.asarray(sampled, np.uint8)


def minimum_size(
    size: tuple[int, int], regions: Regions | None, spec: InputSpec
) -> tuple[int, int]:
    """Return the least size to decode a frame at, such that nothing the network sees is lost.

    The smallest region, or the whole frame, keeps at least twice the rows and columns of the
    network's input; a region that has fewer asks for more than the frame has.

    Args:
        size: Rows and columns of the full-resolution frame.
        regions: The boxes; None for the whole frame.
        spec: The network's input.

    Returns:
        Rows and columns of the whole frame: the `minimum` of `decode`.

    Raises:
        FrameError: If the regions contradict themselves.
    """
    height, width = size
    crops = _crops(regions, size, 1, spec).values()
    rows = min((rows.stop - rows.start for rows, _ in crops), default=height)
    columns = min((columns.stop - columns.start for _, columns in crops), default=width)
    return (
        math.ceil(_OVERSAMPLING * spec.height * height / rows),
        math.ceil(_OVERSAMPLING * spec.width * width / columns),
    )


def prepare(picture: Picture, regions: Regions | None, spec: InputSpec) -> Prepared:
    """Cut out and resize what the network shall see.

    Each box is grown by `spec.region_margin` on each side, cut off at the border of the frame and
    rounded to pixels, at least one. A box that has no part in the frame is left out: one bad box
    does not cost the frame.

    Args:
        picture: The decoded frame.
        regions: The boxes; None for the whole frame.
        spec: The network's input.

    Raises:
        FrameError: If the regions contradict themselves.
    """
    cuts = cut_out(picture, regions, spec)
    # Pairs for OpenCV: from which channel of the picture to which of the input.
    moves: list[int] = []
    for to, channel in enumerate(spec.channel_order):
        moves += (0 if picture.order == "mono" else picture.order.index(channel), to)
    batch = np.empty((len(cuts), spec.height, spec.width, 3), np.uint8)
    for item, cut in zip(batch, cuts.values(), strict=True):
        cv2.mixChannels([resize(cut, spec)], [item], moves)
    if regions is None:
        return Prepared(batch, (None,), ("",), ())
    return Prepared(
        batch,
        boxes=tuple(_box(regions, index) for index in cuts),
        ids=tuple(regions.ids[index] for index in cuts),
        rejected=tuple(index for index in range(len(regions)) if index not in cuts),
    )


def cut_out(
    picture: Picture, regions: Regions | None, spec: InputSpec
) -> dict[int, NDArray[np.uint8]]:
    """Return what `prepare` resizes: views on the picture, by the index of the region.

    Args:
        picture: The decoded frame.
        regions: The boxes; None for the whole frame.
        spec: The network's input.

    Raises:
        FrameError: If the regions contradict themselves.
    """
    crops = _crops(regions, (picture.height, picture.width), picture.scale, spec)
    return {index: picture.pixels[crop] for index, crop in crops.items()}


def _crops(
    regions: Regions | None, size: tuple[int, int], scale: int, spec: InputSpec
) -> dict[int, tuple[slice, slice]]:
    """Return the part of the picture that each usable region covers, by the region's index."""
    if regions is None:
        height, width = size
        return {0: (slice(0, -(-height // scale)), slice(0, -(-width // scale)))}
    if regions.boxes.shape != (len(regions), 4):
        msg = f"regions: {len(regions)} ids for boxes of shape {regions.boxes.shape}"
        raise FrameError(msg)
    crops = {}
    for index in range(len(regions)):
        x_min, y_min, x_max, y_max = _box(regions, index)
        rows = _span(y_min, y_max, size[0], scale, spec.region_margin)
        columns = _span(x_min, x_max, size[1], scale, spec.region_margin)
        if rows is not None and columns is not None:
            crops[index] = rows, columns
    return crops


def _span(low: float, high: float, length: int, scale: int, margin: float) -> slice | None:
    """Return the pixels that an interval covers, or None where it has no part in the frame."""
    if not (math.isfinite(low) and math.isfinite(high)) or max(low, 0.0) >= min(high, length):
        return None
    grown = margin * (high - low)
    pixels = -(-length // scale)
    start = min(round(max(low - grown, 0.0) / scale), pixels - 1)
    stop = min(max(round(min(high + grown, length) / scale), start + 1), pixels)
    return slice(start, stop)


def _box(regions: Regions, index: int) -> Box:
    x_min, y_min, x_max, y_max = regions.boxes[index].tolist()
    return x_min, y_min, x_max, y_max
