"""Classify the images of one camera.

ros2 launch qpde_perception perception.launch.py image:=/camera/front/image_raw

`--show-args` lists the arguments. Every other parameter of the node stands in a file of the form
of launch/config/classifier.param.yaml, given as params_file; what it sets goes before the
arguments. Several cameras that share one engine: multi_camera.launch.py.
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare


def generate_launch_description() -> LaunchDescription:
    """Return the arguments and the node."""
    defaults = PathJoinSubstitution(
        [FindPackageShare("qpde_perception"), "launch", "config", "classifier.param.yaml"]
    )
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "image",
                default_value="/camera/image_raw",
                description="The camera's topic, without /compressed.",
            ),
            DeclareLaunchArgument(
                "image_transport",
                default_value="raw",
                choices=["raw", "compressed"],
                description="Whether the camera sends Image or CompressedImage.",
            ),
            DeclareLaunchArgument(
                "regions",
                default_value="whole_frame",
                choices=["whole_frame", "topic", "fixed"],
                description="Classify whole frames, the boxes of regions_topic, or fixed_regions.",
            ),
            DeclareLaunchArgument(
                "regions_topic",
                default_value="/camera/regions",
                description="Boxes with the stamps of the images, Detection2DArray.",
            ),
            DeclareLaunchArgument(
                "model",
                default_value="",
                description="A model's name or a bundle's folder; empty for traffic_signs.",
            ),
            DeclareLaunchArgument(
                "engine",
                default_value="",
                description="The one engine to use; empty for the first that works.",
            ),
            DeclareLaunchArgument(
                "params_file", default_value=defaults, description="Parameters of the node."
            ),
            DeclareLaunchArgument("name", default_value="classifier", description="Of the node."),
            DeclareLaunchArgument("namespace", default_value="", description="Of the node."),
            DeclareLaunchArgument(
                "use_sim_time",
                default_value="false",
                choices=["true", "false"],
                description="Take the time from /clock.",
            ),
            DeclareLaunchArgument(
                "autostart",
                default_value="true",
                choices=["true", "false"],
                description="Configure and activate at the start; false for a lifecycle manager.",
            ),
            DeclareLaunchArgument(
                "respawn",
                default_value="true",
                choices=["true", "false"],
                description="Start the node anew when its process has died.",
            ),
            DeclareLaunchArgument("log_level", default_value="info", description="Of the node."),
            Node(
                package="qpde_perception",
                executable="classifier_node",
                name=LaunchConfiguration("name"),
                namespace=LaunchConfiguration("namespace"),
                output="screen",
                respawn=LaunchConfiguration("respawn"),
                respawn_delay=2.0,
                parameters=[
                    {
                        "image_transport": LaunchConfiguration("image_transport"),
                        "regions": LaunchConfiguration("regions"),
                        "model": ParameterValue(LaunchConfiguration("model"), value_type=str),
                        "engine": ParameterValue(LaunchConfiguration("engine"), value_type=str),
                        "autostart": ParameterValue(
                            LaunchConfiguration("autostart"), value_type=bool
                        ),
                        "use_sim_time": ParameterValue(
                            LaunchConfiguration("use_sim_time"), value_type=bool
                        ),
                    },
                    LaunchConfiguration("params_file"),
                ],
                remappings=[
                    ("~/input/image", LaunchConfiguration("image")),
                    ("~/input/regions", LaunchConfiguration("regions_topic")),
                ],
                ros_arguments=["--log-level", LaunchConfiguration("log_level")],
            ),
        ]
    )
