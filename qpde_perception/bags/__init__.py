"""Recorded drives: reading, writing, making."""

from qpde_perception.bags.definitions import typestore
from qpde_perception.bags.drive import (
    Drive,
    RecordedMessage,
    SerializedMessage,
    TopicInfo,
    drive_info,
    open_drive,
)
from qpde_perception.bags.errors import BagError
from qpde_perception.bags.layouts import begins_with_header, reads_alike
from qpde_perception.bags.looping import NewStamps, at_rate, first_frames
from qpde_perception.bags.make import MadeDrive, make_drive
from qpde_perception.bags.messages import (
    Labels,
    camera_frame,
    labels_of,
    regions_of,
    restamped,
    stamp_in,
)
from qpde_perception.bags.offers import Offer
from qpde_perception.bags.playback import Playback, Tick, latched_before
from qpde_perception.bags.prefetch import Prefetch
from qpde_perception.bags.simulated import ENCODINGS, Faults, simulated_camera, with_faults
from qpde_perception.bags.writer import McapWriter

__all__ = [
    "ENCODINGS",
    "BagError",
    "Drive",
    "Faults",
    "Labels",
    "MadeDrive",
    "McapWriter",
    "NewStamps",
    "Offer",
    "Playback",
    "Prefetch",
    "RecordedMessage",
    "SerializedMessage",
    "Tick",
    "TopicInfo",
    "at_rate",
    "begins_with_header",
    "camera_frame",
    "drive_info",
    "first_frames",
    "labels_of",
    "latched_before",
    "make_drive",
    "open_drive",
    "reads_alike",
    "regions_of",
    "restamped",
    "simulated_camera",
    "stamp_in",
    "typestore",
    "with_faults",
]
