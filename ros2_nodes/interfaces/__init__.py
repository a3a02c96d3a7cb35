"""Message packages for a ROS 2 that comes from PyPI, where `vision_msgs` has no wheel."""
