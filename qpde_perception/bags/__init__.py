"""Recorded drives: reading, writing, making."""

from qpde_perception.bags.definitions import typestore
from qpde_perception.bags.drive import Drive, RecordedMessage, TopicInfo, drive_info, open_drive
from qpde_perception.bags.errors import BagError
from qpde_perception.bags.make import MadeDrive, make_drive
from qpde_perception.bags.messages import Labels, camera_frame, labels_of, regions_of
from qpde_perception.bags.writer import McapWriter

__all__ = [
    "BagError",
    "Drive",
    "Labels",
    "MadeDrive",
    "McapWriter",
    "RecordedMessage",
    "TopicInfo",
    "camera_frame",
    "drive_info",
    "labels_of",
    "make_drive",
    "open_drive",
    "regions_of",
    "typestore",
]
