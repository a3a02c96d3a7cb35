"""ROS 2 nodes: thin shells around `qpde_perception`."""
