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
from nr_tracking.config import PRESETS
from nr_tracking.ros.launching import overriding_file
from nr_tracking.ros.share import fastdds_environment, share_folder

ARGUMENTS = [
    DeclareLaunchArgument("cameras", description="namespaces of the cameras, with commas between them"),
    DeclareLaunchArgument(
        "depth_topic", default_value="depth/image_raw", description="sensor_msgs/Image with depth, in each namespace"
    ),
    DeclareLaunchArgument(
        "camera_info_topic", default_value="depth/camera_info", description="its CameraInfo, in each namespace"
    ),
    DeclareLaunchArgument("preset", default_value="", choices=["", *PRESETS], description="network and weights"),
    DeclareLaunchArgument("device", default_value="", choices=["", "cpu", "cuda"], description="where it runs"),
    DeclareLaunchArgument("one_process", default_value="false", choices=["true", "false"], description="share weights"),
    DeclareLaunchArgument(
        "params_file",
        default_value=str(share_folder() / "config" / "tracking.yaml"),
        description="YAML with parameters, for all or below a namespace; the arguments above win",
    ),
]


def nodes(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """The nodes, once the arguments are known."""
    given = {
        name: LaunchConfiguration(name).perform(context) for name in ("cameras", "preset", "device", "one_process")
    }
    cameras = [name.strip().strip("/") for name in given["cameras"].split(",") if name.strip()]
    overriding = overriding_file({name: given[name] for name in ("preset", "device") if given[name]})
    common = {
        "package": "nr_tracking",
        "output": "screen",
        "parameters": [LaunchConfiguration("params_file"), overriding],
        "remappings": [
            ("depth/image_raw", LaunchConfiguration("depth_topic")),
            ("depth/camera_info", LaunchConfiguration("camera_info_topic")),
        ],
    }
    if given["one_process"] == "true":
        started = [Node(executable="cameras_node", arguments=cameras, **common)]
    else:
        started = [Node(executable="tracking_node", name="nr_tracking", namespace=name, **common) for name in cameras]
    return [*started, RegisterEventHandler(OnShutdown(on_shutdown=lambda *_: Path(overriding).unlink(missing_ok=True)))]


def generate_launch_description() -> LaunchDescription:
    """Called by ``ros2 launch``."""
    environment = [SetEnvironmentVariable(name, value) for name, value in fastdds_environment().items()]
    return LaunchDescription([*environment, *ARGUMENTS, OpaqueFunction(function=nodes)])
