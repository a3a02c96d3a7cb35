"""Regions of a frame: the boxes that a detector found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Regions:
    """Boxes in pixels of the full-resolution frame.

    Attributes:
        boxes: Shape (n, 4), float32: x_min, y_min, x_max, y_max.
        ids: One track identifier per box, empty strings where the detector does not track.
    """

    boxes: NDArray[np.float32]
    ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)
