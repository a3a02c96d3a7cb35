"""The paper's networks, in every flavour, with the quantizers they are trained with."""

from qpde_perception.learning.zoo.building import FLAVOURS, ZOO, build
from qpde_perception.learning.zoo.graph import Graph
from qpde_perception.learning.zoo.joint import JointPrecision, joint_precision_loss
from qpde_perception.learning.zoo.observing import block_outputs
from qpde_perception.learning.zoo.schedule import BitSchedule, set_bits
from qpde_perception.learning.zoo.smoothing import SmoothingConfig

__all__ = [
    "FLAVOURS",
    "ZOO",
    "BitSchedule",
    "Graph",
    "JointPrecision",
    "SmoothingConfig",
    "block_outputs",
    "build",
    "joint_precision_loss",
    "set_bits",
]
