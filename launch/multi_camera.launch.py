"""Classify the images of several cameras in one node, which loads one engine for all.

ros2 launch qpde_perception multi_camera.launch.py vehicle:=/sensing

The cameras are those of launch/config/multi_camera.param.yaml, and CAMERAS here has the same names:
for others, copy both. A camera NAME sends on VEHICLE/NAME/image_raw, its boxes come on
VEHICLE/NAME/regions, and its results go out on ~/NAME/output.
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

CAMERAS = ("front", "left", "right")


def generate_launch_description() -> LaunchDescription:
    """Return the arguments and the node."""
    defaults = PathJoinSubstitution(
        [FindPackageShare("qpde_perception"), "launch", "config", "multi_camera.param.yaml"]
    )
    vehicle = LaunchConfiguration("vehicle")
    images = [(f"~/{name}/input/image", [vehicle, f"/{name}/image_raw"]) for name in CAMERAS]
    regions = [(f"~/{name}/input/regions", [vehicle, f"/{name}/regions"]) for name in CAMERAS]
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "vehicle",
                default_value="/camera",
                description="The namespace of the cameras.",
            ),
            DeclareLaunchArgument(
                "params_file", default_value=defaults, description="Parameters of the node."
            ),
            DeclareLaunchArgument("namespace", default_value="", description="Of the node."),
            DeclareLaunchArgument(
                "use_sim_time",
                default_value="false",
                choices=["true", "false"],
                description="Take the time from /clock.",
            ),
            DeclareLaunchArgument(
                "respawn",
                default_value="true",
                choices=["true", "false"],
                description="Start the node anew when its process has died.",
            ),
            Node(
                package="qpde_perception",
                executable="classifier_node",
                name="classifier",
                namespace=LaunchConfiguration("namespace"),
                output="screen",
                respawn=LaunchConfiguration("respawn"),
                respawn_delay=2.0,
                parameters=[
                    {
                        "use_sim_time": ParameterValue(
                            LaunchConfiguration("use_sim_time"), value_type=bool
                        ),
                    },
                    LaunchConfiguration("params_file"),
                ],
                remappings=[*images, *regions],
            ),
        ]
    )
