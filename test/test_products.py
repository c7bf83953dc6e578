"""Products of rows that lie anywhere, against plain matrix products; and the convolutions that are made of them."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from twins import both, needs_loops

from nr_tracking.fields.convolution import DenseConv2d, DenseConv3d
from nr_tracking.fields.pointwise import Linear, Pointwise2d, Pointwise3d
from nr_tracking.fields.products import loops_for_products, multiplied, panels, places_around
from nr_tracking.fields.rays import FourRays
from nr_tracking.fields.sparse import SparseGrid, SubmanifoldConv
from nr_tracking.loops import compiled_loops


@needs_loops
@settings(max_examples=60)
@given(
    st.integers(1, 3), st.booleans(), st.integers(1, 30), st.integers(1, 9), st.integers(1, 40), st.integers(1, 9),
    st.integers(1, 12), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_products_are_those_of_gathered_rows(batch, shared, count, taps, inputs, vectors, rows, seed):
    outputs, rng = compiled_loops("products").LANES * vectors, np.random.default_rng(seed)
    features = rng.standard_normal((batch, rows, inputs), np.float32)
    places = rng.integers(-2, rows + 3, (count, taps)).astype(np.int32)  # some of them are no rows
    weight = rng.standard_normal((1 if shared else batch, taps * inputs, outputs), np.float32)
    shift = rng.standard_normal(outputs, np.float32)
    out = torch.full((batch + 1, count, outputs), 7.0)
    loops = loops_for_products(outputs, out)
    args = torch.from_numpy(features), places, panels(torch.from_numpy(weight)), torch.from_numpy(shift)
    multiplied(loops, *args, out[:batch])
    known = (places >= 0) & (places < rows)
    gathered = features[:, places.clip(0, rows - 1)] * known[None, :, :, None]
    wanted = gathered.reshape(batch, count, -1).astype(float) @ weight.astype(float) + shift
    np.testing.assert_allclose(out[:batch].numpy(), wanted, rtol=1e-4, atol=1e-4)
    assert (out[batch] == 7).all(), "nothing is written beyond what is asked for"


@needs_loops
def test_panels_hold_every_column_once():
    loops = compiled_loops("products")
    for vectors in range(1, 20):
        left, widths = vectors, []
        while left:
            widths.append(loops.vectors_of_panel(left))
            left -= widths[-1]
        assert left == 0 and set(widths) <= {1, 2, 3} and (1 not in widths or vectors == 1)
        weight = torch.arange(3.0 * loops.LANES * vectors).view(1, 3, -1)
        assert torch.equal(panels(weight).sort().values, weight.flatten(1))


def test_without_loops_and_for_odd_widths_pytorch_multiplies():
    assert loops_for_products(12, torch.zeros(1)) is None
    assert loops_for_products(16, torch.zeros(1, dtype=torch.float64)) is None
    assert both(lambda: loops_for_products(16, torch.zeros(1)))[1] is None


@pytest.mark.parametrize("stride", [(1, 1), (2, 3)])
@pytest.mark.parametrize("padding", [(0, 0), (2, 1)])
def test_places_are_those_that_a_convolution_reads(stride, padding):
    sides, kernel = (7, 5), (3, 2)
    numbers = torch.arange(1.0, 36.0).view(1, 1, 7, 5)  # from 1 on: zeros stand beside the grid
    places, results = places_around(sides, kernel, stride, padding)
    read = nn.functional.unfold(numbers, kernel, stride=stride, padding=padding)[0].t().numpy()
    assert len(places) == np.prod(results) and places.dtype == np.int32
    np.testing.assert_array_equal(np.where(places < 35, places + 1, 0), read)


@pytest.mark.parametrize("outputs", [8, 20, 24, 40])
@pytest.mark.parametrize(
    ("kind", "shape", "kernel", "stride", "padding"),
    [
        (DenseConv2d, (2, 7, 33, 20), 5, 2, 2),
        (DenseConv2d, (1, 48, 16, 16), 2, 2, 0),
        (DenseConv2d, (1, 40, 8, 8), 3, 1, 1),
        (DenseConv2d, (3, 9, 6, 5), (3, 1), (1, 2), (1, 0)),
        (DenseConv3d, (1, 74, 8, 8, 8), 4, 2, 1),
        (DenseConv3d, (2, 40, 4, 4, 4), 3, 1, 1),
    ],
)
def test_dense_convolutions(kind, shape, kernel, stride, padding, outputs):
    torch.manual_seed(0)
    conv = kind(shape[1], outputs, kernel_size=kernel, stride=stride, padding=padding)
    order = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    grid = torch.randn(shape)
    with torch.no_grad():
        compiled, plain = both(lambda: conv(grid))
        again = conv(grid.to(memory_format=order))
    torch.testing.assert_close(compiled, plain, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(again, plain, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("cells", [0, 1, 40, 512])
def test_channels_that_are_zero_in_most_cells_are_multiplied_where_they_are_not(cells):
    torch.manual_seed(cells)
    plain = nn.Conv3d(24, 16, kernel_size=4, stride=2, padding=1)
    conv = DenseConv3d(24, 16, kernel_size=4, stride=2, padding=1, scattered=20).eval()
    conv.load_state_dict(plain.state_dict())
    grid = torch.randn(3, 24, 8, 8, 8)  # each frame has cells of its own, the last one none
    for frame in grid[:2]:
        frame[:20].flatten(1)[:, torch.randperm(512)[cells:]] = 0
    grid[2, :20] = 0
    for order in (torch.contiguous_format, torch.channels_last_3d):
        compiled, of_pytorch = both(lambda order=order: conv(grid.to(memory_format=order)))
        torch.testing.assert_close(compiled, plain(grid), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(of_pytorch, plain(grid), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_what_no_kernel_fits_into_is_refused_as_usual():
    conv = DenseConv2d(4, 8, kernel_size=5)
    with pytest.raises(RuntimeError, match=r"[Kk]ernel size"):
        conv(torch.zeros(1, 4, 3, 3))
    assert conv(torch.zeros(0, 4, 9, 9)).shape == (0, 8, 5, 5)
    grouped, spread = DenseConv2d(4, 8, kernel_size=3, groups=2), DenseConv2d(4, 8, kernel_size=3, dilation=2)
    for other in (grouped, spread):
        compiled, plain = both(lambda other=other: other(torch.ones(1, 4, 9, 9)))
        assert torch.equal(compiled, plain)


@pytest.fixture
def grid():
    torch.manual_seed(0)
    return SparseGrid((torch.rand(2, 8, 8, 8) < 0.3).nonzero().int(), 8, 2)


@pytest.mark.parametrize("outputs", [16, 24, 5])
@pytest.mark.parametrize("bias", [True, False])
def test_sparse_convolutions_and_their_gradients(grid, outputs, bias):
    torch.manual_seed(1)
    conv = SubmanifoldConv(9, outputs, bias=bias)
    features = torch.randn(len(grid), 9, requires_grad=True)

    def learnt():
        found = conv(features, grid)
        return found.detach(), *torch.autograd.grad(found.square().sum(), (features, *conv.parameters()))

    for compiled, plain in zip(*both(learnt), strict=True):
        torch.testing.assert_close(compiled, plain, rtol=1e-5, atol=1e-4)


@torch.no_grad()
def test_sparse_convolutions_see_new_weights(grid):
    conv, features = SubmanifoldConv(4, 8, bias=False).eval(), torch.randn(len(grid), 4)
    before = conv(features, grid)
    conv.weight.mul_(2)
    torch.testing.assert_close(conv(features, grid), 2 * before)
    conv.load_state_dict({"weight": -conv.weight})
    torch.testing.assert_close(conv(features, grid), -2 * before)
    assert conv(features[:0], SparseGrid(grid.coords[:0], 8, 2)).shape == (0, 8)
    with torch.inference_mode():
        frozen = SubmanifoldConv(4, 8, bias=False).eval()
        torch.testing.assert_close(*both(lambda: frozen(features, grid)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make", [lambda: Linear(7, 24), lambda: Pointwise2d(7, 40), lambda: Pointwise3d(7, 8)])
def test_layers_of_size_1(make):
    torch.manual_seed(0)
    layer = make().eval()
    shape = (5, 3, 7) if isinstance(layer, Linear) else (2, 7, *(4,) * (layer.weight.dim() - 2))
    rows = torch.randn(shape)
    with torch.no_grad():
        compiled, plain = both(lambda: layer(rows))
    torch.testing.assert_close(compiled, plain, rtol=1e-5, atol=1e-5)
    assert compiled.shape == plain.shape == layer(rows).shape


def test_the_last_layer_along_rays_learns_and_answers_alike():
    torch.manual_seed(0)
    layer, grid = FourRays(9, 6).eval(), torch.randn(2, 9, 4, 4, requires_grad=True)
    with torch.no_grad():
        compiled, plain = both(lambda: layer(grid))
    learnt = layer(grid)
    torch.testing.assert_close(compiled, plain, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(learnt.detach(), plain, rtol=1e-5, atol=1e-6)
    learnt.sum().backward()
    assert grid.grad.abs().sum() > 0 and layer.weight.grad.abs().sum() > 0


def test_many_threads_are_given_to_pytorch(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    assert loops_for_products(16, torch.zeros(1)) is None


@torch.no_grad()
def test_one_layer_is_asked_about_few_images_and_many():
    """Only many small images are worth tiles: what is kept of the weights for either must not serve the other."""
    torch.manual_seed(0)
    conv = DenseConv2d(32, 32, kernel_size=3, padding=1).eval()
    for count in (1, 4, 1, 30, 2):
        grid = torch.randn(count, 32, 8, 8)
        compiled, plain = both(lambda grid=grid: conv(grid))
        torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=5e-5)


def test_what_does_not_fit_together_is_refused(grid):
    conv, rows = SubmanifoldConv(4, 8).eval(), torch.randn(len(grid), 4)
    for features in (rows[:-3], torch.randn(len(grid), 5)):
        with pytest.raises(RuntimeError):
            conv(features, grid)
    with pytest.raises(RuntimeError), torch.no_grad():
        Linear(7, 24)(torch.randn(5, 9))


@needs_loops
def test_shapes_are_looked_at_before_anything_is_written():
    features, places, out = torch.zeros(1, 5, 4), np.zeros((3, 2), np.int32), torch.zeros(1, 3, 8)
    loops, weights = loops_for_products(8, out), panels(torch.zeros(1, 8, 8))
    multiplied(loops, features, places, weights, None, out)
    for wrong in (
        (features, places, weights, None, out[:, :2]),
        (features, places.astype(np.int64), weights, None, out),
        (features[:, :, :3], places, weights, None, out),
        (features, places, panels(torch.zeros(2, 8, 8)), None, out),
        (features, places, weights, torch.zeros(7), out),
        (features, places, weights, torch.zeros(8, dtype=torch.float64), out),
    ):
        with pytest.raises(RuntimeError, match=r"fit|shift"):
            multiplied(loops, *wrong)


def test_results_may_be_changed_in_place_and_a_bias_learns_alone(grid):
    conv = SubmanifoldConv(4, 8)
    conv(torch.randn(len(grid), 4), grid).add_(1).sum().backward()
    assert conv.weight.grad.abs().sum() > 0
    layer = Linear(4, 8)
    layer.weight.requires_grad_(False)
    layer(torch.randn(3, 4)).sum().backward()
    assert torch.equal(layer.bias.grad, torch.full((8,), 3.0))


@needs_loops
def test_what_absent_places_read_is_held_meanwhile():
    """With the C library told to overwrite what is freed, as any other thread might: the zeros must still be zeros."""
    program = (
        "import numpy as np, torch\n"
        "from nr_tracking.fields.products import loops_for_products, multiplied, panels\n"
        "out = torch.empty(1, 2, 8)\n"
        "places = np.array([[0], [9]], np.int32)\n"  # what no row has is passed over
        "for inputs in (40, 300, 5000):\n"
        "    weights = panels(torch.ones(1, inputs, 8))\n"
        "    multiplied(loops_for_products(8, out), torch.ones(1, 3, inputs), places, weights, None, out)\n"
        "    assert (out[0, 0] == inputs).all() and not out[0, 1].any(), (inputs, out)\n"
    )
    environment = {**os.environ, "MALLOC_PERTURB_": "65"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=300)
