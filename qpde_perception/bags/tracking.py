"""Track identifiers for labelled boxes of consecutive frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class Tracker:
    """Gives the same physical sign the same identifier through one burst.

    A box takes over the track of the nearest box of the same label in the frame before, nearest
    pairs first: signs move too far between the frames of a burst for their boxes to overlap.

    Args:
        prefix: The beginning of every identifier.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._count = 0
        self._last: list[tuple[tuple[float, float], str, str]] = []

    def update(self, boxes: Sequence[Sequence[float]], labels: Sequence[str]) -> tuple[str, ...]:
        """Return an identifier for each box of the next frame.

        Args:
            boxes: x_min, y_min, x_max, y_max in pixels.
            labels: What each box shows.
        """
        centers = [((box[0] + box[2]) / 2, (box[1] + box[3]) / 2) for box in boxes]
        pairs = sorted(
            ((x - old_x) ** 2 + (y - old_y) ** 2, index, track)
            for index, (x, y) in enumerate(centers)
            for (old_x, old_y), label, track in self._last
            if label == labels[index]
        )
        found: dict[int, str] = {}
        for _, index, track in pairs:
            if index not in found and track not in found.values():
                found[index] = track
        for index in range(len(boxes)):
            if index not in found:
                found[index] = f"{self._prefix}.{self._count}"
                self._count += 1
        ids = tuple(found[index] for index in range(len(boxes)))
        self._last = list(zip(centers, labels, ids, strict=True))
        return ids
