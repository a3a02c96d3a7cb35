"""Camera frames: what arrives, and what a network is given of it."""

from qpde_perception.frames.compressed import compressed_encoding
from qpde_perception.frames.decode import decode, frame_size
from qpde_perception.frames.errors import FrameError
from qpde_perception.frames.frame import CameraFrame
from qpde_perception.frames.input_spec import InputSpec
from qpde_perception.frames.memory import keep_memory
from qpde_perception.frames.picture import Picture
from qpde_perception.frames.prepare import Prepared, cut_out, minimum_size, prepare, resize
from qpde_perception.frames.regions import Regions

__all__ = [
    "CameraFrame",
    "FrameError",
    "InputSpec",
    "Picture",
    "Prepared",
    "Regions",
    "compressed_encoding",
    "cut_out",
    "decode",
    "frame_size",
    "keep_memory",
    "minimum_size",
    "prepare",
    "resize",
]
