import numpy as np
import pytest
from moving_shapes import bend, mesh_of, rod_distance, rotation

from nr_tracking.deformation.carrier import build_carrier, grow_carrier, part_of
from nr_tracking.deformation.normal_equations import carried
from nr_tracking.deformation.patches import build_patches
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
