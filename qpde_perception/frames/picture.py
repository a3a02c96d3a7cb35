"""A decoded picture, before it is cropped and resized."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Order = Literal["bgr", "rgb", "bgra", "rgba", "mono"]


@dataclass(frozen=True, slots=True)
class Picture:
    """Pixels of a frame; for encodings with plain pixels, a view on the frame's own memory.

    Attributes:
        pixels: uint8, shape (rows, columns, channels), or (rows, columns) where `order` is `mono`;
            rows may be padded, so it need not be contiguous.
        order: Order of the channels.
        scale: Reduction against the full resolution: 1, 2, 4 or 8; rows = ceil(height / scale).
        height: Rows of the full-resolution frame, pixels.
        width: Columns of the full-resolution frame, pixels.
    """

    pixels: NDArray[np.uint8]
    order: Order
    scale: int
    height: int
    width: int
