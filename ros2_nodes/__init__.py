"""The nodes: thin ROS 2 shells around `qpde_perception`."""
