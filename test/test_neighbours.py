"""What is gathered of neighbours, and products of sizes that come again."""

import pytest
import torch
from twins import both, needs_loops

from nr_tracking.fields import neighbours
from nr_tracking.fields.neighbours import NeighbourMatmul, round_rows
from nr_tracking.fields.sparse import DownConv, SparseGrid, SubmanifoldConv, UpConv


@pytest.fixture(params=[0.2, 1.0], ids=["sparse", "full"])
def grid(request):
    torch.manual_seed(0)
    active = torch.rand(2, 8, 8, 8) < request.param
    active[0, 0, 0, 0] = True
    return SparseGrid(active.nonzero().int(), 8, 2)


def gathered(features, around):
    return torch.cat([block[: rows.stop - rows.start] for rows, block in copied(features, around)])


def copied(features, around):
    return [(rows, block.clone()) for rows, block in neighbours._gathered(features, around)]


@needs_loops
@pytest.mark.parametrize("channels", [1, 5, 16])
def test_loops_gather_what_pytorch_does(grid, channels):
    features = torch.randn(len(grid), channels).bfloat16()
    compiled, plain = both(lambda: gathered(features, grid.neighbours))
    assert torch.equal(compiled, plain) and compiled.shape == (len(grid), 27 * channels)
    rows = neighbours.with_absent(features)[grid.neighbours.long()].flatten(1)
    assert torch.equal(compiled, rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_that_do_not_follow_one_another_are_found_too(dtype):
    features = torch.arange(12.0).reshape(6, 2).to(dtype)
    around = torch.full((1, 27), 6, dtype=torch.int32)
    around[0, :6] = torch.tensor([0, 1, 2, 4, 2, 0])
    around[0, 24:] = torch.tensor([4, 5, 6])
    found = gathered(features, around)[0].view(27, 2).float()
    assert torch.equal(found[:6, 0] / 2, torch.tensor([0.0, 1, 2, 4, 2, 0]))
    assert not found[6:24].any() and torch.equal(found[24:, 0], torch.tensor([8.0, 10, 0]))


def test_in_bfloat16_sizes_come_again():
    brief, single = torch.zeros(3, 4, dtype=torch.bfloat16), torch.zeros(3, 4)
    assert [round_rows(count, brief) for count in (0, 1, 128, 129)] == [0, 128, 128, 256]
    assert round_rows(129, single) == 129


def test_rows_that_fill_up_leave_nothing_behind(grid, monkeypatch):
    """Rounding up changes no result: every layer in single precision with rows as in bfloat16."""
    torch.manual_seed(0)
    layers = SubmanifoldConv(3, 5), DownConv(3, 4), UpConv(3, 4)
    for layer in layers:
        torch.nn.init.normal_(layer.bias)
    features = torch.randn(len(grid), 3, requires_grad=True)
    parents = grid.parents()
    above = torch.randn(len(parents), 3)

    def learnt():
        found = [layers[0](features, grid), layers[1](features, grid, parents), layers[2](above, parents, grid)]
        (gradient,) = torch.autograd.grad(sum(part.square().sum() for part in found), features)
        return [*(part.detach() for part in found), gradient]

    wanted = learnt()
    monkeypatch.setattr(neighbours, "_compiles", lambda features: True)
    monkeypatch.setattr(neighbours, "_CHUNK_BFLOAT16", 256)
    for ours, theirs in zip(learnt(), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_what_is_added_to_every_voxel_is_learnt_as_if_it_were_added_afterwards(grid, bias):
    torch.manual_seed(0)
    layer = SubmanifoldConv(3, 5, bias)
    if bias:
        torch.nn.init.normal_(layer.bias)
    features = torch.randn(len(grid), 3)
    found = layer(features, grid)
    zero = torch.zeros(5) if layer.bias is None else layer.bias
    wanted = NeighbourMatmul.apply(features, layer.weight, None, grid.neighbours) + zero
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    learnt = [torch.autograd.grad(out.square().sum(), list(layer.parameters())) for out in (found, wanted)]
    for ours, theirs in zip(*learnt, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_no_voxels_give_no_rows():
    found = NeighbourMatmul.apply(
        torch.zeros(0, 3), torch.zeros(27, 3, 5), None, torch.zeros((0, 27), dtype=torch.int32)
    )
    assert found.shape == (0, 5)
