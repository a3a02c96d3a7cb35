"""Pictures of the worst frames, drawn from what the replay recorded of them."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from qpde_perception.bags import BagError, camera_frame, open_drive
from qpde_perception.bags.messages import stamp_of
from qpde_perception.frames import FrameError
from qpde_perception.reports.samples import draw_frame

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from qpde_perception.fleet.merging import LookedAt
    from qpde_perception.fleet.worst import WorstFrame

# As long as a clock's nanoseconds are sure to be in it, however the start is rounded.
_WINDOW_S = 2e-6


def draw_worst(worst: Sequence[LookedAt]) -> list[bytes | None]:
    """Return each frame as JPEG with its results drawn in; None where there is no picture of it."""
    return [_draw(one.result.folder / "perception.mcap", one.frame) for one in worst]


def _draw(bag: Path, frame: WorstFrame) -> bytes | None:
    if frame.log_time_ns is None:
        return None
    with suppress(BagError, FrameError, OSError), open_drive(bag) as drive:
        start_s = max((frame.log_time_ns - drive.start_ns) / 1e9 - _WINDOW_S / 2, 0.0)
        for recorded in drive.messages({frame.topic}, start_s=start_s, duration_s=_WINDOW_S):
            if stamp_of(recorded.message) == frame.stamp_ns:
                return draw_frame(camera_frame(recorded), frame.regions)
    return None
