"""Compiled loops of patches and tracks against their twins of array operations."""

import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from moving_shapes import figure_distance, mesh_of, rotation, surface_of
from twins import both, needs_loops

from nr_tracking.config import RefinementConfig, TracksConfig
from nr_tracking.deformation import patches
from nr_tracking.deformation.normal_equations import DeformationGraph
from nr_tracking.deformation.projection import PointIndex, Projection, SurfaceIndex, sample_evenly
from nr_tracking.deformation.rotations import fit_rigid
from nr_tracking.loops import compiled_loops
from nr_tracking.normals import vertex_normals
from nr_tracking.tracking.pose import CarriedPose
from nr_tracking.tracking.steadying import Steadier
from nr_tracking.tracking.tracks import PersistentTracks
from nr_tracking.tracking.velocities import MotionEstimator

pytestmark = needs_loops


@pytest.fixture(scope="module")
def figure():
    """A mesh on which hardly any two ways are equally long."""
    vertices, faces = mesh_of(figure_distance, 48)
    return vertices + np.random.default_rng(0).normal(0, 1e-4, vertices.shape).astype(np.float32), faces


def same_patches(vertices, faces, count):
    compiled, plain = both(lambda: patches.build_patches(vertices, faces, count, (20, 5)))
    for name in ("index", "owner", "centres", "neighbours"):
        np.testing.assert_array_equal(getattr(compiled, name), getattr(plain, name), err_msg=name)
        assert getattr(compiled, name).dtype == getattr(plain, name).dtype
    np.testing.assert_allclose(compiled.widths, plain.widths, rtol=1e-6)
    ours, theirs = both(lambda: patches.build_patches(vertices, faces, count, (20, 5)).levels)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one.neighbours, other.neighbours)
        np.testing.assert_array_equal(one.parent, other.parent)


@pytest.mark.parametrize("count", [1, 7, 60, 200, 100_000])
def test_the_same_patches(figure, count):
    same_patches(*figure, count)


def test_the_same_patches_of_many_parts(figure):
    vertices, faces = figure
    places = np.concatenate([vertices, vertices + 1.0, vertices[:5] + 3.0, vertices[:1] - 2.0])
    corners = np.concatenate([faces, faces + len(vertices), 2 * len(vertices) + np.array([[0, 1, 2], [3, 4, 4]])])
    same_patches(places.astype(np.float32), corners.astype(np.int32), 40)


@pytest.mark.parametrize("count", [1, 3])
def test_patches_without_faces_or_extent(count):
    nothing = np.empty((0, 3), np.int32)
    same_patches(np.zeros((1, 3), np.float32), nothing, count)
    same_patches(np.zeros((5, 3), np.float32), nothing, count)
    same_patches(np.random.default_rng(1).random((9, 3)).astype(np.float32), nothing, count)


def test_no_patch_is_sought_where_a_vertex_is_no_number(figure):
    vertices, faces = figure
    whole, finite = patches.build_patches(vertices, faces, 60), np.arange(len(vertices)) % 7 > 0

    def reach(graph):
        return np.linalg.norm(vertices - graph.centres[graph.owner], axis=1)[finite].max()

    for odd in (np.nan, np.inf, -np.inf):
        torn = vertices.copy()
        torn[::7] = odd
        graph = patches.build_patches(torn, faces, 60)
        assert len(graph.owner) == len(torn) and graph.index.min() >= 0 and graph.index.max() < len(torn)
        np.testing.assert_array_equal(graph.owner[graph.index], np.arange(len(graph)))  # each patch has its centre
        np.testing.assert_array_equal(np.unique(graph.owner), np.arange(len(graph)))
        assert np.isinf(odd) or reach(graph) < 1.2 * reach(whole)  # an infinite extent is not cut


def test_seeds_at_the_same_distance_leave_a_vertex_to_the_first():
    strip = np.zeros((5, 3))
    strip[:, 0] = np.arange(5)
    edges = np.stack((np.arange(4), np.arange(1, 5)), axis=1).astype(np.int32)
    seeds, owner = patches._cells(strip, edges, 2)
    apart = np.abs(strip[:, :1] - strip[seeds, 0])
    np.testing.assert_array_equal(owner, apart.argmin(axis=1))


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 6)), max_size=20))
def test_the_same_edges(corners):
    faces = np.array(corners, np.int32).reshape(-1, 3)
    compiled, plain = both(lambda: patches.mesh_edges(faces))
    np.testing.assert_array_equal(compiled, plain)
    owner = np.array([0, 2, 1, 1, 0, 2, 3], np.int32)
    compiled, plain = both(lambda: patches.adjacent(owner, patches.mesh_edges(faces)))
    np.testing.assert_array_equal(compiled, plain)


def walk(frames, count, seed=0):
    """Positions (T, N, 3) of points that move smoothly, with noise and gaps, and their stamps (T,)."""
    random = np.random.default_rng(seed)
    times = np.cumsum(random.uniform(0.02, 0.05, frames))
    phase, size = random.uniform(0, 6, (count, 3)), random.uniform(0, 0.3, (count, 3))
    positions = 2 + size * np.sin(3 * times[:, None, None] + phase) + random.normal(0, 1e-3, (frames, count, 3))
    positions[random.random((frames, count)) < 0.1] = np.nan
    positions[5:, 3] = np.nan
    positions[:, 4] = np.nan
    return positions.astype(np.float32), (1e9 * times).astype(np.int64)


@pytest.mark.parametrize("with_speeds", [False, True])
def test_the_same_velocities_of_points_that_come_and_go(with_speeds):
    positions, stamps = walk(14, 700)
    speeds = np.diff(positions, axis=0) / (1e-9 * np.diff(stamps))[:, None, None]

    def live():
        estimator, random, seen = MotionEstimator(), np.random.default_rng(2), []
        for frame, (places, stamp) in enumerate(zip(positions, stamps, strict=True)):
            ids = np.arange(len(places))[(np.arange(len(places)) + frame // 4) % 5 > 0]
            if frame in (6, 9):
                ids = random.permutation(ids)
            estimator.observe(ids, places[ids], stamp, speeds[frame - 1, ids] if with_speeds and frame else None)
            seen.append((estimator.velocities, *estimator.predict(stamp + 50_000_000)))
        return seen

    for ours, theirs in zip(*both(live), strict=True):
        for one, other in zip(ours, theirs, strict=True):
            # Where two fits have done equally well, rounding decides between them.
            np.testing.assert_array_equal(np.isnan(one), np.isnan(other))
            assert np.mean(np.isnan(other) | (np.abs(one - other) < 1e-4 * (1 + np.abs(other)))) > 0.999


@pytest.mark.parametrize("count", [0, 1])
def test_the_velocities_of_hardly_any_points(count):
    positions, stamps = walk(6, 5)

    def live():
        estimator = MotionEstimator()
        for frame in range(6):
            kept = count if frame != 3 else 2 - count  # all new in one frame, or none left
            estimator.observe(np.arange(kept) + frame // 3, positions[frame, :kept], stamps[frame])
        return estimator.velocities

    compiled, plain = both(live)
    np.testing.assert_allclose(compiled, plain, rtol=1e-4)


def chain(count, nodes, seed=0):
    """Points that hang on four of a row of nodes each."""
    random = np.random.default_rng(seed)
    first = random.integers(0, nodes, (count, 1))
    index = np.clip(first + np.arange(4) - 1, 0, nodes - 1)
    weight = random.random((count, 4))
    weight /= weight.sum(axis=1, keepdims=True)
    edges = np.stack((np.arange(nodes - 1), np.arange(1, nodes)), axis=1).astype(np.int32)
    return DeformationGraph(nodes, edges, np.full(nodes - 1, 0.1), index, weight)


@pytest.mark.parametrize(("count", "nodes"), [(500, 20), (1, 1), (3, 9)])
def test_the_same_steady_tracks(count, nodes):
    graph, random = chain(count, nodes), np.random.default_rng(3)
    points, stamps = random.random((count, 3)), 33_000_000 * np.array([1, 2, 3, 5, 6, 7, 8, 9])
    places = points + np.cumsum(random.normal(0, 0.01, (8, count, 3)), axis=0)
    pose = CarriedPose(0, np.zeros((nodes, 3)), np.tile(np.eye(3), (nodes, 1, 1)), points, points)

    def live():
        steadier = Steadier(1.0)
        steadier.start(pose)
        return [steadier.step(graph, int(stamp), now) for stamp, now in zip(stamps, places, strict=True)]

    compiled, plain = both(live)
    np.testing.assert_allclose(compiled, plain, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("points", "corners", "unit"), [(None, None, 1), (None, 7, 1), (2, 0, 1), (None, None, np.nan)]
)
def test_the_same_normals_to_the_bit(figure, points, corners, unit):
    vertices, faces = figure
    compiled, plain = both(lambda: vertex_normals(unit * vertices[:points], faces[:corners]))
    np.testing.assert_array_equal(compiled, plain)


def clouds():
    random = np.random.default_rng(4)
    even, spread = random.random((400, 3)), random.normal(size=(400, 3)) ** 5  # a few far away from all others
    flat, line = random.random((300, 3)) * [1, 1, 0], random.random((50, 1)) * [1.0, 2.0, 3.0]
    return {"even": even, "spread": spread, "flat": flat, "line": line, "one": even[:1], "three": even[:3]}


@pytest.mark.parametrize("name", clouds())
@pytest.mark.parametrize(("count", "radius"), [(1, np.inf), (4, np.inf), (4, 0.15), (9, 3.0)])
def test_the_same_nearest_points(name, count, radius):
    points, random = clouds()[name], np.random.default_rng(5)
    queries = np.concatenate((points + random.normal(0, 0.02, points.shape), 6 * random.random((200, 3)) - 3, points))
    (distance, found), (apart, known) = both(lambda: PointIndex(points).nearest(queries, count, radius))
    np.testing.assert_allclose(distance, apart, rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(found, known)


def test_nearest_of_points_in_one_place_is_the_first():
    found = PointIndex(np.ones((20, 3))).nearest(np.array([[1.0, 1.0, 1.0], [5.0, 0.0, 1.0]]), 4)[1]
    np.testing.assert_array_equal(found, [[0, 1, 2, 3]] * 2)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused_as_by_a_search_tree(odd):
    points = np.random.default_rng(6).random((50, 3))
    torn = points.copy()
    torn[::2, 1] = odd

    def refused():
        for known, asked in ((points, torn), (torn, points)):
            with pytest.raises(ValueError, match="finite"):
                PointIndex(known).nearest(asked, 2, 10.0)
            with pytest.raises(ValueError, match="finite"):
                PointIndex(known).facing(points, asked, points, -2.0)

    both(refused)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, 1e300])
def test_nothing_is_near_to_what_is_no_number(odd):
    loops, points = compiled_loops("projection"), np.random.default_rng(6).random((50, 3))
    torn = points.copy()
    torn[::2, 1] = odd
    for radius in (10.0, np.inf):
        distance, found = loops.nearest(*loops.grid_of(points), torn, 2, radius)
        assert (found[::2] == -1).all() and np.isinf(distance[::2]).all()
        np.testing.assert_array_equal(found[1::2, 0], np.arange(1, 50, 2))
        distance, found = loops.nearest(*loops.grid_of(torn), points, 1, radius)
        assert set(found[:, 0]) == set(range(1, 50, 2))
        np.testing.assert_array_equal(found[1::2, 0], np.arange(1, 50, 2))
        distance, found = loops.nearest(*loops.grid_of(np.full((9, 3), odd)), points, 3, radius)
        assert (found == -1).all() and np.isinf(distance).all()


@pytest.mark.parametrize("extent", [(1, 1, 1000), (1000, 1, 1), (1, 1000, 1), (1000, 300, 0), (0, 300, 1000)])
def test_nearest_points_on_long_grids_and_far_away(extent):
    random = np.random.default_rng(9)
    points, queries = random.random((3000, 3)) * extent, 3000 * random.normal(size=(300, 3))
    queries[200:] = random.random((100, 3)) * extent  # near to these are others, or just as many empty cells
    points = points[(points[:, 0] < 0.4 * extent[0] + 0.1) | (points[:, 0] > 0.6 * extent[0])]
    (distance, found), (apart, known) = both(lambda: PointIndex(points).nearest(queries, 4))
    np.testing.assert_allclose(distance, apart, rtol=1e-12)
    np.testing.assert_array_equal(found, known)


def test_what_is_far_away_takes_no_longer():
    points = np.random.default_rng(10).random((5000, 3)) * [1000, 30, 1]
    index, away = PointIndex(points), 10.0 ** np.arange(1, 150)[:, None] * [0.3, -2.0, 1.0]
    index.nearest(points[:9], 4)
    begin = time.thread_time()
    index.nearest(np.concatenate((away, -away)), 4)
    assert time.thread_time() - begin < 1.0


@pytest.mark.parametrize("radius", [1e-3, 0.1, 5.0])
def test_the_same_projection(figure, radius):
    vertices, faces = figure
    samples, random = sample_evenly(vertices, faces, 900), np.random.default_rng(7)
    points = samples.points + random.normal(0, 0.03, samples.points.shape)
    sides = np.where(random.random((900, 1)) < 0.2, -1, 1) * samples.normals
    index = SurfaceIndex(vertices, faces)
    compiled, plain = both(lambda: index.project(points, sides, radius, 0.3))
    for name in ("points", "normals", "distance"):
        np.testing.assert_allclose(getattr(compiled, name), getattr(plain, name), rtol=0, atol=1e-12, err_msg=name)
    for name in ("vertex", "around"):
        np.testing.assert_array_equal(getattr(compiled, name), getattr(plain, name), err_msg=name)
    wanted = random.random(900) < 0.8
    np.testing.assert_array_equal(*both(lambda: plain.nearest(index.points, points, wanted)))


@pytest.mark.parametrize("sizes", [(5, 4, 5), (5, 5, 4), (4, 5, 5)])
def test_points_of_another_number_than_were_projected_are_refused(sizes):
    around, places, wanted = sizes
    nothing = np.zeros((around, 3))
    landing = Projection(nothing, nothing, nothing[:, 0], np.zeros(around, int), np.zeros((4, around), int))

    def refused():
        with pytest.raises(ValueError, match=rf"around \({around},\), places \({places},\), wanted \({wanted},\)"):
            landing.nearest(np.eye(3), np.zeros((places, 3)), np.ones(wanted, bool))

    both(refused)


@pytest.mark.parametrize(("known", "placed"), [(9, 8), (8, 9), (9, 9)])
def test_steady_tracks_of_another_number_of_points_are_refused(known, placed):
    pose = CarriedPose(0, np.zeros((4, 3)), np.tile(np.eye(3), (4, 1, 1)), np.zeros((known, 3)), np.zeros((known, 3)))

    def refused():
        steadier = Steadier(1.0)
        steadier.start(pose)
        with pytest.raises(ValueError, match=rf"graph \(8, 3\), state \({known}, 3\), places \({placed}, 3\)"):
            steadier.step(chain(8, 4), 33_000_000, np.zeros((placed, 3)))

    both(refused)


def test_projection_onto_less_than_four_vertices():
    triangle, faces = np.eye(3), np.array([[0, 1, 2]])
    index = SurfaceIndex(triangle, faces)
    compiled, plain = both(lambda: index.project(triangle + 0.1, index.normals, 1.0, 0.3))
    np.testing.assert_allclose(compiled.points, plain.points, atol=1e-12)
    np.testing.assert_array_equal(compiled.around, plain.around)
    nobody = index.project(np.empty((0, 3)), np.empty((0, 3)), 1.0, 0.3)
    assert nobody.points.shape == (0, 3)
    np.testing.assert_array_equal(nobody.nearest(triangle, np.empty((0, 3)), np.empty(0, bool)), [-1, -1, -1])


def test_the_same_trace_and_patches(figure):
    vertices, faces = figure
    surfaces = [surface_of(vertices @ rotation([0, 1, 0], 0.05 * step).T, faces) for step in range(4)]
    graph = patches.build_patches(vertices, faces, 60)
    tracks = PersistentTracks(RefinementConfig(nodes=80, samples=200), TracksConfig(count=500, renew_frames=2))
    tracks.start(surfaces[0], 0)
    for step, (before, surface) in enumerate(pairwise(surfaces)):
        tracks.advance(surface, 33_000_000 * (step + 1))
        ours, theirs = both(lambda: tracks.patches(before, graph))  # noqa: B023
        np.testing.assert_allclose(ours.translations, theirs.translations, rtol=0, atol=1e-6)
        np.testing.assert_allclose(ours.rotations, theirs.rotations, rtol=0, atol=1e-4)
        for one, other in zip(*both(lambda: tracks.trace(surface)), strict=True):  # noqa: B023
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("extent", [(1, 1, 1), (1, 1, 0), (1, 0, 0), (0, 0, 0)])
@pytest.mark.parametrize("noise", [0.0, 0.05, 2.0])
def test_the_same_rigid_motions(extent, noise):
    random = np.random.default_rng(8)
    before, pivots = random.random((300, 3)) * extent, random.random((30, 3))
    group = random.integers(0, 28, 300).astype(np.int32)
    group[group == 5] = 4  # two groups at the end and one within are empty, one is alone
    group[0] = 27
    after = before @ rotation([1, 2, 3], 2.5).T + 0.3 + noise * random.normal(size=before.shape)
    rigid = compiled_loops("rigid")
    turns, shifts = rigid.fit_rigid(before, after, group, 30, pivots)
    known, moved = fit_rigid(before, after, group, 30, pivots)
    if extent[1]:
        np.testing.assert_allclose(turns, known, rtol=0, atol=1e-7)
    # About the line that points lie on any turn fits as well: what they have to share is where it leads the points.
    ours, theirs = (
        np.einsum("vij,vj->vi", r[group], before - pivots[group]) + t[group]
        for r, t in ((turns, shifts), (known, moved))
    )
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
    empty = np.bincount(group, minlength=30) == 0
    np.testing.assert_allclose(turns[empty], np.tile(np.eye(3), (empty.sum(), 1, 1)), atol=1e-12)
    np.testing.assert_allclose(shifts[empty], pivots[empty], atol=1e-12)
    np.testing.assert_allclose(turns @ np.swapaxes(turns, 1, 2), np.tile(np.eye(3), (30, 1, 1)), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(turns), 1.0)
    np.testing.assert_allclose(((ours - after) ** 2).sum(), ((theirs - after) ** 2).sum(), rtol=1e-6, atol=1e-12)
