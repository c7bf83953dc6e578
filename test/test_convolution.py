import pytest
import torch
from torch import nn

from nr_tracking.fields.convolution import DenseConv3d


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (4, 2)])
@pytest.mark.parametrize("frames", [1, 3])
def test_it_computes_what_a_conv3d_does_in_the_same_order_of_memory(kernel, stride, frames):
    torch.manual_seed(0)
    plain = nn.Conv3d(6, 5, kernel, stride, padding=1)
    dense = DenseConv3d(6, 5, kernel, stride, padding=1)
    dense.load_state_dict(plain.state_dict())
    grid = torch.randn(frames, 6, 4, 4, 4).to(memory_format=torch.channels_last_3d)
    with torch.no_grad():
        expected, found = plain.double()(grid.double()), dense(grid)
    assert torch.allclose(found.double(), expected, atol=1e-5)
    assert found.is_contiguous(memory_format=torch.channels_last_3d)


def test_it_learns_as_a_conv3d_does():
    torch.manual_seed(0)
    plain, dense = nn.Conv3d(4, 4, 3, padding=1), DenseConv3d(4, 4, 3, padding=1)
    dense.load_state_dict(plain.state_dict())
    grid = torch.randn(1, 4, 4, 4, 4)
    for conv in (plain, dense):
        conv(grid).square().sum().backward()
    assert torch.allclose(plain.weight.grad, dense.weight.grad, rtol=1e-4, atol=1e-5)
    assert torch.allclose(plain.bias.grad, dense.bias.grad, rtol=1e-4, atol=1e-5)


def test_other_precisions_go_the_usual_way():
    conv = DenseConv3d(4, 4, 3, padding=1).double()
    with torch.no_grad():
        assert conv(torch.randn(1, 4, 4, 4, 4, dtype=torch.float64)).dtype == torch.float64
        with torch.autocast("cpu", torch.bfloat16):
            assert DenseConv3d(4, 4, 3, padding=1)(torch.randn(1, 4, 4, 4, 4)).dtype == torch.bfloat16
