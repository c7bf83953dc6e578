import numpy as np
import torch
from moving_shapes import figure_distance, mesh_of, rotation

from nr_tracking.config import load_config
from nr_tracking.deformation.decoder import DeformationDecoder, FeaStConv
from nr_tracking.deformation.patches import build_patches
from nr_tracking.deformation.rotations import (
    fit_rigid,
    nearest_rotation,
    rotation_from_6d,
    rotation_from_vector,
    vector_from_rotation,
)

MODEL = load_config("test").model


def inputs(graph, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.as_tensor(graph.centres)
    features = torch.randn(2, len(graph), MODEL.embedding_channels, generator=generator)
    return centres, features[0], centres + 0.05 * torch.randn(len(graph), 3, generator=generator), features[1]


def test_untrained_it_moves_every_centre_onto_its_match_without_turning():
    graph = build_patches(*mesh_of(figure_distance, 32), 40, (14, 5))
    values = inputs(graph)
    rotations, translations = DeformationDecoder(MODEL)(*values, graph)
    assert torch.allclose(rotations, torch.eye(3).expand(len(graph), 3, 3))
    assert torch.equal(translations, values[2])


def test_it_learns_a_rotation_of_the_whole():
    torch.manual_seed(0)
    graph = build_patches(*mesh_of(figure_distance, 32), 40, (14, 5))
    centres, first, _, second = inputs(graph)
    turn = torch.as_tensor(rotation([0, 1, 0], 0.6), dtype=torch.float32)
    goal = centres @ turn.T
    decoder = DeformationDecoder(MODEL)
    optimizer = torch.optim.Adam(decoder.parameters(), 3e-3)
    losses = []
    for _ in range(60):
        rotations, translations = decoder(centres, first, centres, second, graph)
        loss = (rotations - turn).square().mean() + (translations - goal).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]
    assert torch.allclose(rotations @ rotations.transpose(1, 2), torch.eye(3).expand_as(rotations), atol=1e-5)


def test_every_parameter_and_input_takes_part():
    graph = build_patches(*mesh_of(figure_distance, 32), 40, (14, 5))
    values = [value.requires_grad_() for value in inputs(graph)]
    decoder = DeformationDecoder(MODEL)
    torch.nn.init.normal_(decoder.head[-1].weight)
    rotations, translations = decoder(*values, graph)
    (rotations.square() * torch.rand_like(rotations)).sum().add(translations.square().sum()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in decoder.parameters())
    assert all(value.grad.abs().sum() > 0 for value in values)


def test_shallow_hierarchies_and_lone_patches_are_served():
    vertices, faces = mesh_of(figure_distance, 24)
    for count, hierarchy in ((20, ()), (20, (6,)), (1, (1, 1)), (30, (10, 4, 2))):
        graph = build_patches(vertices, faces, count, hierarchy)
        rotations, translations = DeformationDecoder(MODEL)(*inputs(graph), graph)
        assert rotations.shape == (len(graph), 3, 3) and torch.isfinite(translations).all()


def test_the_convolution_is_blind_to_the_order_of_nodes():
    torch.manual_seed(0)
    layer = FeaStConv(5, 7, 3)
    x = torch.randn(6, 5)
    senders, receivers = torch.tensor([0, 1, 2, 3, 4, 5, 0, 4]), torch.tensor([0, 1, 2, 3, 4, 5, 3, 1])
    order = torch.randperm(6)
    place = torch.argsort(order)
    assert torch.allclose(
        layer(x[order], place[senders], place[receivers]), layer(x, senders, receivers)[order], atol=1e-6
    )


def test_six_numbers_make_a_rotation():
    parameters = torch.randn(50, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = rotation_from_6d(parameters)
    assert torch.allclose(found @ found.transpose(1, 2), torch.eye(3).double().expand(50, 3, 3), atol=1e-12)
    assert torch.allclose(torch.linalg.det(found), torch.ones(50).double())
    assert torch.allclose(rotation_from_6d(found[:, :, :2].transpose(1, 2).reshape(50, 6)), found, atol=1e-12)


def test_axis_angle_round_trip_also_for_tiny_and_large_angles():
    generator = np.random.default_rng(0)
    axes = generator.normal(size=(40, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    vectors = axes * np.concatenate((np.zeros(1), np.geomspace(1e-9, 3.1, 39)))[:, None]
    rotations = rotation_from_vector(vectors)
    assert np.allclose(rotations @ np.swapaxes(rotations, 1, 2), np.eye(3), atol=1e-12)
    assert np.allclose(vector_from_rotation(rotations), vectors, atol=1e-9)
    assert np.allclose(rotation_from_vector(np.array([0.1, 0.2, 0.3])), rotation([1, 2, 3], np.sqrt(0.14)))


def test_the_nearest_rotation_is_never_a_reflection():
    matrices = np.random.default_rng(1).normal(size=(100, 3, 3))
    found = nearest_rotation(matrices)
    assert np.allclose(np.linalg.det(found), 1)
    assert np.allclose(nearest_rotation(3.0 * rotation([1, 0, 2], 0.5)), rotation([1, 0, 2], 0.5))


def test_rigid_fits_recover_the_motion_of_each_group():
    generator = np.random.default_rng(2)
    points, group = generator.normal(size=(90, 3)), np.arange(90) % 3
    turns = np.stack([rotation([1, k, 2], 0.4 * k) for k in range(3)])
    shifts = generator.normal(size=(3, 3))
    moved = np.einsum("vij,vj->vi", turns[group], points) + shifts[group]
    pivots = generator.normal(size=(4, 3))
    rotations, translations = fit_rigid(points, moved, group, 4, pivots)
    assert np.allclose(rotations[:3], turns, atol=1e-5)
    again = np.einsum("vij,vj->vi", rotations[group], points - pivots[group]) + translations[group]
    assert np.allclose(again, moved, atol=1e-4)
    assert np.allclose(rotations[3], np.eye(3)) and np.allclose(translations[3], pivots[3])
