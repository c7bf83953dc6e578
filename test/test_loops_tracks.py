"""Compiled loops of patches and tracks against their twins of array operations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from moving_shapes import figure_distance, mesh_of
from twins import both, needs_loops

from nr_tracking.deformation import patches

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
    for odd in (np.nan, np.inf, -np.inf):
        torn = vertices.copy()
        torn[::7] = odd
        graph = patches.build_patches(torn, faces, 60)
        assert graph.owner.min() >= 0 and graph.owner.max() < len(graph) and len(graph.owner) == len(torn)


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
    compiled, plain = both(lambda: patches._adjacent(owner, patches.mesh_edges(faces)))
    np.testing.assert_array_equal(compiled, plain)
