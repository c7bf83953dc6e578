"""Interpolation and the field: against grid_sample, against itself, and differentiated twice."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional

from nr_tracking.config import load_config
from nr_tracking.fields.decoder import distances_of_children, distances_of_coarse
from nr_tracking.fields.field import (
    DistanceMLP,
    EmbeddingHead,
    FieldWindow,
    KnownDistances,
    interpolate_dense,
    interpolate_sparse,
    lattice,
    upsample,
)
from nr_tracking.fields.sparse import SparseGrid
from nr_tracking.training.motion import patch_surface


def random_points(count, frames, dtype=torch.float64, reach=0.5):
    points = (torch.rand(count, 3, dtype=dtype) * 2 - 1) * reach
    return points.requires_grad_(), torch.randint(0, frames, (count,))


def full_grid(resolution, frames):
    return SparseGrid(torch.ones(frames, *[resolution] * 3).nonzero().int(), resolution, frames)


def test_dense_interpolation_equals_grid_sample():
    torch.manual_seed(0)
    grid = torch.randn(2, 5, 5, 5, 3, dtype=torch.float64, requires_grad=True)
    points, frame = random_points(200, 2, reach=0.6)  # some of them outside the box

    ours = interpolate_dense(grid, points, frame)
    images = grid.permute(0, 4, 3, 2, 1)  # grid_sample reads (z, y, x)
    sampled = functional.grid_sample(
        images[frame], 2 * points[:, None, None, None], align_corners=False, padding_mode="border"
    )[:, :, 0, 0, 0]

    torch.testing.assert_close(ours, sampled, rtol=1e-12, atol=1e-12)
    direction = torch.randn_like(ours)
    for mine, theirs in zip(
        torch.autograd.grad(ours, [grid, points], direction),
        torch.autograd.grad(sampled, [grid, points], direction),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-11)


def test_sparse_interpolation_equals_dense_on_full_support():
    torch.manual_seed(1)
    grid = full_grid(4, 2)
    features = torch.randn(len(grid), 3, dtype=torch.float64)
    points, frame = random_points(100, 2)
    values, valid = interpolate_sparse(features, grid, points, frame)
    dense = grid.dense(features).permute(0, 2, 3, 4, 1)
    torch.testing.assert_close(values, interpolate_dense(dense, points, frame), rtol=1e-12, atol=1e-12)
    assert bool(valid.all())


def test_absent_corners_have_no_weight_and_make_a_point_invalid():
    grid = SparseGrid(torch.tensor([[0, 1, 1, 1], [0, 2, 1, 1]], dtype=torch.int32), 4, 1)
    features = torch.tensor([[1.0], [3.0]])
    between, beyond = (torch.tensor([[1.75, 1.7, 1.6]]) / 4 - 0.5), torch.tensor([[0.45, 0.45, 0.45]])
    values, valid = interpolate_sparse(features, grid, torch.cat([between, beyond]), torch.zeros(2, dtype=torch.int64))
    torch.testing.assert_close(values[:, 0], torch.tensor([1.5, 0.0]))  # a quarter of the way from voxel 1 to voxel 2
    assert not valid.any()


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_interpolation_can_be_differentiated_twice(kind):
    torch.manual_seed(2)
    points, frame = random_points(6, 2, reach=0.45)
    if kind == "dense":
        features = torch.randn(2, 3, 3, 3, 2, dtype=torch.float64, requires_grad=True)

        def value(f, p):
            return interpolate_dense(f, p, frame)
    else:
        grid = SparseGrid((torch.rand(2, 3, 3, 3) < 0.7).nonzero().int(), 3, 2)
        features = torch.randn(len(grid), 2, dtype=torch.float64, requires_grad=True)

        def value(f, p):
            return interpolate_sparse(f, grid, p, frame)[0]

    assert gradcheck(value, (features, points))
    assert gradgradcheck(value, (features, points))


def test_eikonal_term_reaches_features_and_weights():
    torch.manual_seed(3)
    mlp = DistanceMLP(4, 8, 3, unit=0.5).double()
    points, frame = random_points(5, 1, reach=0.45)
    features = torch.randn(1, 3, 3, 3, 4, dtype=torch.float64, requires_grad=True)

    def penalty(f, *weights):
        values = mlp(interpolate_dense(f, points, frame), points)
        (slope,) = torch.autograd.grad(values.sum(), points, create_graph=True)
        return (slope.norm(dim=1) - 1).square().mean()

    assert gradcheck(penalty, (features, *mlp.parameters()))


@pytest.fixture
def window():
    """A field with sparse scales around a ball in the first of two frames, nothing refined in the second."""
    torch.manual_seed(4)

    def ball(resolution, width):
        near = (lattice(resolution, torch.zeros(())).norm(dim=1) - 0.25).abs() < width
        marks = torch.stack([near, torch.zeros_like(near)]).view(2, *[resolution] * 3)
        return SparseGrid(marks.nonzero().int(), resolution, 2)

    middle, fine = ball(16, 0.16), ball(32, 0.08)
    mlp, head = DistanceMLP(4, 16, 2, unit=1 / 8), EmbeddingHead(4, 6)
    torch.nn.init.normal_(mlp.last.weight)
    return FieldWindow(
        torch.randn(2, 8, 8, 8, 4),
        (middle, torch.randn(len(middle), 4)),
        (fine, torch.randn(len(fine), 4)),
        KnownDistances(torch.zeros(2, 8, 8, 8), torch.zeros(len(middle), 8)),
        mlp,
        head,
    )


def sphere_points(count, radius):
    return functional.normalize(torch.randn(count, 3), dim=1) * radius


def test_distance_is_the_fine_one_near_the_surface_and_the_coarse_one_far_away(window):
    frame = torch.zeros(50, dtype=torch.int64)
    near, far = sphere_points(50, 0.25), sphere_points(50, 0.49)
    fine, valid = window.level_sdf(32, near, frame)
    assert bool(valid.all())
    torch.testing.assert_close(window.sdf(near, frame), fine)
    torch.testing.assert_close(window.sdf(far, frame), window.level_sdf(8, far, frame)[0])
    torch.testing.assert_close(window.sdf(near, frame + 1), window.level_sdf(8, near, frame + 1)[0])


def test_distance_and_features_are_continuous_where_scales_end(window):
    direction = functional.normalize(torch.randn(20, 1, 3), dim=2)
    path = direction * torch.linspace(0.0, 0.48, 20_000)[:, None]
    frame = torch.zeros(20 * 20_000, dtype=torch.int64)
    with torch.no_grad():
        for read in (window.sdf, window.features):
            along = read(path.reshape(-1, 3), frame).view(20, 20_000, -1)
            step = (along[:, 1:] - along[:, :-1]).abs().amax()
            assert step < 0.02 * along.std()


def test_embedding_has_unit_length_and_gradients(window):
    window.coarse.requires_grad_()
    points = torch.cat([sphere_points(10, 0.25), sphere_points(10, 0.4)])
    vectors = window.embedding(points, torch.arange(20) % 2)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(20))
    vectors.sum().backward()
    assert float(window.coarse.grad.abs().sum()) > 0


class BallDistance(DistanceMLP):
    """A ball, whatever the features are."""

    def forward(self, features, points):
        return points.norm(dim=1) - 0.25 + 1e-3 * features.tanh().mean(1)


def test_sparse_scales_learn_from_patches_of_a_surface_that_was_meshed_before(window):
    """Meshing reads the field without gradients; what is read afterwards has them all the same."""
    window.distance = BallDistance(4, 16, 2, unit=1 / 8)
    with torch.no_grad():
        children = distances_of_children(window.middle_grid, window.middle, window.distance)
        window.known = KnownDistances(distances_of_coarse(window.coarse, window.distance), children)
    scales = [scale.requires_grad_() for scale in (window.middle, window.fine)]
    surface = patch_surface(window, 0, load_config("test"))
    points = torch.cat([surface.vertices, 1.4 * surface.vertices])  # on the fine scale, and beyond it
    distances = window.sdf(points, torch.zeros(len(points), dtype=torch.int64))
    for read in (surface.features[:, 0], distances):
        found = torch.autograd.grad(read.sum(), scales, allow_unused=True)
        assert [gradient is not None and bool(gradient.any()) for gradient in found] == [True, True]


def test_blended_distance_has_the_gradient_that_differences_show(window):
    points = sphere_points(400, 0.3).requires_grad_()  # where the fine scale ends
    frame = torch.zeros(400, dtype=torch.int64)
    (slope,) = torch.autograd.grad(window.sdf(points, frame).sum(), points)
    direction = functional.normalize(torch.randn(400, 3), dim=1)
    with torch.no_grad():
        ahead, behind = (window.sdf(points + side * 1e-3 * direction, frame) for side in (1, -1))
    measured = (ahead - behind) / 2e-3
    error = ((slope * direction).sum(1) - measured).abs()
    assert float(error.median()) < 0.02 * float(slope.norm(dim=1).median())


def test_grid_holds_the_distance_at_voxel_centres(window):
    grid = window.grid(0)
    place = torch.tensor([[16 + 8, 16, 16], [16, 16 - 9, 16], [20, 20, 20 + 1]])
    points = (place + 0.5) / 32 - 0.5
    with torch.no_grad():
        torch.testing.assert_close(grid[tuple(place.t())], window.sdf(points, torch.zeros(3, dtype=torch.int64)))
    assert float(grid[0, 0, 0]) == 0.0  # the coarse scale's stored distance


def test_unknown_level_is_refused(window):
    with pytest.raises(ValueError, match=r"level 64 is none of .*\(8, 16, 32\)"):
        window.level_sdf(64, torch.zeros(1, 3), torch.zeros(1, dtype=torch.int64))


def test_upsampling_equals_torch():
    values = torch.randn(3, 4, 5)
    theirs = functional.interpolate(values[None, None], scale_factor=3, mode="trilinear")[0, 0]
    torch.testing.assert_close(upsample(values, 3), theirs)


def test_a_field_that_has_learnt_nothing_is_empty_space():
    torch.manual_seed(5)
    mlp = DistanceMLP(16, 32, 2, unit=1 / 16)
    values = mlp(torch.randn(500, 16), torch.rand(500, 3) - 0.5).detach()
    assert float(values.min()) > 1 / 16 and float(values.max()) < 2 / 16
