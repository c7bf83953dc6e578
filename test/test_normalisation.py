import pytest
import torch
from torch import nn
from twins import both, needs_loops

from nr_tracking.fields.normalisation import NormReLU, norm_groups


def layer(channels):
    torch.manual_seed(0)
    norm = NormReLU(channels)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm


def in_double(norm, grid, beside=None):
    plain = nn.GroupNorm(norm.num_groups, norm.num_channels).double()
    plain.load_state_dict(norm.state_dict())
    with torch.no_grad():
        return (plain(grid.double()) + (0 if beside is None else beside.double())).relu()


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("shape", [(2, 48, 13, 9), (1, 64, 6, 5, 4), (3, 6, 1, 1), (1, 16, 1, 2), (0, 8, 4, 4)])
def test_it_is_a_group_norm_and_a_relu(shape, beside):
    norm, grid = layer(shape[1]), 3 * torch.randn(shape) + 5
    other = torch.randn(shape) if beside else None
    with torch.no_grad():
        found = norm(grid, other)
    assert found.shape == shape
    assert torch.allclose(found.double(), in_double(norm, grid, other), atol=2e-4)


@needs_loops
def test_with_loops_and_without_it_gives_the_same_in_the_same_order_of_memory():
    norm, grid = layer(32), torch.randn(1, 32, 16, 16).to(memory_format=torch.channels_last)
    with torch.no_grad():
        compiled, plain = both(lambda: norm(grid, grid))
    assert torch.allclose(compiled, plain, atol=1e-5)
    assert compiled.stride() == plain.stride() == grid.stride()


@torch.no_grad()
def test_what_is_beside_may_be_the_same_everywhere():
    norm, grid, other = layer(8), torch.randn(2, 8, 5, 5), torch.randn(2, 8, 1, 1)
    assert torch.allclose(norm(grid, other).double(), in_double(norm, grid, other), atol=1e-5)


@torch.no_grad()
def test_another_number_of_channels_is_refused():
    for channels in (4, 16):
        with pytest.raises(RuntimeError, match=r"channels|weight"):
            layer(8)(torch.randn(1, channels, 8, 8))


def test_a_grid_that_is_the_same_everywhere_gives_the_bias():
    norm = layer(8)
    with torch.no_grad():
        found = norm(torch.full((1, 8, 4, 4), 7.0))
    assert torch.allclose(found, norm.bias.relu()[None, :, None, None].expand_as(found), atol=1e-4)


def test_a_bias_learns_alone():
    norm = layer(8)
    norm.weight.requires_grad_(False)
    norm(torch.randn(1, 8, 4, 4)).sum().backward()
    assert norm.bias.grad is not None and bool(norm.bias.grad.any())


def test_gradients_are_those_of_the_plain_layers():
    norm, grid = layer(8), torch.randn(2, 8, 5, 5)
    plain = nn.GroupNorm(norm.num_groups, 8)
    plain.load_state_dict(norm.state_dict())
    norm(grid, grid).square().sum().backward()
    (plain(grid) + grid).relu().square().sum().backward()
    assert torch.equal(norm.weight.grad, plain.weight.grad) and torch.equal(norm.bias.grad, plain.bias.grad)


@pytest.mark.parametrize(("channels", "groups"), [(64, 8), (24, 4), (12, 2), (6, 1), (1, 1)])
def test_groups_divide_the_channels_into_four_or_more(channels, groups):
    assert norm_groups(channels) == groups


def learnt(norm, grid, other, change):
    """Output, and gradients by the grid, by what is beside it, by weight and bias."""
    norm.zero_grad()
    leaves = [part.detach().clone().requires_grad_() for part in (grid, other)[: 1 if other is None else 2]]
    found = norm(*leaves)
    found.backward(change.to(found.dtype))
    return [found.detach(), *(leaf.grad for leaf in leaves), norm.weight.grad, norm.bias.grad]


@needs_loops
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("shape", [(2, 48, 13, 9), (1, 64, 6, 5, 4), (3, 6, 2, 1)])
def test_in_bfloat16_only_what_comes_out_is_rounded(shape, beside):
    norm, grid = layer(shape[1]), (3 * torch.randn(shape) + 5).bfloat16()
    other, change = torch.randn(shape).bfloat16() if beside else None, torch.randn(shape).bfloat16()
    plain = nn.GroupNorm(norm.num_groups, norm.num_channels).double()
    plain.load_state_dict(norm.state_dict())
    leaves = [part.double().requires_grad_() for part in ((grid, other) if beside else (grid,))]
    exact = (plain(leaves[0]) + (leaves[1] if beside else 0)).relu()
    exact.backward(change.double())
    found = learnt(norm, grid, other, change)
    wanted = [exact.detach(), *(leaf.grad for leaf in leaves), plain.weight.grad, plain.bias.grad]
    for ours, theirs in zip(found[:-2], wanted[:-2], strict=True):
        assert ours.dtype == torch.bfloat16 and ours.shape == shape
        assert torch.allclose(ours.double(), theirs, rtol=2**-8, atol=1e-4)
    for ours, theirs in zip(found[-2:], wanted[-2:], strict=True):
        assert torch.allclose(ours.double(), theirs, rtol=1e-4, atol=1e-3)


@needs_loops
@pytest.mark.usefixtures("one_thread")
def test_gradients_in_bfloat16_are_about_those_without_loops():
    norm, shape = layer(16), (2, 16, 9, 7)
    grid, other, change = (torch.randn(shape).bfloat16() for _ in range(3))
    compiled, plain = both(lambda: learnt(norm, grid, other, change))
    for ours, theirs in zip(compiled, plain, strict=True):
        assert (ours - theirs).float().norm() < 0.05 * theirs.float().norm()
