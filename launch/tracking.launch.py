"""Starts the tracking node, and on request a recording and RViz.

A camera: ``ros2 launch nr_tracking tracking.launch.py depth_topic:=/camera/depth/image_rect_raw
camera_info_topic:=/camera/depth/camera_info``. A recording: ``ros2 launch nr_tracking tracking.launch.py
bag:=RECORDING rviz:=true``.
"""

import os

from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from nr_tracking.config import PRESETS
from nr_tracking.ros.launching import overriding_file
from nr_tracking.ros.share import fastdds_profile, share_folder

ARGUMENTS = [
    DeclareLaunchArgument("preset", default_value="", choices=["", *PRESETS], description="network and weights"),
    DeclareLaunchArgument("device", default_value="", choices=["", "cpu", "cuda"], description="where it runs"),
    DeclareLaunchArgument("depth_topic", default_value="depth/image_raw", description="sensor_msgs/Image with depth"),
    DeclareLaunchArgument("camera_info_topic", default_value="depth/camera_info", description="its CameraInfo"),
    DeclareLaunchArgument("bag", default_value="", description="rosbag2 or SEQUENCE to play in place of a camera"),
    DeclareLaunchArgument("rviz", default_value="false", choices=["true", "false"], description="show it in RViz"),
    DeclareLaunchArgument(
        "params_file",
        default_value=str(share_folder() / "config" / "tracking.yaml"),
        description="YAML with parameters; the arguments above win",
    ),
    DeclareLaunchArgument(
        "use_sim_time", default_value="false", choices=["true", "false"], description="time of /clock"
    ),
]


def nodes(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """The nodes, once the arguments are known."""
    given = {name: LaunchConfiguration(name).perform(context) for name in ("preset", "device", "bag")}
    topics = {
        "depth/image_raw": LaunchConfiguration("depth_topic"),
        "depth/camera_info": LaunchConfiguration("camera_info_topic"),
    }
    # A recording waits for the subscriber and loses nothing, so that each frame of it is tracked; it comes unpacked.
    recorded = {
        "ros.image_reliability": "reliable",
        "ros.image_history": 200,
        "ros.image_transport": "raw",
        "ros.queue_policy": "all",
    }
    chosen = {name: given[name] for name in ("preset", "device") if given[name]}
    tracking = Node(
        package="nr_tracking",
        executable="tracking_node",
        name="nr_tracking",
        output="screen",
        parameters=[
            LaunchConfiguration("params_file"),
            {"use_sim_time": LaunchConfiguration("use_sim_time")},
            overriding_file({**(recorded if given["bag"] else {}), **chosen}),
        ],
        remappings=list(topics.items()),
    )
    replay = Node(
        package="nr_tracking",
        executable="replay_node",
        name="replay",
        output="screen",
        parameters=[{"input": ParameterValue(given["bag"], value_type=str), "wait": True}],  # 20240501 is a name
        remappings=list(topics.items()),
    )
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", str(share_folder() / "config" / "tracking.rviz")],
        parameters=[{"use_sim_time": LaunchConfiguration("use_sim_time")}],
        remappings=list(topics.items()),
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    return [tracking, rviz, *([replay] if given["bag"] else [])]


def generate_launch_description() -> LaunchDescription:
    """Called by ``ros2 launch``."""
    actions = [*ARGUMENTS, OpaqueFunction(function=nodes)]
    if "FASTDDS_DEFAULT_PROFILES_FILE" not in os.environ:  # somebody's own profile stays
        actions.insert(0, SetEnvironmentVariable("FASTDDS_DEFAULT_PROFILES_FILE", str(fastdds_profile())))
    return LaunchDescription(actions)
