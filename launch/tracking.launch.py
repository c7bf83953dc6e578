"""Starts the tracking node, and on request a recording and RViz.

A camera: ``ros2 launch nr_tracking tracking.launch.py depth_topic:=/camera/depth/image_rect_raw
camera_info_topic:=/camera/depth/camera_info``. A recording: ``ros2 launch nr_tracking tracking.launch.py
bag:=RECORDING rviz:=true``.
"""

from pathlib import Path

from launch.actions import DeclareLaunchArgument, OpaqueFunction, RegisterEventHandler, SetEnvironmentVariable
from launch.event_handlers import OnShutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from nr_tracking.config import ConfigError
from nr_tracking.ros.launching import remappings, shared_arguments, tracking_options, viewer_options
from nr_tracking.ros.share import fastdds_environment

# A recording waits for the subscriber and loses nothing, so that each frame of it is tracked; it comes unpacked.
RECORDED = {
    "ros.image_reliability": "reliable",
    "ros.image_history": 200,
    "ros.image_transport": "raw",
    "ros.queue_policy": "all",
}
ARGUMENTS = [
    *(DeclareLaunchArgument(**argument) for argument in shared_arguments()),
    DeclareLaunchArgument("bag", default_value="", description="rosbag2 or SEQUENCE to play in place of a camera"),
    DeclareLaunchArgument(
        "bag_depth_topic",
        default_value="",
        description="depth images in a bag of several cameras; empty: by their type",
    ),
    DeclareLaunchArgument(
        "bag_camera_info_topic", default_value="", description="their CameraInfo in the bag; empty: the one beside them"
    ),
]


def nodes(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """The nodes, once the arguments are known."""
    given = {argument.name: LaunchConfiguration(argument.name).perform(context) for argument in ARGUMENTS}
    if not given["bag"] and (given["bag_depth_topic"] or given["bag_camera_info_topic"]):
        raise ConfigError("bag: none is given; topics of a camera are depth_topic and camera_info_topic")
    options = tracking_options(given, RECORDED if given["bag"] else {})
    started = [Node(executable="tracking_node", name="nr_tracking", namespace=given["namespace"], **options)]
    if given["rviz"] == "true":
        started.append(Node(**viewer_options(given, given["namespace"])))
    if given["bag"]:
        started.append(replay(given))
    own = Path(options["parameters"][-1])
    return [*started, RegisterEventHandler(OnShutdown(on_shutdown=lambda *_: own.unlink(missing_ok=True)))]


def replay(given: dict[str, str]) -> Node:
    """The recording, under the names that the tracking node listens to."""
    recorded = {"input": "bag", "depth_topic": "bag_depth_topic", "camera_info_topic": "bag_camera_info_topic"}
    texts = {name: ParameterValue(given[argument], value_type=str) for name, argument in recorded.items()}
    return Node(
        package="nr_tracking",
        executable="replay_node",
        name="replay",
        namespace=given["namespace"],
        output="screen",
        parameters=[{**texts, "wait": True}],  # as texts: 20240501 is a name
        remappings=list(remappings(given).items()),
    )


def generate_launch_description() -> LaunchDescription:
    """Called by ``ros2 launch``."""
    environment = [SetEnvironmentVariable(name, value) for name, value in fastdds_environment().items()]
    return LaunchDescription([*environment, *ARGUMENTS, OpaqueFunction(function=nodes)])
