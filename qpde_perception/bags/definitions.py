"""Message definitions that no ROS installation has to provide."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from rosbags.typesys import Stores, get_types_from_msg, get_typestore

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
DETECTION_2D_ARRAY = "vision_msgs/msg/Detection2DArray"

# What the typestore registers, and what `python -m ros2_nodes.interfaces` builds for rclpy.
MESSAGE_TEXTS = {
    "vision_msgs/msg/Point2D": "float64 x\nfloat64 y\n",
    "vision_msgs/msg/Pose2D": "vision_msgs/Point2D position\nfloat64 theta\n",
    "vision_msgs/msg/BoundingBox2D": (
        "vision_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y\n"
    ),
    "vision_msgs/msg/ObjectHypothesis": "string class_id\nfloat64 score\n",
    "vision_msgs/msg/ObjectHypothesisWithPose": (
        "vision_msgs/ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose\n"
    ),
    "vision_msgs/msg/Detection2D": (
        "std_msgs/Header header\n"
        "vision_msgs/ObjectHypothesisWithPose[] results\n"
        "vision_msgs/BoundingBox2D bbox\n"
        "string id\n"
    ),
    "vision_msgs/msg/Detection2DArray": (
        "std_msgs/Header header\nvision_msgs/Detection2D[] detections\n"
    ),
    "vision_msgs/msg/Classification": (
        "std_msgs/Header header\nvision_msgs/ObjectHypothesis[] results\n"
    ),
    "vision_msgs/msg/VisionClass": "uint16 class_id\nstring class_name\n",
    "vision_msgs/msg/LabelInfo": (
        "std_msgs/Header header\nvision_msgs/VisionClass[] class_map\nfloat32 threshold\n"
    ),
    "vision_msgs/msg/VisionInfo": (
        "std_msgs/Header header\nstring method\nstring database_location\nint32 database_version\n"
    ),
    "foxglove_msgs/msg/Point2": "float64 x\nfloat64 y\n",
    "foxglove_msgs/msg/Color": "float64 r\nfloat64 g\nfloat64 b\nfloat64 a\n",
    "foxglove_msgs/msg/CircleAnnotation": (
        "builtin_interfaces/Time timestamp\n"
        "foxglove_msgs/Point2 position\n"
        "float64 diameter\n"
        "float64 thickness\n"
        "foxglove_msgs/Color fill_color\n"
        "foxglove_msgs/Color outline_color\n"
    ),
    "foxglove_msgs/msg/PointsAnnotation": (
        "uint8 UNKNOWN=0\n"
        "uint8 POINTS=1\n"
        "uint8 LINE_LOOP=2\n"
        "uint8 LINE_STRIP=3\n"
        "uint8 LINE_LIST=4\n"
        "builtin_interfaces/Time timestamp\n"
        "uint8 type\n"
        "foxglove_msgs/Point2[] points\n"
        "foxglove_msgs/Color outline_color\n"
        "foxglove_msgs/Color[] outline_colors\n"
        "foxglove_msgs/Color fill_color\n"
        "float64 thickness\n"
    ),
    "foxglove_msgs/msg/TextAnnotation": (
        "builtin_interfaces/Time timestamp\n"
        "foxglove_msgs/Point2 position\n"
        "string text\n"
        "float64 font_size\n"
        "foxglove_msgs/Color text_color\n"
        "foxglove_msgs/Color background_color\n"
    ),
    "foxglove_msgs/msg/ImageAnnotations": (
        "foxglove_msgs/CircleAnnotation[] circles\n"
        "foxglove_msgs/PointsAnnotation[] points\n"
        "foxglove_msgs/TextAnnotation[] texts\n"
    ),
}


@lru_cache(maxsize=1)
def typestore() -> Typestore:
    """Return the message types of ROS 2 Humble with `vision_msgs` 4 and Foxglove's annotations.

    `typestore().types["vision_msgs/msg/Detection2D"]` is the dataclass of a message.
    """
    store = get_typestore(Stores.ROS2_HUMBLE)
    types = {}
    for name, text in MESSAGE_TEXTS.items():
        types.update(get_types_from_msg(text, name))
    store.register(types)
    return store
