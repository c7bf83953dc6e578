import numpy as np
import pytest
import torch
from moving_shapes import figure_distance, mesh_of, rotation

from nr_tracking.deformation.blending import blend_weights, deform, rigidity_energy, rigidity_moments
from nr_tracking.deformation.patches import build_patches
from nr_tracking.deformation.rotations import rotation_from_vector


@pytest.fixture(scope="module")
def scene():
    vertices, faces = mesh_of(figure_distance, 40)
    graph = build_patches(vertices, faces, 60)
    return torch.as_tensor(vertices, dtype=torch.float64), graph


def test_weights_sum_to_one_over_own_and_adjacent_patches(scene):
    points, graph = scene
    blend = blend_weights(points, graph)
    assert torch.allclose(blend.weight.sum(1), torch.ones(len(points), dtype=torch.float64))
    allowed = {(int(a), int(b)) for a, b in graph.neighbours} | {(int(b), int(a)) for a, b in graph.neighbours}
    allowed |= {(k, k) for k in range(len(graph))}
    vertex, slot = (blend.weight > 0).nonzero(as_tuple=True)
    used = zip(graph.owner[vertex].tolist(), blend.index[vertex, slot].tolist(), strict=True)
    assert set(used) <= allowed
    at_centres = blend.weight[torch.as_tensor(graph.index).long(), 0]
    assert (at_centres >= blend.weight[torch.as_tensor(graph.index).long()].max(1).values - 1e-12).all()


def test_limit_keeps_the_largest_weights(scene):
    points, graph = scene
    full, four = blend_weights(points, graph), blend_weights(points, graph, limit=4)
    assert four.index.shape == (len(points), 4)
    largest = full.weight.topk(4, dim=1).values
    assert torch.allclose(four.weight, largest / largest.sum(1, keepdim=True))


def test_identity_reproduces_the_mesh(scene):
    points, graph = scene
    centres = torch.as_tensor(graph.centres, dtype=torch.float64)
    same = deform(
        points, blend_weights(points, graph), centres, torch.eye(3).double().expand(len(graph), 3, 3), centres
    )
    assert torch.allclose(same, points, atol=1e-12)


def test_a_rigid_motion_is_reproduced_exactly_and_costs_nothing(scene):
    points, graph = scene
    turn = torch.as_tensor(rotation([1, 2, 3], 1.1))
    shift = torch.tensor([0.3, -0.2, 2.0], dtype=torch.float64)
    centres = torch.as_tensor(graph.centres, dtype=torch.float64)
    rotations, translations = turn.expand(len(graph), 3, 3), centres @ turn.T + shift
    moved = deform(points, blend_weights(points, graph), centres, rotations, translations)
    assert torch.allclose(moved, points @ turn.T + shift, atol=1e-12)
    assert rigidity_energy(rigidity_moments(points, graph), rotations, translations) < 1e-20


def test_energy_equals_the_sum_over_vertices_that_defines_it(scene):
    points, graph = scene
    generator = np.random.default_rng(0)
    rotations = torch.as_tensor(rotation_from_vector(generator.normal(0, 0.3, (len(graph), 3))))
    centres = torch.as_tensor(graph.centres, dtype=torch.float64)
    translations = centres + torch.as_tensor(generator.normal(0, 0.05, (len(graph), 3)))
    blend = blend_weights(points, graph)
    dense = torch.zeros(len(points), len(graph), dtype=torch.float64).scatter_add_(1, blend.index, blend.weight)
    energies = []
    for p, q in graph.neighbours:
        members = torch.as_tensor((graph.owner == p) | (graph.owner == q))
        v, weight = points[members], (dense[:, p] + dense[:, q])[members]
        gap = (v - centres[p]) @ rotations[p].T + translations[p] - (v - centres[q]) @ rotations[q].T - translations[q]
        energies.append((weight * gap.square().sum(1)).sum() / weight.sum())
    expected = torch.stack(energies).mean()
    assert torch.allclose(rigidity_energy(rigidity_moments(points, graph), rotations, translations), expected)


def test_gradients_of_positions_and_energy_are_right():
    vertices, faces = mesh_of(figure_distance, 16)
    graph = build_patches(vertices, faces, 8)
    points = torch.as_tensor(vertices, dtype=torch.float64)[:40]
    blend = blend_weights(points, graph, graph.owner[:40])
    moments = rigidity_moments(torch.as_tensor(vertices, dtype=torch.float64), graph)
    generator = torch.Generator().manual_seed(0)
    rotations = torch.randn(len(graph), 3, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    places = torch.randn(len(graph), 3, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda r, u: deform(points, blend, graph.centres, r, u), (rotations, places))
    assert torch.autograd.gradcheck(lambda r, u: rigidity_energy(moments, r, u), (rotations, places))


def test_a_single_patch_has_no_rigidity_energy():
    vertices, faces = mesh_of(figure_distance, 16)
    graph = build_patches(vertices, faces, 1)
    moments = rigidity_moments(torch.as_tensor(vertices), graph)
    assert rigidity_energy(moments, torch.eye(3)[None], torch.zeros(1, 3)) == 0


def test_moments_refuse_truncated_weights(scene):
    points, graph = scene
    with pytest.raises(ValueError, match="without a limit"):
        rigidity_moments(points, graph, blend_weights(points, graph, limit=4))
