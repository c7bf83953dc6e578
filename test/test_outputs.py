"""What subscribers get, decoded without ROS."""

from dataclasses import replace

import numpy as np
import pytest
from fake_tracker import tracked
from rosbags.typesys import Stores, get_typestore
from scipy.spatial.transform import Rotation

from nr_tracking.ros import outputs
from nr_tracking.types import Patches

STORE = get_typestore(Stores.ROS2_KILTED)
NAN = np.float32(np.nan)


def decode(data, kind):
    return STORE.deserialize_cdr(data, kind)


def test_mesh_has_the_surface_and_its_colours():
    frame = tracked(1_500_000_000, 2.0)
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [51, 51, 51]], np.uint8)
    message = decode(outputs.mesh_marker(frame, "camera", colours, 100), "visualization_msgs/msg/Marker")
    points = np.array([[p.x, p.y, p.z] for p in message.points], np.float32)
    np.testing.assert_array_equal(points, frame.surface.vertices[frame.surface.faces].reshape(-1, 3))
    shades = np.array([[c.r, c.g, c.b, c.a] for c in message.colors])
    np.testing.assert_allclose(shades[:, :3], colours[frame.surface.faces.reshape(-1)] / 255, atol=1e-6)
    assert (shades[:, 3] == 1).all() and message.header.stamp.nanosec == 500_000_000


def test_tracks_cloud_has_the_documented_fields():
    tracks = tracked(7, 2.0).tracks
    message = decode(outputs.tracks_cloud(7, "camera", tracks), "sensor_msgs/msg/PointCloud2")
    names = [(field.name, field.datatype) for field in message.fields]
    assert names == [(n, 7) for n in ("x", "y", "z", "vx", "vy", "vz", "confidence")] + [("id", 6), ("observed", 2)]
    rows = np.frombuffer(message.data.tobytes(), outputs.TRACK_FIELDS)
    np.testing.assert_array_equal(np.stack([rows["x"], rows["y"], rows["z"]], axis=1), tracks.positions)
    np.testing.assert_array_equal(rows["vz"], 1)
    np.testing.assert_array_equal(rows["id"], tracks.ids)
    assert rows["observed"].all()


def test_nobody_is_a_marker_that_is_deleted_and_an_empty_list_of_tracks_and_patches():
    frame = tracked(0, 1.5, previous_m=1.0)
    colours = np.zeros((4, 3), np.uint8)
    for shown, gone in (
        (outputs.mesh_marker(frame, "camera", colours, 10), outputs.no_mesh),
        (outputs.motion_marker(frame, "camera", 10), outputs.no_motion),
    ):
        shown, gone = (decode(each, "visualization_msgs/msg/Marker") for each in (shown, gone(7, "camera")))
        assert (gone.ns, gone.id, gone.action) == (shown.ns, shown.id, 2) and shown.action == 0
        assert gone.header.frame_id == "camera" and gone.header.stamp.nanosec == 7 and not len(gone.points)
    cloud = decode(outputs.no_tracks(7, "camera"), "sensor_msgs/msg/PointCloud2")
    assert (cloud.width, cloud.point_step, len(cloud.data)) == (0, outputs.TRACK_FIELDS.itemsize, 0)
    assert len(cloud.fields) == 9 and cloud.header.stamp.nanosec == 7
    assert not len(decode(outputs.no_patches(7, "camera"), "geometry_msgs/msg/PoseArray").poses)


def test_motion_runs_from_the_previous_place_to_the_present_one():
    assert outputs.motion_marker(tracked(0, 1.0), "camera", 10) is None
    frame = tracked(0, 1.5, previous_m=1.0)
    frame.previous[2] = NAN
    message = decode(outputs.motion_marker(frame, "camera", 10), "visualization_msgs/msg/Marker")
    points = np.array([[p.x, p.y, p.z] for p in message.points]).reshape(3, 2, 3)
    np.testing.assert_array_equal(points[:, 1] - points[:, 0], [[0, 0, 0.5]] * 3)
    assert len(decode(outputs.motion_marker(frame, "camera", 2), "visualization_msgs/msg/Marker").points) == 4


def test_patch_poses_tell_where_patches_are_and_how_they_turned():
    turn = Rotation.from_rotvec([[0, 0, 0.3], [0, 0, 0]]).as_matrix().astype(np.float32)
    places = np.float32([[1, 2, 3], [4, 5, 6]])
    moved = Patches(places - 1, turn, places, np.zeros(0, np.int32), np.zeros((0, 2), np.int32))
    first = tracked(0, 2.0)
    poses = decode(outputs.patches_message(replace(first, previous_patches=moved), "c"), "geometry_msgs/msg/PoseArray")
    assert poses.poses[0].orientation.z == pytest.approx(np.sin(0.15)) and poses.poses[1].orientation.w == 1.0
    assert [pose.position.x for pose in poses.poses] == [1.0, 4.0]
    resting = decode(outputs.patches_message(first, "c"), "geometry_msgs/msg/PoseArray").poses
    assert [pose.position.z for pose in resting] == [2.0, 2.0] and resting[0].orientation.w == 1.0


def grid_mesh(cells):
    """A square of 2 cells^2 triangles."""
    u, v = np.meshgrid(np.linspace(0, 1, cells + 1), np.linspace(0, 1, cells + 1), indexing="ij")
    vertices = np.stack([u, v, 0.1 * np.sin(6 * u)], axis=-1).reshape(-1, 3).astype(np.float32)
    corner = (np.arange(cells)[:, None] * (cells + 1) + np.arange(cells)).reshape(-1)
    faces = np.stack([corner, corner + cells + 1, corner + 1, corner + 1, corner + cells + 1, corner + cells + 2], 1)
    return vertices, faces.reshape(-1, 3).astype(np.int32)


def area(vertices, faces):
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    return np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2


def test_decimated_mesh_is_small_enough_and_keeps_its_shape():
    vertices, faces = grid_mesh(60)
    assert outputs.decimated(vertices, faces, 7200) is faces
    for most in (3000, 500):
        coarse = outputs.decimated(vertices, faces, most)
        assert most / 4 < len(coarse) <= most
        assert area(vertices, coarse) == pytest.approx(area(vertices, faces), rel=0.15)
