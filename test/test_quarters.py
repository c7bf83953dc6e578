"""Four rays from each place: which goes where, and gradients."""

import pytest
import torch
from twins import both, needs_loops

from nr_tracking.fields.quarters import four_rays_each


def grids(dtype):
    torch.manual_seed(0)
    return torch.randn(2, 3, 5, 4 * 6).to(dtype), torch.randn(4 * 6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pixels_of_a_place_lie_side_by_side(dtype):
    places, bias = grids(dtype)
    rays = four_rays_each(places, bias, 0.1)
    assert rays.shape == (2, 6, 10, 6) and rays.dtype == torch.float32
    for row in range(6):
        for column in range(10):
            first = 6 * (2 * (row % 2) + column % 2)
            wanted = places[:, row // 2, column // 2, first : first + 6].float() + bias[first : first + 6]
            assert torch.allclose(rays[:, row, column], 0.1 * wanted)


@needs_loops
@pytest.mark.usefixtures("one_thread")
def test_in_bfloat16_loops_give_the_same_values_and_gradients():
    places, bias = (part.requires_grad_() for part in grids(torch.bfloat16))
    weight = torch.randn(2, 6, 10, 6)

    def learnt():
        rays = four_rays_each(places, bias, 0.1)
        return [rays.detach(), *torch.autograd.grad((rays * weight).sum(), (places, bias))]

    for ours, theirs in zip(*both(learnt), strict=True):
        assert ours.dtype == theirs.dtype and torch.allclose(ours, theirs, atol=1e-5)


@needs_loops
@torch.no_grad()
def test_in_single_precision_loops_give_the_same():
    places, bias = grids(torch.float32)
    compiled, plain = both(lambda: four_rays_each(places, bias, 0.1))
    assert torch.equal(compiled, plain)


def test_places_in_any_order_of_memory_do():
    places, bias = grids(torch.float32)
    turned = places.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    assert torch.equal(four_rays_each(turned, bias, 0.1), four_rays_each(places, bias, 0.1))
