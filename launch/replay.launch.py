"""Play a recorded drive and classify it, in the drive's own time; ends with the drive.

ros2 launch qpde_perception replay.launch.py drive:=DRIVE image:=/camera/front/image_raw

DRIVE is whatever the player reads: rosbag1, rosbag2, MCAP. Without a DRIVE it is the sample drive,
which wants these arguments:

    image:=/camera/front/image image_transport:=compressed
    regions:=topic regions_topic:=/camera/front/regions
"""

from typing import List  # noqa: UP035 - launch knows this one in every distribution

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    Shutdown,
    TimerAction,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare


def generate_launch_description() -> LaunchDescription:
    """Return the arguments, the classifier and the player."""
    share = FindPackageShare("qpde_perception")
    perception = PathJoinSubstitution([share, "launch", "perception.launch.py"])
    defaults = PathJoinSubstitution([share, "launch", "config", "bag_player.param.yaml"])
    sample = PathJoinSubstitution([share, "samples", "traffic_signs.mcap"])
    return LaunchDescription(
        [
            DeclareLaunchArgument("drive", default_value=sample, description="The recording."),
            DeclareLaunchArgument(
                "rate", default_value="1.0", description="How many times faster than recorded."
            ),
            DeclareLaunchArgument(
                "wait_for_subscribers",
                default_value="[]",
                description="Topics, ['/a', '/b'], that must have a subscriber before it starts.",
            ),
            DeclareLaunchArgument(
                "player_params_file",
                default_value=defaults,
                description="Parameters of the player.",
            ),
            # The classifier's own arguments are passed on to it.
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(perception),
                launch_arguments={"use_sim_time": "true", "respawn": "false"}.items(),
            ),
            Node(
                package="qpde_perception",
                executable="bag_player_node",
                name="bag_player",
                output="screen",
                parameters=[
                    {
                        "drive": ParameterValue(LaunchConfiguration("drive"), value_type=str),
                        "rate": ParameterValue(LaunchConfiguration("rate"), value_type=float),
                        "wait_for_subscribers": ParameterValue(
                            LaunchConfiguration("wait_for_subscribers"),
                            value_type=List[str],  # noqa: UP006
                        ),
                    },
                    LaunchConfiguration("player_params_file"),
                ],
                # Time for the classifier to publish what is still in its hands.
                on_exit=[TimerAction(period=2.0, actions=[Shutdown(reason="end of the drive")])],
            ),
        ]
    )
