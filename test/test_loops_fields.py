"""Compiled loops of the fields against their twins in PyTorch."""

import numpy as np
import pytest
import torch
import trimesh
from twins import both, needs_loops

from nr_tracking.config import MeshConfig
from nr_tracking.fields.decoder import distances_of_children
from nr_tracking.fields.field import DistanceMLP, EmbeddingHead, FieldWindow, KnownDistances, interpolate_dense
from nr_tracking.fields.meshing import extract_surface
from nr_tracking.fields.ray_prior import RayPrior
from nr_tracking.fields.ray_window import RayWindow
from nr_tracking.fields.rays import RayField, ray_depths
from nr_tracking.fields.settling import settle
from nr_tracking.fields.sparse import SparseGrid
from nr_tracking.sensing.ray_images import FAR

pytestmark = needs_loops


@pytest.fixture
def rays():
    generator = torch.Generator().manual_seed(0)
    depths = ray_depths(24)
    some = torch.rand(2, 32, 32, generator=generator) - 0.5
    front = torch.where(torch.rand(2, 32, 32, generator=generator) < 0.5, some, FAR)
    distances = 0.05 * torch.randn(2, 32, 32, len(depths), generator=generator)
    view = torch.tensor([[0.1, 0.05, 0.4], [0.0, 0.0, 0.3]])
    place = torch.tensor([[0.0, 0.0, 0.0, 1.0], [0.01, 0.02, 0.0, 0.95]])
    return RayField(distances, depths, front, view, place)


@pytest.mark.parametrize("ask", [RayField.sdf, RayField.sdf_of_nearest])
def test_distances_along_rays(rays, ask):
    generator = torch.Generator().manual_seed(1)
    points = 1.2 * (torch.rand(5000, 3, generator=generator) - 0.5)  # some beside the image
    frame = torch.randint(0, 2, (5000,), generator=generator)
    compiled, plain = both(lambda: ask(rays, points, frame))
    torch.testing.assert_close(compiled, plain, rtol=0, atol=1e-6)


def test_points_that_are_no_numbers_read_nothing_beyond_the_rays(rays):
    rays.distances[:] = 0.01  # whatever is read is this or what lies elsewhere
    points = torch.full((100, 3), torch.nan)
    points[::3, 2] = torch.inf
    points[::5, :2] = 1e30
    found = rays.sdf(points, torch.zeros(100, dtype=torch.int64))
    told = torch.isfinite(found) & (found < 1)
    assert bool(((found[told] >= 0.01 - 1e-6) & (found[told] <= 0.06 + 1e-6)).all())


def test_distances_along_rays_at_the_children_of_voxels(rays):
    prior = RayPrior(rays, 16)
    coords = (torch.rand(2, 16, 16, 16, generator=torch.Generator().manual_seed(2)) < 0.1).nonzero().int()
    grid, own = SparseGrid(coords, 16, 2), torch.randn(len(coords), 8)
    compiled, plain = both(lambda: prior.mixed_at_children(grid, own))
    torch.testing.assert_close(compiled, plain, rtol=0, atol=1e-6)


@pytest.mark.parametrize("share", [0.02, 0.3, 1.0])
def test_distances_of_the_children_of_voxels(share):
    generator = torch.Generator().manual_seed(3)
    coords = (torch.rand(2, 8, 8, 8, generator=generator) <= share).nonzero().int()
    grid, features = SparseGrid(coords, 8, 2), torch.randn(len(coords), 6, generator=generator)
    distance = DistanceMLP(6, 8, 2, 0.1, 0.0)
    with torch.no_grad():
        compiled, plain = both(lambda: distances_of_children(grid, features, distance))
    torch.testing.assert_close(compiled, plain, rtol=0, atol=1e-6)


@pytest.mark.parametrize("frame", [0, 1])
def test_grid_of_a_window(rays, frame):
    window = RayWindow(rays, 16, source=None)
    compiled, plain = both(lambda: window.grid(frame))
    torch.testing.assert_close(compiled, plain, rtol=0, atol=1e-6)


class Balls:
    """Three balls: a large one, one that is a twentieth of it, and a speck."""

    resolution = 48

    def sdf(self, points, frame=None):
        middles = torch.tensor([[-0.1, 0.0, 0.0], [0.3, 0.1, 0.0], [0.3, -0.3, 0.3]])
        return (torch.cdist(points, middles) - torch.tensor([0.25, 0.1, 0.04])).amin(1)

    def grid(self, frame):
        axis = (torch.arange(self.resolution) + 0.5) / self.resolution - 0.5
        return self.sdf(torch.cartesian_prod(axis, axis, axis)).view((self.resolution,) * 3)


@pytest.mark.parametrize("share, parts", [(0.0, 3), (0.03, 2), (0.5, 1)])
def test_surfaces_and_their_parts(share, parts):
    config = MeshConfig(upsample=1, pull=True, settle=True, minimum_component=share)
    compiled, plain = both(lambda: extract_surface(Balls(), 0, config))
    np.testing.assert_allclose(compiled[0], plain[0], atol=1e-6)
    np.testing.assert_array_equal(compiled[1], plain[1])
    assert trimesh.Trimesh(*compiled, process=False).body_count == parts


def test_vertices_that_are_not_to_be_moved_stay():
    mesh = trimesh.creation.icosphere(subdivisions=2, radius=0.3)
    vertices, faces = mesh.vertices.astype(np.float32), mesh.faces.astype(np.int32)
    movable = np.arange(len(vertices)) % 3 > 0
    compiled, plain = both(lambda: settle(vertices, faces, lambda points: points.norm(dim=1) - 0.31, 0.05, movable))
    np.testing.assert_allclose(compiled, plain, atol=1e-7)
    np.testing.assert_array_equal(compiled[~movable], vertices[~movable])
    assert np.linalg.norm(compiled[movable] - vertices[movable], axis=1).min() > 1e-3


def test_a_mesh_without_faces_is_settled_into_itself():
    nothing = np.empty((0, 3), np.float32), np.empty((0, 3), np.int32)
    settled = settle(*nothing, lambda points: points[:, 0], 0.05, np.empty(0, bool))
    assert settled.shape == (0, 3)


def test_features_between_voxels_of_three_scales():
    generator = torch.Generator().manual_seed(3)
    fine = SparseGrid((torch.rand(2, 16, 16, 16, generator=generator) < 0.6).nonzero().int(), 16, 2)
    middle = fine.parents()
    features = [torch.randn(len(grid), 4, generator=generator) for grid in (middle, fine)]
    known = KnownDistances(torch.randn(2, 4, 4, 4), torch.randn(len(middle), 8))
    coarse = torch.randn(2, 4, 4, 4, 4, generator=generator)
    pairs = tuple(zip((middle, fine), features, strict=True))
    field = FieldWindow(coarse, *pairs, known, DistanceMLP(4, 8, 2, 0.1), EmbeddingHead(4, 3))
    points = 1.1 * (torch.rand(4000, 3, generator=generator) - 0.5)
    frame = torch.randint(0, 2, (4000,), generator=generator)
    with torch.no_grad():
        for ask in (field.sdf, field.features, field.embedding):
            compiled, plain = both(lambda ask=ask: ask(points, frame))
            torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-5)
            assert ask(points[:0], frame[:0]).shape[0] == 0
    for learns in (field.middle, field.fine, points):  # PyTorch again, which knows gradients
        learns.requires_grad_()
        (field.sdf(points, frame) ** 2).sum().backward()
        assert learns.grad is not None and bool(learns.grad.any())
        learns.requires_grad_(False)


@pytest.mark.parametrize(("kind", "error"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
def test_features_between_voxels_of_a_whole_grid(kind, error):
    torch.manual_seed(0)
    features = torch.randn(2, 5, 5, 5, 7).to(kind)
    points = 1.2 * torch.rand(300, 3) - 0.6  # some of them beyond the outermost voxel centres
    frame = torch.randint(0, 2, (300,))
    compiled, plain = both(lambda: interpolate_dense(features, points, frame))
    assert compiled.dtype == plain.dtype == kind
    torch.testing.assert_close(compiled, plain, rtol=0, atol=error)
    if kind == torch.bfloat16:  # rounded once, where PyTorch rounds weights, products and sums
        assert torch.equal(compiled, interpolate_dense(features.float(), points, frame).to(kind))
    points[0] = torch.nan  # a place that is none reads nothing beyond the grid
    assert torch.equal(interpolate_dense(features, points, frame)[1:], compiled[1:])
