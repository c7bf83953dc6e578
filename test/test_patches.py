import time

import numpy as np
import pytest
from moving_shapes import figure_distance, mesh_of
from scipy.sparse.csgraph import connected_components, dijkstra

from nr_tracking.deformation.patches import (
    build_patches,
    edge_graph,
    farthest_points,
    mesh_edges,
    neighbour_table,
)
from nr_tracking.types import InputError


@pytest.fixture(scope="module")
def figure():
    return mesh_of(figure_distance, 64)


def test_every_vertex_belongs_to_the_patch_whose_centre_is_nearest_along_the_surface(figure):
    vertices, faces = figure
    graph = build_patches(vertices, faces, 120)
    distance = dijkstra(edge_graph(vertices.astype(float), mesh_edges(faces)), directed=False, indices=graph.index)
    own = distance[graph.owner, np.arange(len(vertices))]
    assert np.allclose(own, distance.min(axis=0), rtol=1e-6)
    assert np.array_equal(graph.owner[graph.index], np.arange(len(graph)))
    assert np.array_equal(graph.centres, vertices[graph.index])


def test_patches_are_about_as_even_as_farthest_points(figure):
    vertices, faces = figure
    graph = build_patches(vertices, faces, 150)
    edges = mesh_edges(faces)
    weights = edge_graph(vertices.astype(float), edges)
    seeds = farthest_points(vertices.astype(float), edges, len(graph))
    reach = dijkstra(weights, directed=False, indices=graph.index, min_only=True)
    best = dijkstra(weights, directed=False, indices=seeds, min_only=True)
    assert 0.9 * 150 <= len(graph) <= 150
    assert reach.mean() < 1.1 * best.mean()
    assert reach.max() < 2.2 * best.max()


def test_a_patch_is_one_piece(figure):
    vertices, faces = figure
    graph = build_patches(vertices, faces, 100)
    edges = mesh_edges(faces)
    inside = edges[graph.owner[edges[:, 0]] == graph.owner[edges[:, 1]]]
    pieces, _ = connected_components(edge_graph(vertices.astype(float), inside), directed=False)
    assert pieces == len(graph)


def test_neighbours_share_a_mesh_edge_and_are_listed_once(figure):
    vertices, faces = figure
    graph = build_patches(vertices, faces, 100)
    wanted = {tuple(sorted(pair)) for pair in graph.owner[mesh_edges(faces)].tolist() if pair[0] != pair[1]}
    assert sorted(map(tuple, graph.neighbours.tolist())) == sorted(wanted)


def test_limbs_that_touch_without_being_joined_keep_their_own_patches():
    sheet = np.stack(np.meshgrid(np.arange(20), np.arange(20), indexing="ij"), -1).reshape(-1, 2) * 0.05
    quads = (np.arange(19)[:, None] * 20 + np.arange(19)).reshape(-1)
    faces = np.concatenate(
        (np.stack((quads, quads + 1, quads + 20), 1), np.stack((quads + 1, quads + 21, quads + 20), 1))
    )
    lower = np.concatenate((sheet, np.zeros((400, 1))), axis=1)
    vertices = np.concatenate((lower, lower + np.array([0, 0, 0.001])))
    graph = build_patches(vertices, np.concatenate((faces, faces + 400)), 30)
    layer = np.arange(800) // 400
    for patch in range(len(graph)):
        assert len(set(layer[graph.owner == patch])) == 1
    assert set(layer[graph.index]) == {0, 1}


def test_coarser_levels_are_nested_and_smaller(figure):
    graph = build_patches(*figure, 150, (50, 17))
    sizes = [len(level.centres) for level in graph.levels]
    assert sizes[0] == len(graph) and 40 <= sizes[1] <= 50 and 12 <= sizes[2] <= 17
    for fine, coarse in zip(graph.levels, graph.levels[1:], strict=False):
        assert set(fine.parent) == set(range(len(coarse.centres)))
        fine_set = {tuple(centre) for centre in fine.centres}
        assert all(tuple(centre) in fine_set for centre in coarse.centres)
    assert len(graph.levels[-1].parent) == 0


def test_fewer_vertices_than_patches_makes_every_vertex_a_patch():
    vertices = np.eye(4, 3)
    faces = np.array([[0, 1, 2], [0, 2, 3], [0, 3, 1], [1, 3, 2]])
    graph = build_patches(vertices, faces, 200, (65, 22))
    assert len(graph) == 4 and len(graph.neighbours) == 6
    assert [len(level.centres) for level in graph.levels] == [4, 4, 4]


def test_an_empty_mesh_is_refused_by_name():
    with pytest.raises(InputError) as error:
        build_patches(np.empty((0, 3)), np.empty((0, 3), int), 10)
    assert error.value.reason == "empty_mesh"


def test_widths_scale_with_the_surface(figure):
    vertices, faces = figure
    small, large = build_patches(vertices, faces, 80), build_patches(vertices * 4, faces, 80)
    assert np.allclose(large.widths, 4 * small.widths, rtol=1e-5)
    assert small.widths.min() > 0


def test_neighbour_table_lists_every_pair_from_both_ends():
    pairs = np.array([[0, 1], [1, 2], [1, 3]], np.int32)
    table, edge, valid = neighbour_table(pairs, 5)
    assert table.shape == (5, 3)
    assert [sorted(row[use].tolist()) for row, use in zip(table, valid, strict=True)] == [[1], [0, 2, 3], [1], [1], []]
    assert [sorted(row[use].tolist()) for row, use in zip(edge, valid, strict=True)] == [[0], [0, 1, 2], [1], [2], []]


def test_it_is_many_times_quicker_than_farthest_points():
    vertices, faces = mesh_of(figure_distance, 96)

    def best_of(repeats, work):
        took = []
        for _ in range(repeats):
            start = time.perf_counter()
            work()
            took.append(time.perf_counter() - start)
        return min(took)

    quick = best_of(4, lambda: build_patches(vertices, faces, 200, (65, 22)))
    edges = mesh_edges(faces)
    thorough = best_of(1, lambda: farthest_points(vertices.astype(float), edges, 200))
    assert 4 * quick < thorough
