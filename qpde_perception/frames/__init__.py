"""Camera frames: what arrives, and what a network is given of it."""

from qpde_perception.frames.errors import FrameError
from qpde_perception.frames.frame import CameraFrame
from qpde_perception.frames.input_spec import InputSpec
from qpde_perception.frames.regions import Regions

__all__ = ["CameraFrame", "FrameError", "InputSpec", "Regions"]
