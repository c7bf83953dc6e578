"""Surfaces of fields that are known exactly: where they are, how large, and that they are closed."""

import numpy as np
import pytest
import torch
from skimage.measure import marching_cubes

from nr_tracking.config import MeshConfig
from nr_tracking.fields.field import lattice
from nr_tracking.fields.meshing import _cells_with_surface, extract_surface
from nr_tracking.types import InputError


class Analytic:
    """A field made of a function of points (Q, 3)."""

    def __init__(self, function, resolution=32):
        self.function = function
        self.resolution = resolution

    def grid(self, frame):
        return self.function(lattice(self.resolution, torch.zeros(()))).view(*[self.resolution] * 3)

    def sdf(self, points, frame):
        return self.function(points)


def ball(radius, centre=(0.0, 0.0, 0.0)):
    return lambda points: (points - torch.tensor(centre)).norm(dim=1) - radius


def torus(points, major=0.27, minor=0.09):
    ring = points[:, :2].norm(dim=1) - major
    return torch.stack([ring, points[:, 2]], dim=1).norm(dim=1) - minor


def either(*functions):
    return lambda points: torch.stack([function(points) for function in functions]).amin(0)


def volume(vertices, faces):
    a, b, c = vertices[faces].astype(np.float64).transpose(1, 0, 2)
    return float((np.cross(a, b) * c).sum() / 6)


def assert_closed(vertices, faces):
    """Every edge has exactly two faces, which run along it in opposite directions; no face is degenerate."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    assert len(np.unique(edges, axis=0)) == len(edges)
    reverse = {tuple(edge) for edge in edges[:, ::-1].tolist()}
    assert all(tuple(edge) in reverse for edge in edges.tolist())
    assert faces.min() >= 0 and faces.max() < len(vertices)
    corners = vertices[faces].astype(np.float64)
    assert np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1).min() > 0
    assert vertices.dtype == np.float32 and faces.dtype == np.int32
    assert volume(vertices, faces) > 0


EXACT = {"upsample": 2, "settle": False}  # vertices, and not faces, on the surface


@pytest.mark.parametrize("upsample", [1, 2, 3])
def test_ball(upsample):
    vertices, faces = extract_surface(Analytic(ball(0.3)), 0, MeshConfig(upsample=upsample, settle=False))
    assert_closed(vertices, faces)
    cell = 1 / (32 * upsample)
    assert np.abs(np.linalg.norm(vertices, axis=1) - 0.3).max() < 0.02 * cell
    assert volume(vertices, faces) == pytest.approx(4 / 3 * np.pi * 0.3**3, rel=0.02 / upsample)


@pytest.mark.parametrize(
    ("shape", "enclosed"), [(ball(0.3), 4 / 3 * np.pi * 0.3**3), (torus, 2 * np.pi**2 * 0.27 * 0.09**2)]
)
def test_settled_faces_enclose_what_the_surface_does(shape, enclosed):
    """A third of the volume that chords cut off is wrong at most, and triangles are more even."""
    plain, settled = (extract_surface(Analytic(shape), 0, MeshConfig(settle=settle)) for settle in (False, True))
    assert_closed(*settled)
    np.testing.assert_array_equal(plain[1], settled[1])
    missing = [abs(volume(*mesh) / enclosed - 1) for mesh in (plain, settled)]
    assert missing[1] < missing[0] / 3

    def evenness(mesh):
        corners = mesh[0][mesh[1]].astype(np.float64)
        lengths = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2)
        return (lengths.min(axis=1) / lengths.max(axis=1)).mean()

    assert evenness(settled) > 1.2 * evenness(plain)


@pytest.mark.parametrize("shape", [ball(0.3), torus, ball(0.06, (0.21, -0.17, 0.33))])
def test_without_pulling(shape):
    """Closed, on the surface to a fifth of a voxel even where it bends within three, and the field is never asked."""
    field = Analytic(shape)
    field.sdf = None
    vertices, faces = extract_surface(field, 0, MeshConfig(pull=False, **EXACT))
    assert_closed(vertices, faces)
    away = shape(torch.from_numpy(vertices)).abs() * 32
    assert away.max() < 0.2 and away.mean() < 0.04


def test_cubic_interpolation_is_carved_too():
    config = MeshConfig(pull=False, **EXACT)
    vertices, faces = extract_surface(Analytic(ball(0.3)), 0, config, lambda points: points[:, 0])
    assert_closed(vertices, faces)
    assert vertices[:, 0].max() < 0.2 / 32
    assert volume(vertices, faces) == pytest.approx(2 / 3 * np.pi * 0.3**3, rel=0.03)


def test_skipping_cells_without_surface_changes_no_face():
    for seed in range(5):
        values = np.random.default_rng(seed).normal(size=(9, 8, 7)).astype(np.float32)
        mask = _cells_with_surface(values < 0)
        for skipped, all_cells in zip(marching_cubes(values, 0.0, mask=mask), marching_cubes(values, 0.0), strict=True):
            np.testing.assert_array_equal(skipped, all_cells)
    values[:] = 1
    values[4, 4, 4] = -1
    assert _cells_with_surface(values < 0).sum() == 15  # the lower and upper corners of eight cells share one


def test_torus():
    vertices, faces = extract_surface(Analytic(torus), 0, MeshConfig(**EXACT))
    assert_closed(vertices, faces)
    assert volume(vertices, faces) == pytest.approx(2 * np.pi**2 * 0.27 * 0.09**2, rel=0.03)
    assert len(vertices) - 3 * len(faces) // 2 + len(faces) == 0  # Euler characteristic of one handle
    assert torus(torch.from_numpy(vertices)).abs().max() < 0.05 / 64


def test_vertices_lie_on_the_zero_level_of_a_field_that_is_no_distance():
    def steep(points):
        return torch.sinh(12 * (points.norm(dim=1) - 0.3)) / 12

    vertices, _ = extract_surface(Analytic(steep, resolution=16), 0, MeshConfig(**EXACT))
    assert np.abs(np.linalg.norm(vertices, axis=1) - 0.3).max() < 0.02 / 16


def test_parts_thinner_than_a_voxel_are_found():
    def rod(points):  # of radius 0.45 voxel, between the voxel centres
        return (points[:, :2] - 0.0).norm(dim=1).clamp(min=1e-9) - 0.45 / 32

    def capped(points):
        return torch.maximum(rod(points), points[:, 2].abs() - 0.3)

    coarse = Analytic(capped).grid(0)
    assert float(coarse.min()) > 0
    vertices, faces = extract_surface(Analytic(capped), 0, MeshConfig(upsample=3, settle=False))
    assert_closed(vertices, faces)
    assert np.ptp(vertices[:, 2]) == pytest.approx(0.6, abs=0.02)


def test_surface_that_leaves_the_box_is_closed_at_its_border():
    vertices, faces = extract_surface(Analytic(ball(0.3, (0.4, 0.0, -0.45))), 0, MeshConfig())
    assert_closed(vertices, faces)
    assert np.abs(vertices).max() <= 0.5 + 1 / 64


def test_box_that_is_all_inside_gives_its_own_border():
    vertices, faces = extract_surface(Analytic(lambda points: -torch.ones(len(points))), 0, MeshConfig(upsample=2))
    assert_closed(vertices, faces)
    assert volume(vertices, faces) == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("upsample", [1, 2])
def test_any_field_gives_a_closed_surface(upsample):
    values = torch.from_numpy(np.random.default_rng(0).standard_normal((12, 12, 12)).astype(np.float32))
    values[values.abs() < 0.1] = 0.0

    def noise(points):
        place = ((points + 0.5) * 12).long().clamp(0, 11)
        return values[tuple(place.t())]

    config = MeshConfig(upsample=upsample, minimum_component=0.0)
    assert_closed(*extract_surface(Analytic(noise, resolution=12), 0, config))


def test_small_components_are_removed_and_large_ones_stay():
    large, medium, crumb = ball(0.2, (-0.2, 0, 0)), ball(0.12, (0.25, 0, 0)), ball(0.03, (0, 0.4, 0.4))
    vertices, faces = extract_surface(Analytic(either(large, medium, crumb)), 0, MeshConfig(minimum_component=0.05))
    assert_closed(vertices, faces)
    assert volume(vertices, faces) == pytest.approx(4 / 3 * np.pi * (0.2**3 + 0.12**3), rel=0.03)
    assert vertices[:, 2].max() < 0.25


def test_a_small_component_that_the_camera_measured_stays_and_a_speck_does_not():
    body, hand, hidden, speck = (
        ball(radius, middle)
        for radius, middle in ((0.2, (0, 0, 0)), (0.04, (0.35, 0, 0)), (0.04, (-0.35, 0, 0)), (0.012, (0, 0.4, 0)))
    )
    field, config = Analytic(either(body, hand, hidden, speck), 128), MeshConfig(minimum_component=0.05)

    def seen(points):
        return (points[:, 2] < 0) & (points[:, 0] > -0.25)

    vertices, faces = extract_surface(field, 0, config, seen=seen)
    assert_closed(vertices, faces)
    assert vertices[:, 0].max() > 0.38 and vertices[:, 0].min() > -0.25 and vertices[:, 1].max() < 0.25
    alone, _ = extract_surface(field, 0, config)
    assert alone[:, 0].max() < 0.25


def test_hollow_inside_is_filled():
    def shell(points):
        return torch.maximum(ball(0.35)(points), -ball(0.2)(points))

    vertices, faces = extract_surface(Analytic(shell), 0, MeshConfig())
    assert_closed(vertices, faces)
    assert volume(vertices, faces) == pytest.approx(4 / 3 * np.pi * 0.35**3, rel=0.02)


def half_space(points):
    """Known to be empty where x > 0.1; nothing known elsewhere."""
    known = 0.1 - points[:, 0]
    return torch.where(known < 0.0, -known, torch.full_like(known, -torch.inf))


def test_surface_is_carved_out_of_space_seen_to_be_empty():
    vertices, faces = extract_surface(Analytic(ball(0.3)), 0, MeshConfig(carve=True), half_space)
    assert_closed(vertices, faces)
    assert vertices[:, 0].max() < 0.1 + 1 / 64
    cap = np.pi * 0.2**2 * (3 * 0.3 - 0.2) / 3
    assert volume(vertices, faces) == pytest.approx(4 / 3 * np.pi * 0.3**3 - cap, rel=0.03)


def test_carving_can_be_switched_off():
    whole, _ = extract_surface(Analytic(ball(0.3)), 0, MeshConfig(carve=False), half_space)
    assert whole[:, 0].max() > 0.29


def test_field_without_a_surface_is_an_error_that_says_so():
    with pytest.raises(InputError, match="nowhere negative") as error:
        extract_surface(Analytic(lambda points: torch.ones(len(points))), 3, MeshConfig())
    assert error.value.reason == "no_surface"


def test_everything_carved_away_is_no_surface():
    with pytest.raises(InputError, match="nowhere negative"):
        extract_surface(Analytic(ball(0.3)), 0, MeshConfig(carve=True), lambda points: torch.ones(len(points)))
