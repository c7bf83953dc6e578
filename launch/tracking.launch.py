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
from nr_tracking.config import PRESETS
from nr_tracking.ros.launching import overriding_file, viewer_remappings
from nr_tracking.ros.share import fastdds_environment, share_folder

RESPAWN_DELAY_S = 2.0
TOPICS = {  # arguments, and what they remap
    "depth_topic": "depth/image_raw",
    "camera_info_topic": "depth/camera_info",
    "mask_topic": "mask",
    "clicked_point_topic": "clicked_point",
}
# A recording waits for the subscriber and loses nothing, so that each frame of it is tracked; it comes unpacked.
RECORDED = {
    "ros.image_reliability": "reliable",
    "ros.image_history": 200,
    "ros.image_transport": "raw",
    "ros.queue_policy": "all",
}
ARGUMENTS = [
    DeclareLaunchArgument("preset", default_value="", choices=["", *PRESETS], description="network and weights"),
    DeclareLaunchArgument("device", default_value="", choices=["", "cpu", "cuda"], description="where it runs"),
    DeclareLaunchArgument("depth_topic", default_value="depth/image_raw", description="sensor_msgs/Image with depth"),
    DeclareLaunchArgument("camera_info_topic", default_value="depth/camera_info", description="its CameraInfo"),
    DeclareLaunchArgument(
        "mask_topic", default_value="mask", description="sensor_msgs/Image mono8, non-zero on the subject; optional"
    ),
    DeclareLaunchArgument(
        "clicked_point_topic",
        default_value="clicked_point",
        description="geometry_msgs/PointStamped that chooses the subject, as RViz's Publish Point sends it",
    ),
    DeclareLaunchArgument(
        "namespace", default_value="", description="namespace of the node and of topics without a leading slash"
    ),
    DeclareLaunchArgument(
        "target_frame", default_value="", description="TF frame of the outputs; empty: as params_file says"
    ),
    DeclareLaunchArgument(
        "fixed_frame",
        default_value="",
        description="TF frame that does not move, for a camera that does; empty: as params_file says",
    ),
    DeclareLaunchArgument("bag", default_value="", description="rosbag2 or SEQUENCE to play in place of a camera"),
    DeclareLaunchArgument(
        "bag_depth_topic",
        default_value="",
        description="depth images in a bag of several cameras; empty: by their type",
    ),
    DeclareLaunchArgument(
        "bag_camera_info_topic", default_value="", description="their CameraInfo in the bag; empty: the one beside them"
    ),
    DeclareLaunchArgument("rviz", default_value="false", choices=["true", "false"], description="show it in RViz"),
    DeclareLaunchArgument(
        "rviz_fixed_frame", default_value="camera_depth_optical_frame", description="TF frame in which RViz shows it"
    ),
    DeclareLaunchArgument(
        "params_file",
        default_value=str(share_folder() / "config" / "tracking.yaml"),
        description="YAML with parameters; preset, device, target_frame and fixed_frame win where they are given",
    ),
    DeclareLaunchArgument(
        "use_sim_time", default_value="false", choices=["true", "false"], description="time of /clock"
    ),
    DeclareLaunchArgument(
        "respawn", default_value="false", choices=["true", "false"], description="start the node anew when it ends"
    ),
    DeclareLaunchArgument(
        "log_level",
        default_value="info",
        choices=["debug", "info", "warn", "error", "fatal"],
        description="least severity that the tracking node logs",
    ),
]


def nodes(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """The nodes, once the arguments are known."""
    given = {argument.name: LaunchConfiguration(argument.name).perform(context) for argument in ARGUMENTS}
    remapped = {name: given[argument] for argument, name in TOPICS.items()}
    settings = {
        "preset": given["preset"],
        "device": given["device"],
        "ros.target_frame": given["target_frame"],
        "ros.fixed_frame": given["fixed_frame"],
    }
    chosen = {name: value for name, value in settings.items() if value}
    use_sim_time = {"use_sim_time": given["use_sim_time"] == "true"}
    overriding = overriding_file({**use_sim_time, **(RECORDED if given["bag"] else {}), **chosen})
    tracking = Node(
        package="nr_tracking",
        executable="tracking_node",
        name="nr_tracking",
        namespace=given["namespace"],
        output="screen",
        parameters=[given["params_file"], overriding],
        remappings=list(remapped.items()),
        ros_arguments=["--log-level", given["log_level"]],
        respawn=given["respawn"] == "true",
        respawn_delay=RESPAWN_DELAY_S,
    )
    recorded = {"input": "bag", "depth_topic": "bag_depth_topic", "camera_info_topic": "bag_camera_info_topic"}
    texts = {name: ParameterValue(given[argument], value_type=str) for name, argument in recorded.items()}
    replay = Node(
        package="nr_tracking",
        executable="replay_node",
        name="replay",
        namespace=given["namespace"],
        output="screen",
        parameters=[{**texts, "wait": True}],  # as texts: 20240501 is a name
        remappings=list(remapped.items()),
    )
    seen = {name: remapped[name] for name in ("depth/image_raw", "clicked_point")}
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", str(share_folder() / "config" / "tracking.rviz"), "-f", given["rviz_fixed_frame"]],
        parameters=[use_sim_time],
        remappings=viewer_remappings(given["namespace"].strip("/"), seen),
    )
    return [
        tracking,
        *([rviz] if given["rviz"] == "true" else []),
        *([replay] if given["bag"] else []),
        RegisterEventHandler(OnShutdown(on_shutdown=lambda *_: Path(overriding).unlink(missing_ok=True))),
    ]


def generate_launch_description() -> LaunchDescription:
    """Called by ``ros2 launch``."""
    environment = [SetEnvironmentVariable(name, value) for name, value in fastdds_environment().items()]
    return LaunchDescription([*environment, *ARGUMENTS, OpaqueFunction(function=nodes)])
