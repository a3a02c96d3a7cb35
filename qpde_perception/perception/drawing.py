"""Drawing of boxes and classes on a frame, for people to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from qpde_perception.frames import decode

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qpde_perception.frames import CameraFrame
    from qpde_perception.perception.values import Perception

_BOX = (80, 220, 80)
_TEXT = (255, 255, 255)
_SHADE = (40, 40, 40)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw(frame: CameraFrame, perception: Perception, labels: tuple[str, ...]) -> NDArray[np.uint8]:
    """Return the frame in full resolution with its results, BGR uint8, shape (rows, columns, 3).

    Raises:
        FrameError: If the frame cannot be decoded.
    """
    picture = decode(frame)
    channels = (
        [0, 0, 0]
        if picture.order == "mono"
        else [picture.order.index(channel) for channel in "bgr"]
    )
    rows, columns = picture.height, picture.width
    canvas = picture.pixels.reshape(rows, columns, -1)[..., channels].copy()
    scale = max(rows / 1080, 0.4)
    for region in perception.regions:
        corner = (0, 0)
        if region.box is not None:
            low = (round(region.box[0]), round(region.box[1]))
            high = (round(region.box[2]), round(region.box[3]))
            cv2.rectangle(canvas, low, high, _BOX, 2)
            corner = low
        text = f"{labels[region.filtered_class_index]} {region.filtered_probability:.0%}"
        (width, height), base = cv2.getTextSize(text, _FONT, scale, 1)
        left, bottom = corner[0], max(corner[1], height + base)
        cv2.rectangle(canvas, (left, bottom - height - base), (left + width, bottom), _SHADE, -1)
        cv2.putText(canvas, text, (left, bottom - base), _FONT, scale, _TEXT, 1, cv2.LINE_AA)
    return np.asarray(canvas, np.uint8)
