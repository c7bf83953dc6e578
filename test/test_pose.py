import numpy as np
import pytest
from moving_shapes import bend, mesh_of, rod_distance, rotation
from scipy.spatial.distance import cdist

from nr_tracking.deformation.carrier import build_carrier, grow_carrier, part_of
from nr_tracking.deformation.normal_equations import Motion, carried, still
from nr_tracking.deformation.patches import build_patches, mesh_edges
from nr_tracking.deformation.projection import sample_evenly
from nr_tracking.tracking.pose import Birth, CarriedPose

BENT = 2.0  # radians


@pytest.fixture(scope="module")
def bent_rod():
    """A rod's first pose, a later one in which it is bent and seen from elsewhere, and its graph."""
    vertices, faces = mesh_of(rod_distance, 32)
    samples = sample_evenly(vertices, faces, 300)
    nodes, graph = build_carrier(build_patches(vertices, faces, 20), samples.points, samples.vertex)
    first = CarriedPose(0, nodes, np.tile(np.eye(3), (len(nodes), 1, 1)), samples.points, samples.normals)
    turn, step = rotation([0.3, 1, 0.2], 0.8), 1e-5
    places = bend(nodes, BENT)
    # What bends does not shear across: columns of its Jacobian are nearly a rotation.
    jacobian = np.stack([(bend(nodes + step * axis, BENT) - places) / step for axis in np.eye(3)], axis=2)
    left, _, right = np.linalg.svd(jacobian)
    now = CarriedPose(1, places @ turn.T + [0.1, 0.0, 1.0], turn @ left @ right, samples.points, samples.normals)
    points, normals = carried(graph, first.nodes, first.points, first.normals, first.motion_to(now))
    return first, CarriedPose(1, now.nodes, now.turns, points, normals), graph


@pytest.mark.parametrize("most", [0, 1000])
def test_newborn_points_are_carried_from_the_first_pose_to_where_they_were_born(bent_rod, most):
    first, now, graph = bent_rod
    chosen = np.arange(0, 300, 7)
    points = now.points[chosen] + 0.01 * now.normals[chosen]
    growth = grow_carrier(graph, now.nodes, points, chosen, 0.02, most)
    assert (len(growth.nodes) > 0) == (most > 0)
    birth = Birth(now, points, now.normals[chosen], growth)

    then, here = birth.into(first), birth.into(now)
    assert np.allclose(here.points[300:], points, atol=1e-9)
    assert np.allclose(here.nodes, np.concatenate((now.nodes, growth.nodes)), atol=1e-9)
    newborn = part_of(growth.graph, np.arange(300, 300 + len(chosen)))
    places, sides = carried(newborn, then.nodes, then.points[300:], then.normals[300:], then.motion_to(here))
    assert np.abs(places - points).max() < 1e-9
    assert np.abs(sides - now.normals[chosen]).max() < 1e-9
    assert np.array_equal(then.points[:300], first.points)
    # And where they come from is beside the points that they are beside.
    assert np.linalg.norm(then.points[300:] - first.points[chosen], axis=1).max() < 0.02


def test_between_nodes_that_turned_against_each_other_the_strongest_decides(bent_rod):
    first, now, graph = bent_rod
    against = now.turns.copy()
    against[::2] = against[::2] @ rotation([0, 0, 1], np.pi)
    twisted = CarriedPose(1, now.nodes, against, now.points, now.normals)
    chosen = np.arange(0, 300, 7)
    growth = grow_carrier(graph, twisted.nodes, twisted.points[chosen], chosen, 1.0, 0)
    then = Birth(twisted, twisted.points[chosen], twisted.normals[chosen], growth).into(first)
    assert np.isfinite(then.points).all()
    assert np.ptp(then.points[300:], axis=0).max() < 2 * np.ptp(first.points, axis=0).max()


GAP = 0.03  # between the two limbs of a hairpin


def hairpin(near, far, joined):
    """Two limbs 0.1 wide along x, from ``near`` to ``far``, one over the other; ``joined`` where x is least or apart.

    Returns vertices, faces, and the limb of each vertex.
    """
    along = np.arange(near, far, 0.01)
    x, limb = np.concatenate((along[::-1], along)), np.repeat([0, 1], len(along))
    vertices = np.stack(np.broadcast_arrays(x[:, None], GAP * limb[:, None], 0.01 * np.arange(11)), 2).reshape(-1, 3)
    corner = np.arange(len(vertices)).reshape(-1, 11)
    a, b, c, d = corner[:-1, :-1], corner[1:, :-1], corner[:-1, 1:], corner[1:, 1:]
    quads = np.stack((a, b, c, b, d, c), axis=2)
    if not joined:
        quads = np.delete(quads, len(along) - 1, axis=0)
    return vertices, quads.reshape(-1, 3), np.repeat(limb, 11)


@pytest.mark.parametrize("joined", [True, False])
def test_limbs_that_touch_are_carried_apart_by_the_nodes_that_they_gain(joined):
    vertices, faces, limb = hairpin(0.0, 0.5, joined)
    patches = build_patches(vertices.astype(np.float32), faces, 20)
    nodes, graph = build_carrier(patches, vertices, np.arange(len(vertices)))
    points, more, side = hairpin(0.5, 0.9, False)
    other = limb != side[:, None]
    like = (cdist(points, vertices) + other).argmin(axis=1)
    spacing = np.sqrt(0.1 / len(nodes))
    growth = grow_carrier(graph, nodes, points, like, spacing, 1000, mesh_edges(more))
    grown = growth.graph

    every = np.concatenate((nodes, growth.nodes))
    of_node = (every[:, 1] > 0.5 * GAP).astype(int)
    assert set(of_node[len(nodes) :]) == {0, 1}  # either limb has new ones
    added = grown.edges[len(graph.edges) :]
    assert (of_node[added[:, 0]] == of_node[added[:, 1]]).all()
    assert set(added.ravel()) >= set(range(len(nodes), len(every)))
    newborn = part_of(grown, np.arange(len(vertices), len(grown.index)))
    assert np.linalg.norm(every[newborn.index[:, 0]] - points, axis=1).max() < 2 * spacing
    # One limb goes away: its points go with it, the others stay.
    away = Motion(still(every).rotations, every + 0.2 * of_node[:, None] * [0, 1, 0])
    moved, _ = carried(newborn, every, points, np.tile([0.0, 1, 0], (len(points), 1)), away)
    np.testing.assert_allclose(moved, points + 0.2 * side[:, None] * [0, 1, 0], atol=1e-3)


def half_cylinder(first, last, count):
    """A half of a body's trunk, 0.15 in radius and 0.5 high, between two angles: vertices, normals and faces."""
    angle, height = np.meshgrid(np.linspace(first, last, count), np.linspace(0, 0.5, count), indexing="ij")
    normals = np.stack((np.cos(angle), np.zeros_like(angle), np.sin(angle)), 2)
    vertices = 0.15 * normals + np.stack((np.zeros_like(angle), height, np.zeros_like(angle)), 2)
    corner = np.arange(count**2).reshape(count, count)
    a, b, c, d = corner[:-1, :-1], corner[1:, :-1], corner[:-1, 1:], corner[1:, 1:]
    faces = np.stack((a, b, c, b, d, c), axis=2).reshape(-1, 3)
    return vertices.reshape(-1, 3), normals.reshape(-1, 3), faces


def test_a_back_that_comes_into_view_from_both_sides_is_one_piece():
    vertices, normals, faces = half_cylinder(np.pi, 2 * np.pi, 45)
    nodes, graph = build_carrier(build_patches(vertices.astype(np.float32), faces, 40), vertices, np.arange(45**2))
    points, sides, back = half_cylinder(0.03, np.pi - 0.03, 40)
    like = (cdist(points, vertices) + 9.0 * (sides @ normals.T < 0.5)).argmin(axis=1)
    spacing = np.sqrt(np.pi * 0.15 * 0.5 / len(nodes))
    growth = grow_carrier(graph, nodes, points, like, spacing, 1000, mesh_edges(back))
    apart = cdist(growth.nodes, growth.nodes)
    tied = np.zeros(apart.shape, bool)
    new = growth.graph.edges[len(graph.edges) :] - len(nodes)
    new = new[(new >= 0).all(axis=1)]
    tied[new[:, 0], new[:, 1]] = tied[new[:, 1], new[:, 0]] = True
    near = (apart < 1.2 * spacing) & ~np.eye(len(apart), dtype=bool)
    left = growth.nodes[:, 0] < 0
    assert (near & left[:, None] & ~left).any()
    assert tied[near].all()
    # Points where the halves meet go with nodes of either side.
    newborn = part_of(growth.graph, np.arange(45**2, len(growth.graph.index)))
    every = np.concatenate((nodes, growth.nodes))
    of_left = (newborn.weight * (every[newborn.index][:, :, 0] < 0)).sum(axis=1)
    middle = np.abs(points[:, 0]) < 0.25 * spacing
    assert ((of_left[middle] > 0.05) & (of_left[middle] < 0.95)).mean() > 0.3
