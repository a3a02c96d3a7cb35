"""Decoding of the raw encodings of `sensor_msgs/Image`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import cv2
import numpy as np

from qpde_perception.frames.errors import FrameError
from qpde_perception.frames.picture import Order, Picture

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qpde_perception.frames.frame import CameraFrame

_INTERLEAVED: dict[str, Order] = {
    "rgb8": "rgb",
    "bgr8": "bgr",
    "rgba8": "rgba",
    "bgra8": "bgra",
}
_MONO = {"mono8": 1, "mono16": 2}
_YUV_422 = {
    "yuv422": cv2.COLOR_YUV2BGR_UYVY,
    "uyvy": cv2.COLOR_YUV2BGR_UYVY,
    "yuv422_yuy2": cv2.COLOR_YUV2BGR_YUY2,
    "yuyv": cv2.COLOR_YUV2BGR_YUY2,
}
_YUV_420 = {"nv12": cv2.COLOR_YUV2BGR_NV12, "nv21": cv2.COLOR_YUV2BGR_NV21}
# OpenCV has two families of names for these; only the one with four letters names the corner that
# ROS names, the older `BayerBG` and the like begin at the second pixel of the second row.
_BAYER = {
    "bayer_rggb8": cv2.COLOR_BayerRGGB2BGR,
    "bayer_bggr8": cv2.COLOR_BayerBGGR2BGR,
    "bayer_gbrg8": cv2.COLOR_BayerGBRG2BGR,
    "bayer_grbg8": cv2.COLOR_BayerGRBG2BGR,
}
RAW_ENCODINGS = (*_INTERLEAVED, *_MONO, *_YUV_422, *_YUV_420, *_BAYER)


def decode_raw(frame: CameraFrame) -> Picture:
    """Decode a frame of raw pixels.

    `rgb8`, `bgr8`, `rgba8`, `bgra8` and `mono8` become views on the frame's memory, `mono16` a view
    on the high byte of each pixel. Luma and chroma (`yuv422` = `uyvy`, `yuv422_yuy2` = `yuyv`,
    `nv12`, `nv21`) are taken as BT.601 with limited range (luma 16 to 235), which is what camera
    drivers send under these names. The height of `nv12` and `nv21` is that of the luma; their data
    have half as many rows again. Bayer patterns are interpolated bilinearly.

    Args:
        frame: A frame of one of `RAW_ENCODINGS`; the last row may lack its padding.

    Raises:
        FrameError: If the size, step and data contradict each other.
    """
    encoding = frame.encoding
    if encoding in _INTERLEAVED:
        order = _INTERLEAVED[encoding]
        return _picture(frame, _rows(frame, (frame.height, frame.width, len(order))), order)
    if encoding in _MONO:
        samples = _rows(frame, (frame.height, frame.width, _MONO[encoding]))
        high_byte = 0 if frame.is_bigendian else -1
        return _picture(frame, samples[..., high_byte], "mono")
    if encoding in _YUV_422:
        _require_even(frame, "width", frame.width)
        packed = _rows(frame, (frame.height, frame.width, 2))
        return _picture(frame, cv2.cvtColor(packed, _YUV_422[encoding]), "bgr")
    if encoding in _YUV_420:
        _require_even(frame, "width", frame.width)
        _require_even(frame, "height", frame.height)
        planes = _rows(frame, (frame.height * 3 // 2, frame.width))
        luma, chroma = planes[: frame.height], planes[frame.height :]
        pairs = chroma.reshape(frame.height // 2, frame.width // 2, 2)
        return _picture(frame, cv2.cvtColorTwoPlane(luma, pairs, _YUV_420[encoding]), "bgr")
    if min(frame.height, frame.width) < 3:
        msg = f"{encoding} of {frame.width}x{frame.height}: a Bayer frame needs 3x3 pixels"
        raise FrameError(msg)
    mosaic = _rows(frame, (frame.height, frame.width))
    return _picture(frame, cv2.cvtColor(mosaic, _BAYER[encoding]), "bgr")


def _rows(frame: CameraFrame, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """View the frame's bytes as rows that begin every `step` bytes."""
    rows, *inner = shape
    row_bytes = math.prod(inner)
    if frame.step < row_bytes:
        msg = (
            f"{frame.encoding} of {frame.width}x{frame.height}: step is {frame.step} bytes, "
            f"a row needs {row_bytes}"
        )
        raise FrameError(msg)
    needed = (rows - 1) * frame.step + row_bytes
    if frame.data.nbytes < needed:
        msg = (
            f"{frame.encoding} of {frame.width}x{frame.height} with step {frame.step}: "
            f"{frame.data.nbytes} bytes of data, {needed} needed"
        )
        raise FrameError(msg)
    strides = (frame.step, *inner[1:], 1)
    view: NDArray[np.uint8] = np.ndarray(shape, np.uint8, buffer=frame.data, strides=strides)
    return view


def _require_even(frame: CameraFrame, name: str, value: int) -> None:
    if value % 2:
        msg = f"{frame.encoding} of {frame.width}x{frame.height}: the {name} must be even"
        raise FrameError(msg)


def _picture(frame: CameraFrame, pixels: NDArray[np.uint8], order: Order) -> Picture:
    return Picture(pixels, order, scale=1, height=frame.height, width=frame.width)
