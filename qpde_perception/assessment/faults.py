"""Faults of the road before the network, simulated where they happen.

Weather and camera change the picture; a wrong preparation makes something else of a good one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from qpde_perception.assessment.corruptions import (
    CORRUPTIONS,
    DIRTY_LENS,
    SEVERITIES,
    Corruption,
)
from qpde_perception.bundles import Cause
from qpde_perception.frames import resize

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from qpde_perception.frames import InputSpec

    Image = NDArray[np.uint8]

_PLANES = {"rgb": [2, 1, 0], "bgr": [0, 1, 2]}


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault and what it should be called.

    Attributes:
        name: Its name.
        cause: What it should be called.
        severities: 1 to 5; 0 alone where it is there or not.
        input_of: From a picture as `healthy_input` takes it, the network's input, a severity and a
            seed to the network's input under the fault.
    """

    name: str
    cause: Cause
    severities: tuple[int, ...]
    input_of: Callable[[Image, InputSpec, int, tuple[int, ...]], Image]


def healthy_input(image: Image, spec: InputSpec) -> Image:
    """Prepare a picture as the vehicle does.

    Args:
        image: What is cut out of a frame, uint8 BGR, shape (rows, columns, 3).
        spec: The network's input.

    Returns:
        uint8, shape (height, width, 3), in the order of the input.
    """
    return resize(image, spec)[..., _PLANES[spec.channel_order]]


def _worse(corruption: Corruption) -> Callable[[Image, InputSpec, int, tuple[int, ...]], Image]:
    def input_of(image: Image, spec: InputSpec, severity: int, seed: tuple[int, ...]) -> Image:
        return healthy_input(corruption.at(image, severity, seed), spec)

    return input_of


def _swapped(image: Image, spec: InputSpec, _severity: int, _seed: tuple[int, ...]) -> Image:
    return healthy_input(image, spec)[..., ::-1]


def _too_dark(image: Image, spec: InputSpec, _severity: int, _seed: tuple[int, ...]) -> Image:
    """Divide by 255 for a network that takes 0 to 255; the conversion to uint8 truncates."""
    return np.asarray(healthy_input(image, spec) // 255, np.uint8)


def _too_bright(image: Image, spec: InputSpec, _severity: int, _seed: tuple[int, ...]) -> Image:
    """Multiply what already goes from 0 to 255 by 255; the conversion to uint8 saturates."""
    return np.asarray(np.where(healthy_input(image, spec) > 0, 255, 0), np.uint8)


def _unaveraged(image: Image, spec: InputSpec, _severity: int, _seed: tuple[int, ...]) -> Image:
    small = cv2.resize(image, (spec.width, spec.height), interpolation=cv2.INTER_NEAREST)
    return np.asarray(small, np.uint8)[..., _PLANES[spec.channel_order]]


FAULTS = (
    Fault("swapped channels", Cause.PREPROCESSING_WRONG, (0,), _swapped),
    Fault("0 to 1 for 0 to 255", Cause.PREPROCESSING_WRONG, (0,), _too_dark),
    Fault("0 to 255 for 0 to 1", Cause.PREPROCESSING_WRONG, (0,), _too_bright),
    Fault("nearest for area", Cause.PREPROCESSING_WRONG, (0,), _unaveraged),
    Fault("fog", Cause.WORLD_CHANGED, SEVERITIES, _worse(CORRUPTIONS["fog"])),
    Fault("darkness", Cause.WORLD_CHANGED, SEVERITIES, _worse(CORRUPTIONS["darkness"])),
    Fault("blur", Cause.CAMERA_DEGRADED, SEVERITIES, _worse(CORRUPTIONS["Gaussian blur"])),
    Fault("sensor noise", Cause.CAMERA_DEGRADED, SEVERITIES, _worse(CORRUPTIONS["Gaussian noise"])),
    Fault("dirty lens", Cause.CAMERA_DEGRADED, SEVERITIES, _worse(DIRTY_LENS)),
)
"""Every fault of the input that is simulated."""
