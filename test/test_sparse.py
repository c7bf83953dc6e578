"""Sparse convolutions against dense ones, values and gradients, in float64."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from nr_tracking.fields import neighbours, spconv_backend
from nr_tracking.fields.sparse import DownConv, SparseGrid, SubmanifoldConv, UpConv

SIDE, FRAMES = 8, 2


@pytest.fixture(params=[0.15, 1.0], ids=["sparse", "full"])
def grid(request):
    torch.manual_seed(0)
    active = torch.rand(FRAMES, SIDE, SIDE, SIDE) < request.param
    active[0, 0, 0, 0] = active[1, -1, -1, -1] = True  # corners of the box
    return SparseGrid(active.nonzero().int(), SIDE, FRAMES)


def at(grid, dense):
    """Rows (M, C) of a dense (N, C, R, R, R) tensor at the active voxels."""
    frame, x, y, z = grid.coords.long().unbind(1)
    return dense[frame, :, x, y, z]


def features_on(grid, channels):
    return torch.randn(len(grid), channels, dtype=torch.float64, requires_grad=True)


def assert_same_gradients(out, oracle, inputs):
    direction = torch.randn_like(out)
    ours = torch.autograd.grad(out, inputs, direction)
    theirs = torch.autograd.grad(oracle, inputs, direction)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def test_submanifold_convolution_equals_dense(grid, monkeypatch):
    monkeypatch.setattr(neighbours, "CHUNK_BYTES", 27 * 4 * 8 * 37)  # several chunks, the last one not full
    layer = SubmanifoldConv(3, 5).double()
    torch.nn.init.normal_(layer.bias)
    features = features_on(grid, 3)
    kernel = layer.weight.view(3, 3, 3, 3, 5).permute(4, 3, 0, 1, 2)

    out = layer(features, grid)
    oracle = at(grid, functional.conv3d(grid.dense(features), kernel, layer.bias, padding=1))

    torch.testing.assert_close(out, oracle, rtol=1e-12, atol=1e-12)
    assert_same_gradients(out, oracle, [features, layer.weight, layer.bias])


def test_down_convolution_equals_dense(grid):
    layer = DownConv(3, 4).double()
    features = features_on(grid, 3)
    kernel = layer.weight.view(2, 2, 2, 3, 4).permute(4, 3, 0, 1, 2)
    parents = grid.parents()

    out = layer(features, grid, parents)
    oracle = at(parents, functional.conv3d(grid.dense(features), kernel, layer.bias, stride=2))

    torch.testing.assert_close(out, oracle, rtol=1e-12, atol=1e-12)
    assert_same_gradients(out, oracle, [features, layer.weight, layer.bias])


def test_up_convolution_equals_dense(grid):
    layer = UpConv(3, 4).double()
    parents = grid.parents()
    features = features_on(parents, 3)
    kernel = layer.weight.view(3, 2, 2, 2, 4).permute(0, 4, 1, 2, 3)

    out = layer(features, parents, grid)
    oracle = at(grid, functional.conv_transpose3d(parents.dense(features), kernel, layer.bias, stride=2))

    torch.testing.assert_close(out, oracle, rtol=1e-12, atol=1e-12)
    assert_same_gradients(out, oracle, [features, layer.weight, layer.bias])


def test_parents_cover_the_grid_and_children_cover_the_parents(grid):
    parents = grid.parents()
    expected = torch.unique(torch.cat([grid.coords[:, :1], grid.coords[:, 1:] // 2], dim=1), dim=0)
    assert torch.equal(parents.coords, expected)
    children = SparseGrid.from_coords(parents.children(), SIDE, FRAMES)
    assert len(children) == 8 * len(parents)
    assert bool((children.rows(grid.coords) < len(children)).all())


def test_children_come_in_the_order_of_their_octants(grid):
    children = SparseGrid(grid.children(), 2 * SIDE, FRAMES)
    assert torch.equal(children.octant, torch.arange(8).repeat(len(grid)))


def test_rows_finds_active_voxels_and_only_those(grid):
    everywhere = torch.cartesian_prod(*[torch.arange(n) for n in (FRAMES, SIDE, SIDE, SIDE)]).int()
    rows = grid.rows(everywhere)
    found = rows < len(grid)
    assert int(found.sum()) == len(grid)
    assert torch.equal(grid.coords[rows[found].long()], everywhere[found])


def test_from_coords_sorts_and_drops_doubles():
    coords = torch.tensor([[1, 2, 3, 4], [0, 7, 7, 7], [1, 2, 3, 4]], dtype=torch.int32)
    grid = SparseGrid.from_coords(coords, SIDE, FRAMES)
    assert grid.coords.tolist() == [[0, 7, 7, 7], [1, 2, 3, 4]]


def test_no_voxels_give_no_rows():
    grid = SparseGrid(torch.zeros(0, 4, dtype=torch.int32), SIDE, FRAMES)
    assert SubmanifoldConv(2, 3)(torch.zeros(0, 2), grid).shape == (0, 3)
    parents = grid.parents()
    assert DownConv(2, 3)(torch.zeros(0, 2), grid, parents).shape == (0, 3)
    assert UpConv(2, 3)(torch.zeros(0, 2), parents, grid).shape == (0, 3)


def test_convolution_is_the_same_on_one_thread_and_on_two(grid):
    layer, features = SubmanifoldConv(8, 8), torch.randn(len(grid), 8)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(layer(features, grid))
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(results[0], results[1], rtol=1e-6, atol=1e-6)
    assert torch.equal(layer(features, grid), layer(features, grid))


def test_autocast_convolution_stays_close(grid):
    layer, features = SubmanifoldConv(8, 8), torch.randn(len(grid), 8)
    with torch.autocast("cpu", torch.bfloat16):
        low = layer(features, grid)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), layer(features, grid), rtol=0.05, atol=0.1)


class FakeTensor:
    """What the backend uses of spconv's SparseConvTensor."""

    def __init__(self, features, indices, spatial_shape, batch_size, indice_dict=None):
        self.features, self.indices = features, indices
        self.spatial_shape, self.batch_size, self.indice_dict = spatial_shape, batch_size, indice_dict


class FakeConvolution(torch.nn.Module):
    """A dense convolution with spconv's weight layout (O, 3, 3, 3, I)."""

    def __init__(self, inputs, outputs, kernel_size, bias, indice_key):
        super().__init__()
        assert kernel_size == 3 and not bias
        self.weight = torch.nn.Parameter(torch.randn(outputs, 3, 3, 3, inputs))
        self.key = indice_key

    def forward(self, tensor):
        grid = SparseGrid(tensor.indices, tensor.spatial_shape[0], tensor.batch_size)
        out = functional.conv3d(grid.dense(tensor.features), self.weight.permute(0, 4, 1, 2, 3), padding=1)
        found = {**tensor.indice_dict, self.key: "pairs"}
        return FakeTensor(at(grid, out), tensor.indices, tensor.spatial_shape, tensor.batch_size, found)


def test_spconv_gets_the_weights_in_its_layout(grid, monkeypatch):
    library = SimpleNamespace(SparseConvTensor=FakeTensor, SubMConv3d=FakeConvolution)
    monkeypatch.setattr(spconv_backend, "_library", lambda: library)
    layer, features = SubmanifoldConv(3, 5), torch.randn(len(grid), 3, requires_grad=True)
    reference = layer(features, grid)
    before = torch.random.get_rng_state()

    monkeypatch.setattr(spconv_backend, "usable", lambda features: True)
    out = layer(features, grid)

    assert torch.equal(torch.random.get_rng_state(), before)
    assert grid.spconv_indices == {"neighbours": "pairs"}
    torch.testing.assert_close(out, reference, rtol=1e-4, atol=1e-5)
    direction = torch.randn_like(out)
    inputs = [features, layer.weight, layer.bias]
    for ours, theirs in zip(
        torch.autograd.grad(out, inputs, direction), torch.autograd.grad(reference, inputs, direction), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available() or spconv_backend._library() is None, reason="needs CUDA and spconv")
def test_spconv_equals_the_plain_convolution(grid, monkeypatch):
    grid = SparseGrid(grid.coords.cuda(), SIDE, FRAMES)
    layer = SubmanifoldConv(16, 16).cuda()
    features = torch.randn(len(grid), 16, device="cuda", requires_grad=True)
    out = layer(features, grid)
    gradients = torch.autograd.grad(out.square().sum(), [features, layer.weight])
    monkeypatch.setattr(spconv_backend, "usable", lambda features: False)
    reference = layer(features, grid)
    torch.testing.assert_close(out, reference, rtol=1e-3, atol=1e-3)
    for ours, theirs in zip(
        gradients, torch.autograd.grad(reference.square().sum(), [features, layer.weight]), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-2)


def test_some_children_are_rows_of_all_children(grid):
    numbers = torch.tensor([0, 7, 3, 8 * len(grid) - 1, 12, 12])
    assert torch.equal(grid.some_children(numbers), grid.children()[numbers])
    assert grid.some_children(numbers[:0]).shape == (0, 4)
