"""Starts a tracking node for each of several cameras, in a namespace of its own.

``ros2 launch nr_tracking cameras.launch.py cameras:=front,rear`` listens to ``/front/depth/image_raw`` with
``/front/depth/camera_info`` and publishes ``/front/nr_tracking/mesh`` and so on. ``one_process:=true`` puts all of them
into one process, where they share one set of weights.
"""

from pathlib import Path

from launch.actions import DeclareLaunchArgument, OpaqueFunction, RegisterEventHandler, SetEnvironmentVariable
from launch.event_handlers import OnShutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from nr_tracking.ros.arguments import camera_namespaces
from nr_tracking.ros.launching import shared_arguments, tracking_options, viewer_options
from nr_tracking.ros.share import fastdds_environment

ARGUMENTS = [
    DeclareLaunchArgument("cameras", description="namespaces of the cameras, with commas between them"),
    DeclareLaunchArgument("one_process", default_value="false", choices=["true", "false"], description="share weights"),
    *(DeclareLaunchArgument(**argument) for argument in shared_arguments()),
]


def nodes(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """The nodes, once the arguments are known."""
    given = {argument.name: LaunchConfiguration(argument.name).perform(context) for argument in ARGUMENTS}
    words = [word.strip() for word in given["cameras"].split(",") if word.strip()]
    cameras = camera_namespaces(words, within=given["namespace"], depth_topic=given["depth_topic"])
    options = tracking_options(given)
    if given["one_process"] == "true":
        started = [Node(executable="cameras_node", arguments=cameras, **options)]
    else:
        started = [Node(executable="tracking_node", name="nr_tracking", namespace=name, **options) for name in cameras]
    if given["rviz"] == "true":
        started += [Node(namespace=name, **viewer_options(given, name)) for name in cameras]
    own = Path(options["parameters"][-1])
    return [*started, RegisterEventHandler(OnShutdown(on_shutdown=lambda *_: own.unlink(missing_ok=True)))]


def generate_launch_description() -> LaunchDescription:
    """Called by ``ros2 launch``."""
    environment = [SetEnvironmentVariable(name, value) for name, value in fastdds_environment().items()]
    return LaunchDescription([*environment, *ARGUMENTS, OpaqueFunction(function=nodes)])
