"""A camera that moves, with its poses: rounded ones, one matrix filled anew for every frame, and a far origin."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from test_tracker import CAMERA, FACES, STEP_NS, pose_at, tracker, vertices_at

from nr_tracking import DepthFrame, InputError, Surface, TrackedFrame
from nr_tracking.data.rendering import rasterize
from nr_tracking.sensing.rigid import check_pose, fixed_frame

FAR = 5e5  # metres, as of coordinates of a map


def seen(index: int) -> np.ndarray:
    """The walking figure as the moving camera has it."""
    pose = pose_at(index)
    return ((vertices_at(index) - pose[:3, 3]) @ pose[:3, :3]).astype(np.float32)


def frame_at(index: int, origin: float = 0.0) -> DepthFrame:
    depth, _ = rasterize(torch.from_numpy(seen(index)), torch.from_numpy(FACES).long(), CAMERA)
    pose = pose_at(index)
    pose[:3, 3] += [origin, -origin, 0.0]
    return DepthFrame(STEP_NS * (index + 1), depth.numpy(), CAMERA, pose=pose)


def tracked(frames: Iterable[DepthFrame], depths: Callable[[np.ndarray], None] | None = None) -> list[TrackedFrame]:
    """What comes of frames; ``depths`` is told the images of each window once it is complete."""
    made, results = tracker(), []

    def surface(field, index, view, volume):
        vertices = seen(round(view.frame.stamp_ns / STEP_NS) - 1)
        return Surface(vertices, FACES, np.ones(len(vertices), np.float32), np.ones(len(vertices), np.bool_))

    def window(views, volume, new):
        if depths is not None:
            depths(np.stack([view.frame.depth for view in views]))

    made._reconstructor.surface, made._reconstructor.window = surface, window
    for frame in frames:
        results += made.push(frame)
    return results + made.flush()


def filled_anew(frames: Iterable[DepthFrame]) -> Iterable[DepthFrame]:
    """The same frames, all of them in one image, one mask and one matrix."""
    depth, mask, pose = np.zeros((120, 160), np.float32), np.zeros((120, 160), bool), np.zeros((4, 4))
    for frame in frames:
        depth[:], mask[:], pose[:] = frame.depth, frame.depth > 0, frame.pose
        yield replace(frame, depth=depth, mask=mask, pose=pose)


def test_arrays_that_are_filled_anew_for_the_next_frame_change_nothing_of_the_last():
    given = [frame_at(index) for index in range(7)]
    expected, windows = tracked(replace(frame, mask=frame.depth > 0) for frame in given), []
    results = tracked(filled_anew(given), windows.append)
    np.testing.assert_array_equal(windows[0], np.stack([frame.depth for frame in given[:5]]))
    for result, other, frame in zip(results, expected, given, strict=True):
        np.testing.assert_array_equal(result.tracks.positions, other.tracks.positions)
        np.testing.assert_array_equal(result.tracks.velocities, other.tracks.velocities)
        np.testing.assert_array_equal(result.pose, frame.pose)


def test_velocities_are_as_good_where_the_origin_is_far_away():
    near, far = (tracked(frame_at(index, origin) for index in range(9)) for origin in (0.0, FAR))
    for one, other in zip(near, far, strict=True):
        np.testing.assert_allclose(one.tracks.velocities, other.tracks.velocities, atol=1e-3)
    # The figure walks by 8 mm a frame along x of the fixed frame.
    walk = (near[-1].tracks.velocities @ pose_at(8)[:3, :3].T).mean(axis=0)
    assert walk[0] == pytest.approx(0.24, abs=0.06) and abs(walk[1]) < 0.03


def test_poses_that_were_rounded_to_three_decimals_pass_and_lead_back_to_where_points_were():
    points = np.random.default_rng(0).normal(size=(20, 3))
    for rotation in Rotation.random(500, random_state=0).as_matrix():
        exact = np.eye(4)
        exact[:3, :3], exact[:3, 3] = rotation, [1.2345, -0.5, 300.0]
        pose = exact.round(3)
        check_pose(pose)
        there = fixed_frame(pose)
        np.testing.assert_allclose(there.inverse().points(there.points(points)), points, atol=1e-9)
        np.testing.assert_allclose(there.rotation, rotation, atol=1.5e-3)


@pytest.mark.parametrize("off", [0.003, -0.003])
def test_a_pose_that_stretches_is_refused(off: float):
    pose = np.diag([1.0 + off, 1.0 + off, 1.0 + off, 1.0])
    with pytest.raises(InputError, match="rigid") as caught:
        check_pose(pose)
    assert caught.value.reason == "bad_pose"


def test_a_pose_of_nested_lists_is_taken_like_an_array():
    pose = pose_at(3)
    check_pose(pose.tolist())
    np.testing.assert_array_equal(fixed_frame(pose.tolist()).rotation, fixed_frame(pose).rotation)


@pytest.mark.parametrize("pose", [[[1.0]], [[1.0, 0.0], [0.0]], "here", (2.0 * np.eye(4)).tolist()])
def test_whatever_else_is_no_pose_is_refused_by_name(pose: object):
    with pytest.raises(InputError) as caught:
        check_pose(pose)
    assert caught.value.reason == "bad_pose"
