"""Compiled loops of the sensing against their twins in numpy and PyTorch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from twins import both, needs_loops

from nr_tracking.config import SubjectConfig, VolumeConfig
from nr_tracking.sensing import components
from nr_tracking.sensing.camera import back_project, check_frame, points_at
from nr_tracking.sensing.components import connected_parts, keep_near_largest
from nr_tracking.sensing.emptiness import EmptySpace
from nr_tracking.sensing.planes import NOISE_DEPTH_M, depth_tolerance, find_planes, heights_over
from nr_tracking.sensing.ray_images import ray_cube, ray_image
from nr_tracking.sensing.subject import find_subject
from nr_tracking.sensing.supports import heights_over_supports
from nr_tracking.sensing.tsdf import projective_tsdf, seen_space
from nr_tracking.sensing.visibility import confidence_of, observed_points
from nr_tracking.sensing.volume import Volume, fit_volume
from nr_tracking.types import DepthFrame, InputError, Intrinsics

pytestmark = needs_loops

CAMERA = Intrinsics(width=160, height=120, fx=130.0, fy=130.0, cx=79.5, cy=59.5)
VOLUME = Volume(centre=np.array([0.05, -0.02, 1.1]), side=0.9)


def ball(x: float, y: float, z: float, radius: float) -> np.ndarray:
    """Depth (H, W) of a ball, infinite beside it."""
    rays = back_project(np.ones((CAMERA.height, CAMERA.width), np.float32), CAMERA).astype(np.float64)
    centre = np.array([x, y, z])
    a, b = (rays**2).sum(-1), rays @ centre
    under_root = b * b - a * (centre @ centre - radius**2)
    return np.where(under_root > 0, (b - np.sqrt(np.maximum(under_root, 0))) / a, np.inf)


def scene(room: bool = False, noise: float = 0.0, holes: float = 0.0) -> DepthFrame:
    """A body, an arm before it, something apart, and if asked a bent floor and a wall; with noise and holes."""
    generator = np.random.default_rng(1)
    body = np.minimum(ball(0.05, 0, 1.2, 0.3), ball(-0.05, -0.05, 0.8, 0.06))
    depth = np.minimum(body, np.minimum(ball(0.6, 0.1, 1.6, 0.08), ball(0.33, 0.2, 1.2, 0.05)))
    if room:
        rays = back_project(np.ones((CAMERA.height, CAMERA.width), np.float32), CAMERA)
        floor = np.where(
            rays[..., 1] > 0.05, (0.42 + 0.01 * rays[..., 0] ** 2) / np.maximum(rays[..., 1], 0.05), np.inf
        )
        depth = np.minimum(np.minimum(depth, floor), 2.5 - 0.2 * rays[..., 0])
    depth = np.where(np.isinf(depth), 0, depth)
    depth = depth + noise * generator.standard_normal(depth.shape) * depth**2 * (depth > 0)
    depth[generator.random(depth.shape) < holes] = 0
    return DepthFrame(0, depth.astype(np.float32), CAMERA)


SCENES = [scene(), scene(noise=0.01), scene(holes=0.3), scene(room=True), scene(room=True, noise=0.004, holes=0.05)]


@pytest.mark.parametrize("frame", SCENES)
@pytest.mark.parametrize("choice", ["largest", "nearest", "clicked"])
@pytest.mark.parametrize("place", [None, (0.05, 0.0, 1.0), (0.6, 0.1, 1.5)])
def test_subjects(frame, choice, place):
    config = SubjectConfig(choice=choice, point_m=(0.6, 0.1, 1.5), minimum_pixels=20)
    place = None if place is None else np.array(place, np.float32)
    compiled, plain = both(lambda: find_subject(frame, config, place))
    assert (compiled != plain).sum() <= 0.002 * plain.sum()  # a vote that a point on the brink casts may find it bent


@pytest.mark.parametrize("frame", SCENES)
def test_subjects_under_masks_and_in_boxes(frame):
    masked = DepthFrame(0, frame.depth, CAMERA, mask=np.arange(160) + np.zeros((120, 1)) < 100)
    config = SubjectConfig(region_min_m=(-0.3, -1.0, 0.5), depth_max_m=2.0)
    for shown in (masked, frame):
        compiled, plain = both(lambda shown=shown: find_subject(shown, config))
        np.testing.assert_array_equal(compiled, plain)


@pytest.mark.parametrize(
    "settings_", [{"depth_min_m": 3.0}, {"region_max_m": (50, 50, 0.1)}, {"minimum_pixels": 19000}]
)
def test_refusals_are_the_same(settings_):
    def asked():
        with pytest.raises(InputError) as caught:
            find_subject(SCENES[0], SubjectConfig(**settings_))
        return str(caught.value)

    compiled, plain = both(asked)
    assert compiled == plain


def test_supports_of_a_room_and_none_where_there_is_none():
    config = SubjectConfig()
    for frame in SCENES:
        pixels = np.flatnonzero(frame.depth)
        cloud = points_at(pixels, frame.depth, CAMERA)
        compiled, plain = both(
            lambda cloud=cloud, pixels=pixels: heights_over_supports(cloud, pixels, (120, 160), config, NOISE_DEPTH_M)
        )
        assert (compiled is None) == (plain is None) == (frame.depth.min() == 0 and frame.depth.mean() < 0.7)
        if compiled is not None:
            assert np.quantile(np.abs(compiled - plain), 0.99) < 0.05


def test_planes_found_are_as_large_as_those_of_the_twin():
    pixels = np.flatnonzero(SCENES[4].depth)[::7]
    cloud = points_at(pixels, SCENES[4].depth, CAMERA)
    tolerance = depth_tolerance(cloud[:, 2], 0.015)
    compiled, plain = both(lambda: list(find_planes(cloud, tolerance, 0.2, 0.05)))
    assert len(compiled) == len(plain) >= 2
    for (plane, heights), (other, others) in zip(compiled, plain, strict=True):
        assert abs((np.abs(heights) < 1).sum() - (np.abs(others) < 1).sum()) < 0.02 * len(cloud)
        np.testing.assert_allclose(heights, plane.heights(cloud, tolerance), atol=1e-3)  # the plane that came with them
        assert abs(plane.normal @ other.normal) > 0.999
    compiled, plain = both(lambda: heights_over(cloud, [plane for plane, _ in compiled], 0.015))
    np.testing.assert_allclose(compiled, plain, atol=1e-3)


@pytest.mark.parametrize("cloud", [np.empty((0, 3)), np.ones((1, 3)), np.ones((50, 3)), np.full((50, 3), np.nan)])
def test_no_planes_where_there_are_none(cloud):
    cloud = cloud.astype(np.float32)
    compiled, plain = both(lambda: list(find_planes(cloud, np.ones(len(cloud), np.float32), 0.1, 0.1)))
    assert compiled == plain == []


@settings(max_examples=60)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**31), st.floats(0, 1), st.floats(0.01, 0.5))
def test_connected_parts(height, width, seed, filled, gap):
    generator = np.random.default_rng(seed)
    depth = (0.3 * generator.integers(1, 9, (height, width))).astype(np.float32)
    depth[generator.random((height, width)) < 0.1] = 0
    subject = (generator.random((height, width)) < filled) & (depth > 0)
    compiled, plain = both(lambda: connected_parts(depth, subject, gap))
    assert compiled[1] == plain[1]
    np.testing.assert_array_equal(compiled[0], plain[0])


@settings(max_examples=40)
@given(st.integers(0, 2**31), st.sampled_from(["largest", "nearest"]), st.floats(0, 1), st.floats(0, 2), st.booleans())
def test_parts_kept(seed, choice, ratio, occluder_ratio, room):
    generator = np.random.default_rng(seed)
    depth = np.zeros((120, 160), np.float32)
    for _ in range(generator.integers(1, 12)):
        row, column, size = *generator.integers(0, 100, 2), generator.integers(1, 40)
        depth[row : row + size, column : column + size] = generator.uniform(0.5, 3)
    subject = depth > 0
    cloud = points_at(np.flatnonzero(subject), depth, CAMERA)
    heights = generator.normal(6, 4, len(cloud)).astype(np.float32) if room else None
    config = SubjectConfig(choice=choice, component_ratio=ratio, occluder_ratio=occluder_ratio, minimum_pixels=9)
    place = cloud[generator.integers(len(cloud))]
    compiled, plain = both(lambda: keep_near_largest(depth, cloud, subject, config, heights, place))
    np.testing.assert_array_equal(compiled, plain)


@pytest.mark.parametrize("place", [(np.nan, 0, 1), (0, np.inf, 1), (3e38, 0, 0), (0, -1e30, 1), (0.9, 0, 1)])
def test_the_nearest_part_is_a_candidate_wherever_it_is_sought(place):
    cloud = np.array([[-1, 0, 1], [0, 0, 1], [1, 0, 1], [0.9, 0, 1]], np.float32)
    part, candidates = np.array([1, 2, 3, 0], np.int32), np.array([False, False, True, True])
    compiled, plain = both(lambda: components._nearest_to(np.array(place, np.float32), cloud, part, candidates))
    assert compiled == plain == (3 if place == (0.9, 0, 1) else 2)


def test_of_no_points_the_largest_part_is_kept():
    nothing = np.empty((0, 3), np.float32), np.empty(0, np.int32), np.zeros(3, np.int64)
    gathered = components._gathered(*nothing, 2, np.ones(3, bool), SubjectConfig(), False)
    np.testing.assert_array_equal(gathered, [False, False, True])


@pytest.mark.parametrize(
    "worst, reason", [(np.nan, ""), (np.inf, ""), (-1, "invalid_depth"), (None, "no_depth"), (2, "")]
)
def test_frames_are_checked(worst, reason):
    depth = np.zeros((120, 160), np.float32)
    if worst is not None:
        depth[5, 5:7] = 1, worst

    def asked():
        try:
            check_frame(DepthFrame(0, depth, CAMERA))
        except InputError as error:
            return error.reason
        return ""

    assert both(asked) == (reason, reason)


@pytest.mark.parametrize("frame", SCENES)
@pytest.mark.parametrize("masked", [False, True])
def test_empty_space(frame, masked):
    depth = torch.from_numpy(frame.depth)
    mask = (depth < 1.3) & (depth > 0) if masked else None
    generator = torch.Generator().manual_seed(0)
    few, many = (scale * (torch.rand(count, 3, generator=generator) - 0.5) for scale, count in ((0.2, 50), (2.6, 9000)))

    def asked():
        space = EmptySpace(depth, mask, CAMERA, VOLUME, 0.01)
        return torch.cat([space(points) for points in (few, many[:0], many, few, many[:1])])

    compiled, plain = both(asked)
    torch.testing.assert_close(compiled, plain, rtol=1e-5, atol=1e-6)
    assert (plain > 0).any()


def test_empty_space_says_nothing_of_points_that_are_no_numbers_or_out_of_sight():
    points = torch.tensor([[torch.nan] * 3, [torch.inf, 0, 0], [0, torch.inf, 0.1], [0, 0, -9.0], [9.0, 0, 0]])
    compiled, plain = both(lambda: EmptySpace(torch.ones(120, 160), None, CAMERA, VOLUME)(points))
    assert (compiled == -torch.inf).all()
    assert (plain == -torch.inf).all()


@pytest.mark.parametrize("compiled_first", [True, False])
def test_empty_space_that_is_asked_both_ways(compiled_first):
    """Single precision goes through the loops and double through tensors, each looking at its own part of the image."""
    depth, generator = torch.from_numpy(SCENES[3].depth), torch.Generator().manual_seed(0)
    few, many = (scale * (torch.rand(count, 3, generator=generator) - 0.5) for scale, count in ((0.2, 50), (2.6, 9000)))
    space = EmptySpace(depth, None, CAMERA, VOLUME, 0.01)
    types = (torch.float32, torch.float64) if compiled_first else (torch.float64, torch.float32)
    for points, kind in ((few, types[0]), (many, types[1]), (many, types[0]), (few, types[1])):
        alone = EmptySpace(depth, None, CAMERA, VOLUME, 0.01)(points.to(kind))
        torch.testing.assert_close(space(points.to(kind)), alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tall, masked", [(121, 121), (120, 119), (119, 120), (120, 60)])
def test_images_of_other_sizes_than_the_camera_s_are_refused(tall, masked):
    depth, mask = torch.ones(tall, 160), torch.ones(masked, 160, dtype=torch.bool)

    def refused():
        for asked in (
            lambda: EmptySpace(depth, mask, CAMERA, VOLUME),
            lambda: projective_tsdf(depth, mask, CAMERA, VOLUME, 16),
            lambda: ray_image(depth, mask if tall != masked else mask[1:], CAMERA, VOLUME, 64, VOLUME),
        ):
            with pytest.raises(ValueError, match=rf"depth \({tall}, 160\), mask \({masked}|{masked - 1}, 160\)"):
                asked()

    both(refused)


def test_gradients_of_empty_space_are_those_of_the_twin():
    points = (torch.rand(100, 3, generator=torch.Generator().manual_seed(0)) - 0.5).requires_grad_()
    bound = EmptySpace(torch.from_numpy(SCENES[3].depth), None, CAMERA, VOLUME)(points)
    bound[bound > 0].sum().backward()
    assert points.grad.abs().sum() > 0


@pytest.mark.parametrize("frame", [*SCENES, DepthFrame(0, np.zeros((120, 160), np.float32), CAMERA)])
@pytest.mark.parametrize("masked", [False, True])
def test_images_along_rays_and_voxels(frame, masked):
    depth = torch.from_numpy(frame.depth)
    mask = (depth < 1.3) & (depth > 0) if masked else None
    for volume in (VOLUME, Volume(np.array([1.2, 0.9, 1.1]), 0.5)):  # the other one is partly beside the image
        compiled, plain = both(lambda volume=volume: ray_image(depth, mask, CAMERA, volume, 64, VOLUME))
        for name in ("channels", "front", "view", "place"):
            torch.testing.assert_close(getattr(compiled, name), getattr(plain, name), rtol=0, atol=2e-5)
        for resolution in (16, 64):  # voxels on many pixels, and several on one
            compiled, plain = both(
                lambda volume=volume, resolution=resolution: projective_tsdf(depth, mask, CAMERA, volume, resolution)
            )
            torch.testing.assert_close(compiled.coords, plain.coords)
            torch.testing.assert_close(compiled.values, plain.values, rtol=0, atol=1e-6)
        compiled, plain = both(lambda volume=volume: seen_space(depth, mask, CAMERA, volume, 16))
        torch.testing.assert_close(compiled, plain)


@pytest.mark.parametrize("count", [2, 3, 700, 50_000])
@pytest.mark.parametrize("percentile", [0.0, 0.3, 10.0])
def test_cubes(count, percentile):
    points = np.random.default_rng(0).normal((0.1, 0, 1.5), (0.2, 0.3, 0.1), (count, 3)).astype(np.float32)
    points[: count // 2] = points[0]  # many that are equal
    for fit in (fit_volume, ray_cube):
        compiled, plain = both(lambda fit=fit: fit(points, VolumeConfig(percentile=percentile)))
        np.testing.assert_allclose(compiled.centre, plain.centre, atol=1e-6)
        assert compiled.side == pytest.approx(plain.side, abs=1e-6)


@pytest.mark.parametrize("points", [np.ones((1, 3)), np.full((5, 3), np.nan), np.empty((0, 3))])
def test_no_cube_where_there_is_nothing_to_fit(points):
    def asked():
        with pytest.raises(InputError, match="subject"):
            fit_volume(points.astype(np.float32), VolumeConfig())

    both(asked)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_visibility(share):
    generator = np.random.default_rng(0)
    points = generator.normal((0.05, 0, 1.0), 0.4, (3000, 3)).astype(np.float32)
    points[:3] = (0, 0, -1), (np.nan, np.inf, 1), (0, 0, 0)
    depth = SCENES[0].depth
    compiled, plain = both(lambda: observed_points(points, depth, SCENES[0], 0.1))
    np.testing.assert_array_equal(compiled, plain)
    observed, points = generator.random(len(points) - 3) < share, points[3:]
    compiled, plain = both(lambda: confidence_of(points, observed, depth, SCENES[0], 0.01))
    np.testing.assert_allclose(compiled, plain, atol=1e-6)
    for nobody in both(lambda: confidence_of(points[:0], observed[:0], depth, SCENES[0], 0.01)):
        assert nobody.shape == (0,) and nobody.dtype == np.float32
