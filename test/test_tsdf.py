"""The sparse projective TSDF and seen space, against the dense twin and against analytic shapes."""

import dataclasses

import numpy as np
import pytest
import torch

from nr_tracking.sensing.tsdf import dense_projective_tsdf, make_window, projective_tsdf, seen_space
from nr_tracking.sensing.volume import Volume
from nr_tracking.types import Intrinsics

CAMERA = Intrinsics(width=160, height=120, fx=130.0, fy=128.0, cx=79.5, cy=59.5)


def rays(camera: Intrinsics) -> torch.Tensor:
    v, u = torch.meshgrid(torch.arange(float(camera.height)), torch.arange(float(camera.width)), indexing="ij")
    return torch.stack(((u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, torch.ones_like(u)), dim=-1)


def sphere_depth(camera: Intrinsics, centre: torch.Tensor, radius: float) -> torch.Tensor:
    directions = rays(camera)
    a, b = (directions**2).sum(-1), directions @ centre
    under_root = b * b - a * (centre @ centre - radius**2)
    return torch.where(under_root > 0, (b - under_root.clamp(min=0).sqrt()) / a, 0.0)


def voxel_centres(volume: Volume, coords: torch.Tensor, resolution: int) -> torch.Tensor:
    return volume.to_metric((coords + 0.5) / resolution - 0.5)


SPHERE = torch.tensor([0.1, -0.05, 1.0])
AROUND = Volume(centre=np.array([0.1, -0.05, 1.05]), side=0.8)

scenes = {
    "pixels like voxels": (1.0, 48),
    "pixels finer than voxels": (1.0, 16),
    "pixels coarser than voxels": (1.0, 128),
    "far away": (3.0, 64),
    "cube around the camera": (0.3, 32),
}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", scenes)
def test_rays_meet_the_same_voxels_as_the_whole_grid(name, masked):
    """Noise, holes and steps included: coordinates, order and values are equal bit for bit."""
    distance, resolution = scenes[name]
    generator = torch.Generator().manual_seed(0)
    depth = sphere_depth(CAMERA, torch.tensor([0.05, 0.02, distance]), 0.25)
    depth = torch.where(depth > 0, depth, distance + 0.3)
    depth = depth + 0.01 * torch.randn(depth.shape, generator=generator)
    depth[torch.rand(depth.shape, generator=generator) < 0.1] = 0
    mask = torch.rand(depth.shape, generator=generator) < 0.7 if masked else None
    volume = Volume(centre=np.array([0.0, 0.0, distance]), side=0.9)
    sparse = projective_tsdf(depth, mask, CAMERA, volume, resolution, 3.0)
    dense = dense_projective_tsdf(depth, mask, CAMERA, volume, resolution, 3.0)
    assert len(dense.coords) > 20
    assert sparse.coords.dtype == torch.int32
    assert torch.equal(sparse.coords, dense.coords)
    assert torch.equal(sparse.values, dense.values)


def test_a_frontal_plane_has_its_analytic_distance():
    """At 1.013 m, between two layers of voxels: every value follows from the voxel's own depth."""
    volume = Volume(centre=np.array([0.0, 0.0, 1.0]), side=0.64)
    tsdf = projective_tsdf(torch.full((120, 160), 1.013), None, CAMERA, volume, 32, 3.0)
    z = voxel_centres(volume, tsdf.coords, 32)[:, 2]
    torch.testing.assert_close(tsdf.values, (1.013 - z) / 0.06, atol=2e-6, rtol=0)
    layers = torch.unique(tsdf.coords[:, 2])
    assert layers.tolist() == [14, 15, 16, 17, 18, 19]
    assert len(tsdf.coords) == 6 * 32 * 32, "the plane fills the picture, and so the cube"


def test_a_sphere_has_its_zero_crossing_within_a_voxel():
    resolution, radius = 64, 0.25
    depth = sphere_depth(CAMERA, SPHERE, radius)
    tsdf = projective_tsdf(depth, None, CAMERA, AROUND, resolution, 3.0)
    voxel = AROUND.side / resolution
    centres = voxel_centres(AROUND, tsdf.coords, resolution)
    signed = (centres - SPHERE).norm(dim=1) - radius
    # Seen at a right angle, projective and true distance agree; seen at a slant the projective one is longer.
    outward = torch.nn.functional.normalize(centres - SPHERE, dim=1)
    slant = -(outward * torch.nn.functional.normalize(centres, dim=1)).sum(1)
    frontal = slant > 0.9
    error = (3.0 * tsdf.values - signed / voxel)[frontal].abs()
    assert frontal.sum() > 500
    assert error.max() < 0.6
    sure = (signed.abs() > voxel) & (slant > 0.5)
    assert ((tsdf.values > 0) == (signed > 0))[sure].all(), "positive in front, negative behind"
    assert tsdf.values.abs().max() < 1.0, "nothing is kept beyond the truncation distance"
    assert signed.min() > -3.1 * voxel


def test_a_window_of_frames_is_sorted_by_frame():
    frames = []
    for shift in (0.0, 0.05, 0.1):
        depth = sphere_depth(CAMERA, SPHERE + torch.tensor([shift, 0.0, 0.0]), 0.25)
        frames.append(
            (projective_tsdf(depth, None, CAMERA, AROUND, 32, 3.0), seen_space(depth, None, CAMERA, AROUND, 8))
        )
    window = make_window(frames)
    assert (window.resolution, window.length) == (32, 3)
    assert window.seen.shape == (3, 2, 8, 8, 8)
    assert window.coords.dtype == torch.int32
    for index, (tsdf, seen) in enumerate(frames):
        mine = window.coords[:, 0] == index
        assert torch.equal(window.coords[mine, 1:], tsdf.coords)
        assert torch.equal(window.values[mine, 0], tsdf.values)
        assert torch.equal(window.seen[index], seen)
    assert (window.coords[:, 0].diff() >= 0).all()
    batch = make_window(frames * 2, length=3)
    assert (len(batch.seen), batch.length) == (6, 3)
    with pytest.raises(ValueError, match="4"):
        make_window(frames, length=4)


def test_seen_space_of_a_frontal_plane():
    """Before a wall at the middle of the cube all is empty, behind it nothing is known, and no return is not seen."""
    volume = Volume(centre=np.array([0.0, 0.0, 1.0]), side=0.4)
    depth = torch.full((120, 160), 1.0)
    depth[:, :80] = 0  # the left half of the picture has no return
    empty, unknown = seen_space(depth, None, CAMERA, volume, 4)
    right, front = slice(2, 4), slice(0, 2)
    assert (empty[right, :, front] == 1).all()
    assert (empty[right, :, 2:] == 0).all()
    assert (empty[:2] == 0).all()
    assert (unknown[:2] == 1).all()
    assert (unknown[right] == 0).all()


def test_a_cell_half_in_front_of_the_surface_is_half_empty():
    volume = Volume(centre=np.array([0.0, 0.0, 1.0]), side=0.4)
    empty, _ = seen_space(torch.full((120, 160), 0.95), None, CAMERA, volume, 4)
    assert (empty[:, :, 0] == 1).all()
    assert (empty[:, :, 1] == 0.5).all()
    assert (empty[:, :, 2:] == 0).all()


def test_background_and_occluders_prove_only_what_lies_before_them():
    volume = Volume(centre=np.array([0.0, 0.0, 1.0]), side=0.4)
    depth = torch.full((120, 160), 2.0)  # a wall far behind the cube
    depth[:, 80:] = 0.5  # something before the cube on the right
    subject = torch.zeros(120, 160, dtype=torch.bool)
    empty, unknown = seen_space(depth, subject, CAMERA, volume, 4)
    assert (empty[:2] == 1).all()
    assert (empty[2:] == 0).all()
    assert (unknown == 0).all()


def test_cells_outside_the_picture_or_behind_the_camera_are_not_seen():
    volume = Volume(centre=np.array([0.0, 0.0, 0.0]), side=2.0)
    empty, unknown = seen_space(torch.full((120, 160), 5.0), None, CAMERA, volume, 8)
    assert (unknown[:, :, :4] == 1).all()
    assert (empty[:, :, :4] == 0).all()
    assert unknown[0, 0, 5] == 1, "far to the side"
    assert empty[4, 4, 7] == 1, "straight ahead"


def test_a_distorted_camera_is_refused():
    fisheye = dataclasses.replace(CAMERA, distortion_model="equidistant", distortion=(0.1, 0.0, 0.0, 0.0))
    with pytest.raises(ValueError, match="rectify"):
        projective_tsdf(torch.ones(120, 160), None, fisheye, AROUND, 32)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_same_voxels():
    depth = sphere_depth(CAMERA, SPHERE, 0.25)
    here = projective_tsdf(depth, None, CAMERA, AROUND, 64)
    there = projective_tsdf(depth.cuda(), None, CAMERA, AROUND, 64)
    assert torch.equal(here.coords, there.coords.cpu())
    torch.testing.assert_close(here.values, there.values.cpu())
    seen = seen_space(depth.cuda(), None, CAMERA, AROUND, 16).cpu()
    assert torch.equal(seen, seen_space(depth, None, CAMERA, AROUND, 16))
