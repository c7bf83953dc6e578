"""Losses against answers worked out by hand."""

import math
from types import SimpleNamespace
from typing import cast

import pytest
import torch

from nr_tracking.deformation.association import associate
from nr_tracking.training import losses
from nr_tracking.training.batches import TrainingBatch
from nr_tracking.training.objective import ray_losses
from nr_tracking.training_config import TrainingConfig


def test_clamped_distance_pulls_wherever_the_answer_is_wrong():
    target = torch.tensor([5.0, 5.0, -5.0, -5.0, 0.5, 5.0])
    predicted = torch.tensor([9.0, 1.0, -9.0, 3.0, 1.0, -4.0], requires_grad=True)
    loss = losses.clamped_distance(predicted, target, clamp=2.0)
    assert loss.item() == pytest.approx((0 + 1 + 0 + 5 + 0.5 + 6) / 6)
    loss.backward()
    # Far on the right side: free. Far on the wrong side: still pulled back.
    assert torch.equal(predicted.grad.sign(), torch.tensor([0.0, -1, 0, 1, 1, -1]))


def test_weights_are_volumes():
    """A sample that stands for three times the volume counts like three samples."""
    predicted, target = torch.tensor([0.0, 1.0]), torch.tensor([1.0, 1.5])
    weighted = losses.clamped_distance(predicted, target, 2.0, torch.tensor([3.0, 1.0]))
    assert weighted.item() == pytest.approx((3 * 1.0 + 0.5) / 4)
    thrice = losses.occupancy_entropy(predicted[[0, 0, 0, 1]], target[[0, 0, 0, 1]])
    once = losses.occupancy_entropy(predicted, target, torch.tensor([3.0, 1.0]))
    assert once.item() == pytest.approx(thrice.item())


def test_close_distance_leaves_alone_what_is_far():
    predicted = torch.tensor([0.2, -3.0], requires_grad=True)
    loss = losses.close_distance(predicted, torch.tensor([0.5, 2.0]), reach=1.0)
    assert loss.item() == pytest.approx((0.3 + 1.0) / 2)
    loss.backward()
    assert predicted.grad.tolist() == [-0.5, 0.0]


def test_occupancy_prefers_the_right_side():
    target = torch.tensor([1.0, -1.0])
    right, wrong = losses.occupancy_entropy(target, target), losses.occupancy_entropy(-target, target)
    assert right.item() == pytest.approx(math.log(1 + math.exp(-3)), rel=1e-5)
    assert wrong.item() == pytest.approx(math.log(1 + math.exp(3)), rel=1e-5)


def test_losses_of_nothing_are_zero_and_keep_the_graph():
    none = torch.zeros(0, requires_grad=True)
    total = losses.clamped_distance(none, torch.zeros(0), 2.0) + losses.occupancy_entropy(none, torch.zeros(0))
    assert total.item() == 0.0
    total.backward()


def test_eikonal_is_zero_for_distances_only():
    points = torch.randn(50, 3, dtype=torch.float64, requires_grad=True)
    for scale, expected in ((1.0, 0.0), (3.0, 4.0)):
        (gradient,) = torch.autograd.grad((scale * points.norm(dim=1)).sum(), points, create_graph=True)
        assert losses.eikonal(gradient).item() == pytest.approx(expected, abs=1e-9)
    flat = torch.zeros(4, 3, requires_grad=True)
    losses.eikonal(flat).backward()
    assert torch.isfinite(flat.grad).all()


def test_contrast_is_least_for_matching_embeddings():
    torch.manual_seed(0)
    points = torch.rand(40, 3)
    moved = points + torch.tensor([0.3, 0.0, 0.0])
    embedding = torch.nn.functional.normalize(torch.randn(40, 64), dim=1)
    shuffled = embedding[torch.randperm(40)]
    same = losses.contrast(embedding, embedding, points, moved, radius=1e-3, scale=50.0)
    other = losses.contrast(embedding, shuffled, points, moved, radius=1e-3, scale=50.0)
    assert same.item() < 1e-3 < 5 < other.item()


def test_contrast_forgives_neighbours_in_both_frames_only():
    """Two points that touch in one frame and part in the other have to be told apart; two that stay together do not."""
    alike = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    together = torch.tensor([[0.0, 0, 0], [0.001, 0, 0]])
    apart = torch.tensor([[0.0, 0, 0], [0.5, 0, 0]])
    forgiven = losses.contrast(alike, alike, together, together, radius=0.02, scale=20.0)
    blamed = losses.contrast(alike, alike, together, apart, radius=0.02, scale=20.0)
    assert forgiven.item() == pytest.approx(0.0, abs=1e-2)
    assert blamed.item() == pytest.approx(math.log(2), rel=1e-2)


def test_cycles_and_self_reconstruction_vanish_for_a_permutation():
    torch.manual_seed(1)
    features = torch.linalg.qr(torch.randn(30, 30))[0]
    first = torch.randn(30, 3)
    order, again = torch.randperm(30), torch.randperm(30)
    second = first[order]
    f2, f3 = features[order], features[again]

    def to(a, b):
        return associate(a, b, 100.0)

    assert losses.two_cycle(to(features, f2), to(f2, features), first, second).item() < 1e-6
    assert losses.three_cycle(to(features, f2), to(f2, f3), to(f3, features), first).item() < 1e-6
    assert losses.self_reconstruction(to(features, features), first).item() < 1e-6


def test_a_uniform_association_pays_the_variance():
    """It sends every centre to the centroid; then cycle and self-reconstruction cost the spread of the centres."""
    torch.manual_seed(2)
    centres = torch.randn(20, 3)
    uniform = torch.full((20, 20), 1 / 20)
    spread = (centres - centres.mean(0)).square().sum(1).mean().item()
    assert losses.self_reconstruction(uniform, centres).item() == pytest.approx(spread, rel=1e-5)
    assert losses.two_cycle(uniform, uniform, centres, centres).item() == pytest.approx(2 * spread, rel=1e-5)
    assert losses.three_cycle(uniform, uniform, uniform, centres).item() == pytest.approx(spread, rel=1e-5)


def test_robust_error_is_quadratic_near_and_linear_far():
    near = losses.robust_error(torch.tensor([[0.01, 0, 0]]), torch.zeros(1, 3), scale=1.0).item()
    far = losses.robust_error(torch.tensor([[100.0, 0, 0]]), torch.zeros(1, 3), scale=1.0).item()
    assert near == pytest.approx(0.5e-4, rel=1e-2)
    assert far == pytest.approx(99.0, rel=1e-3)
    assert losses.surface_distance(torch.tensor([-1.0, 2.0])).item() == 1.5


def test_a_sheet_however_thin_weighs_no_more_than_the_shell_in_which_it_is_blurred() -> None:
    training = TrainingConfig()
    places = torch.linspace(-0.2, 0.2, 40_001)  # across a sheet, evenly: each stands for as much space
    found = []
    for half in (0.0001, 0.001, 0.05):
        distance = places.abs() - half
        batch = cast(TrainingBatch, SimpleNamespace(distance=distance, weight=torch.ones_like(distance)))
        found.append(float(ray_losses(distance, batch, training)["ray_occupancy"]))
        if half == 0.05:  # thicker than that, it is in units of its own volume
            entropy = torch.log1p(torch.exp(-training.ray_sharpness * distance.abs()))
            assert found[-1] == pytest.approx(float(entropy.mean() * 0.4 / 0.1), rel=1e-2)
    assert max(found) < 1.1, "the truth itself costs no more than 1, as thin as it may be"
