import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from twins import both, needs_loops

from nr_tracking.fields import convolution, winograd
from nr_tracking.fields.convolution import DenseConv2d, DenseConv3d
from nr_tracking.sensing.tensors import cpu_has_bfloat16

PLAIN = {DenseConv2d: nn.Conv2d, DenseConv3d: nn.Conv3d}


def layer(kind, *of, **options):
    torch.manual_seed(0)
    return kind(*of, **options).eval()


def in_double(conv, grid):
    plain = PLAIN[type(conv)](
        conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, bias=conv.bias is not None
    )
    plain.load_state_dict(conv.state_dict())
    with torch.no_grad():
        return plain.double()(grid.double())


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (4, 2)])
@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        (DenseConv2d, (1, 32, 16, 16)),  # whole tiles
        (DenseConv2d, (2, 32, 32, 20)),
        (DenseConv2d, (3, 32, 18, 32)),  # part of a tile
        (DenseConv2d, (1, 32, 4, 4)),  # too few of them
        (DenseConv3d, (1, 32, 16, 16, 16)),
        (DenseConv3d, (3, 32, 6, 12, 8)),
        (DenseConv3d, (1, 32, 4, 4, 4)),
        (DenseConv3d, (3, 32, 4, 4, 4)),
        (DenseConv3d, (1, 32, 8, 6, 8)),
    ],
)
@pytest.mark.parametrize("outputs", [5, 8])
def test_it_computes_what_a_plain_convolution_does_in_the_same_order_of_memory(kind, shape, kernel, stride, outputs):
    conv = layer(kind, 32, outputs, kernel_size=kernel, stride=stride, padding=1, bias=kernel == 3)
    order = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    grid = torch.randn(shape).to(memory_format=order)
    with torch.no_grad():
        found = conv(grid)
    through_tiles = kernel == 3 and winograd.suits(grid)
    assert torch.allclose(found.double(), in_double(conv, grid), atol=5e-5 if through_tiles else 1e-5)
    assert found.is_contiguous(memory_format=order)


@needs_loops
@pytest.mark.parametrize(("kind", "shape"), [(DenseConv2d, (1, 32, 32, 32)), (DenseConv3d, (1, 32, 8, 16, 16))])
def test_with_loops_and_without_it_computes_the_same(kind, shape):
    conv, grid = layer(kind, 32, 8, kernel_size=3, padding=1), torch.randn(shape)
    with torch.no_grad():
        compiled, plain = both(lambda: conv(grid))
    assert 0 < (compiled - plain).abs().max() < 5e-5  # by other sums


@pytest.mark.parametrize("kind", [DenseConv2d, DenseConv3d])
def test_weights_may_change_between_two_calls(kind):
    conv = layer(kind, 32, 4, kernel_size=3, padding=1)
    grid = torch.randn(1, 32, *(16,) * (2 if kind is DenseConv2d else 3))
    with torch.no_grad():
        before = conv(grid)
        conv.weight.mul_(2)
        conv.bias.mul_(2)
        doubled = conv(grid)
        conv.weight.data = -conv.weight.data
        conv.bias.data = -conv.bias.data
        turned = conv(grid)
        conv.load_state_dict({name: value / -2 for name, value in conv.state_dict().items()})
        again = conv(grid)
    assert torch.allclose(doubled, 2 * before, atol=1e-5) and torch.allclose(turned, -2 * before, atol=1e-5)
    assert torch.allclose(again, before, atol=1e-5)


@pytest.mark.parametrize(("kind", "sides"), [(DenseConv2d, (16, 16)), (DenseConv3d, (8, 8, 8))])
@torch.no_grad()
def test_another_number_of_channels_is_refused(kind, sides):
    for channels in (32, 40):
        with pytest.raises(RuntimeError, match="channels"):
            layer(kind, 36, 8, kernel_size=3, padding=1)(torch.randn(1, channels, *sides))
    assert layer(kind, 36, 8, kernel_size=3, padding=1)(torch.randn(0, 36, *sides)).shape == (0, 8, *sides)


def test_changes_that_are_not_counted_are_seen_when_training_begins():
    conv, grid = layer(DenseConv2d, 32, 4, kernel_size=3, padding=1, bias=False), torch.randn(1, 32, 16, 16)
    with torch.no_grad():
        before = conv(grid)
        conv.weight.data.mul_(2)
        assert torch.allclose(conv.train().eval()(grid), 2 * before, atol=1e-5)
        copied = pickle.loads(pickle.dumps(conv))
        assert torch.equal(copied(grid), conv(grid)) and copied._filters is not conv._filters


def test_while_a_layer_learns_changes_that_are_not_counted_are_seen_at_once():
    """As by a fused optimiser; what is asked meanwhile without gradients must not come from weights of before."""
    conv, grid = layer(DenseConv2d, 32, 8, kernel_size=3, padding=1, bias=False).train(), torch.randn(1, 32, 16, 16)
    optimiser = torch.optim.SGD(conv.parameters(), lr=1.0, fused=True)
    with torch.no_grad():
        before = conv(grid)
        conv.weight.grad = conv.weight.clone()
        optimiser.step()
        assert before.abs().max() > 0.1 and conv(grid).abs().max() < 1e-5


def test_modes_of_inference_can_be_mixed():
    grid = torch.randn(1, 32, 48, 48)
    with torch.inference_mode():
        frozen = layer(DenseConv2d, 32, 4, kernel_size=3, padding=1)
        assert frozen.weight.is_inference()  # its changes are not counted
        assert torch.allclose(frozen(grid).double(), in_double(frozen, grid), atol=5e-5)
    usual = layer(DenseConv2d, 32, 4, kernel_size=3, padding=1)
    with ThreadPoolExecutor(1) as fresh:  # a thread without memory of its own so far

        def convolved(mode):
            with mode:
                return usual(grid)

        within = fresh.submit(convolved, torch.inference_mode()).result()
        after = fresh.submit(convolved, torch.no_grad()).result()
    assert torch.equal(within, after)


def test_threads_do_not_disturb_each_other():
    torch.manual_seed(1)
    convs = [DenseConv2d(32, 8, kernel_size=3, padding=1) for _ in range(8)]
    grids = [torch.randn(1, 32, side, side) for side in (16, 32, 48, 64) * 2]

    def convolved(conv, grid):
        with torch.no_grad():
            return [conv(grid) for _ in range(5)]

    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(convolved, convs, grids))
    for conv, grid, found in zip(convs, grids, rows, strict=True):
        expected = in_double(conv, grid)
        assert all(torch.allclose(each.double(), expected, atol=5e-5) for each in found)


@pytest.mark.parametrize(("kind", "sides"), [(DenseConv2d, (16, 16)), (DenseConv3d, (8, 8, 8))])
def test_it_learns_as_a_plain_convolution_does(kind, sides):
    dense = layer(kind, 32, 4, kernel_size=3, padding=1)
    plain = PLAIN[kind](32, 4, 3, padding=1)
    plain.load_state_dict(dense.state_dict())
    grid = torch.randn(1, 32, *sides)
    for conv in (plain, dense):
        conv(grid).square().sum().backward()
    assert torch.allclose(plain.weight.grad, dense.weight.grad, rtol=1e-4, atol=1e-5)
    assert torch.allclose(plain.bias.grad, dense.bias.grad, rtol=1e-4, atol=1e-5)


def test_other_precisions_go_the_usual_way():
    conv = DenseConv3d(4, 4, kernel_size=3, padding=1).double()
    with torch.no_grad():
        assert conv(torch.randn(1, 4, 8, 8, 8, dtype=torch.float64)).dtype == torch.float64
        with torch.autocast("cpu", torch.bfloat16):
            for kind, shape in ((DenseConv3d, (1, 4, 8, 8, 8)), (DenseConv2d, (1, 4, 16, 16))):
                assert kind(4, 4, kernel_size=3, padding=1)(torch.randn(shape)).dtype == torch.bfloat16


def brief(kind, *of, **options):
    """A layer whose weights are held in bfloat16."""
    conv = layer(kind, *of, **options)
    conv.weight.data = conv.weight.data.bfloat16()
    return conv


@pytest.mark.skipif(not cpu_has_bfloat16(), reason="this processor does not multiply in bfloat16")
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (4, 2, 1), (2, 2, 0)])
@pytest.mark.parametrize(
    ("kind", "shape"), [(DenseConv2d, (1, 32, 16, 16)), (DenseConv2d, (3, 7, 32, 24)), (DenseConv3d, (2, 48, 4, 4, 4))]
)
def test_in_bfloat16_weights_in_order_give_the_same(kind, shape, kernel, stride, padding, monkeypatch):
    conv = brief(kind, shape[1], 16, kernel_size=kernel, stride=stride, padding=padding, bias=kernel == 3)
    order = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    grid = torch.randn(shape).bfloat16().to(memory_format=order)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = conv(grid)
        assert conv._filters._made, "they are kept"
        monkeypatch.setattr(convolution, "_PACKS", False)
        wanted = conv(grid)
        assert found.dtype == wanted.dtype == torch.bfloat16
        assert torch.allclose(found.float(), wanted.float(), rtol=2**-7, atol=2**-7)
        assert found.is_contiguous(memory_format=order)


@pytest.mark.skipif(not cpu_has_bfloat16(), reason="this processor does not multiply in bfloat16")
def test_other_weights_in_bfloat16_are_put_in_order_anew():
    conv, grid = brief(DenseConv2d, 8, 8, kernel_size=3, padding=1), torch.randn(1, 8, 16, 16)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        before = conv(grid)
        conv.weight.mul_(2)
        after = conv(torch.cat((grid, grid)))
    assert after.shape == (2, 8, 16, 16)
    bias = conv.bias.detach()[None, :, None, None]
    assert torch.allclose(after[:1] - bias, 2 * (before - bias), rtol=2**-5, atol=2**-5)
