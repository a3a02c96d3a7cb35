"""What perception says of a frame."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class RegionResult:
    """The class of one region, as seen in this frame and as filtered over time.

    Attributes:
        box: x_min, y_min, x_max, y_max as the detector gave them, in pixels of the full-resolution
            frame; None for the whole frame.
        track_id: The detector's track identifier, empty where it does not track.
        class_index: Most probable class in this frame.
        label: Its name.
        probability: Its softmax probability, between 0 and 1.
        filtered_class_index: Most probable class after the temporal filter.
        filtered_probability: Its filtered probability, between 0 and 1.
        probabilities: Of every class in this frame, shape (classes,).
        filtered_probabilities: Of every class after the temporal filter, shape (classes,).
    """

    box: tuple[float, float, float, float] | None
    track_id: str
    class_index: int
    label: str
    probability: float
    filtered_class_index: int
    filtered_probability: float
    probabilities: NDArray[np.float64] = field(compare=False, repr=False)
    filtered_probabilities: NDArray[np.float64] = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Perception:
    """The result for one frame.

    Attributes:
        stamp_ns: Capture time of the frame in the source's clock, nanoseconds.
        frame_id: Coordinate frame of the camera.
        regions: One result per usable region, in the detector's order.
        stages_ms: Milliseconds by a monotonic clock: `total`, and `decode`, `prepare`, `infer` and
            `postprocess`; a frame without a usable region has no `infer`. Where a pipeline works
            ahead, `infer` is the share of the engine's time that the frame's items have of their
            batch, and the time that the frame waited is in none of them.
        rejected: Indexes of the detector's regions that had no part in the frame.
    """

    stamp_ns: int
    frame_id: str
    regions: tuple[RegionResult, ...]
    stages_ms: dict[str, float]
    rejected: tuple[int, ...] = ()
