"""The completion network as its callers see it: shapes, order, batches, limits, errors, and that it can learn."""

from dataclasses import replace

import pytest
import torch

from nr_tracking.config import ConfigError, load_config
from nr_tracking.fields import decoder
from nr_tracking.fields.completion import CompletionNetwork
from nr_tracking.fields.decoder import nearest, united
from nr_tracking.fields.encoder import informative_cells
from nr_tracking.fields.field import lattice
from nr_tracking.fields.fusion import FrameFusion, sinusoidal_places
from nr_tracking.fields.sparse import SparseGrid
from nr_tracking.sensing.ray_images import FAR, RayImages, continued, joined
from nr_tracking.sensing.tensors import cuda_has_bfloat16
from nr_tracking.sensing.tsdf import TsdfWindow
from nr_tracking.types import InputError

RADIUS = 0.3


def ball_window(resolution, length=2, shift=0.02):
    """A ball that moves along x, seen from -z: its front as a TSDF, what lies before it as seen empty."""
    coords, values, seen, side = [], [], [], resolution
    for frame in range(length):
        centre = torch.tensor([shift * frame, 0.0, 0.0])
        points = lattice(side, torch.zeros(()))
        offset = points - centre
        half = (RADIUS**2 - offset[:, :2].square().sum(1)).clamp(min=0).sqrt()
        hit = half > 0
        signed = (-half - offset[:, 2]) * side / 3
        active = (hit & (signed.abs() < 1)).view(side, side, side).nonzero()
        coords.append(torch.cat([torch.full((len(active), 1), frame), active], dim=1))
        values.append(signed.view(side, side, side)[tuple(active.t())][:, None])
        states = torch.stack([hit & (signed > 0), ~hit]).float().view(1, 2, side, side, side)
        seen.append(torch.nn.functional.avg_pool3d(states, 4))
    rays = joined([ball_rays(shift * frame) for frame in range(length)])
    return TsdfWindow(torch.cat(coords).int(), torch.cat(values), torch.cat(seen), resolution, length, rays)


def ball_rays(x, pixels=128):
    """The same ball along rays from so far that they are parallel."""
    axis = (torch.arange(pixels) + 0.5) / pixels - 0.5
    half = (RADIUS**2 - (axis - x) ** 2 - axis[:, None] ** 2).clamp(min=0).sqrt()
    subject = half > 0
    front = continued(-half, subject)
    on, nothing = subject.float(), torch.zeros(pixels, pixels)
    channels = torch.stack([on, -half, nothing, nothing, nothing, nothing, front * (front < FAR)])
    return RayImages(
        channels[None], front[None], torch.tensor([[0.0, 0.0, 1e-4]]), torch.tensor([[0.0, 0.0, 0.0, 1.0]])
    )


def ball_distance(points, frame, shift=0.02):
    centres = torch.zeros(len(points), 3)
    centres[:, 0] = shift * frame
    return (points - centres).norm(dim=1) - RADIUS


def ball_voxels(resolution, frames):
    points = lattice(resolution, torch.zeros(())).repeat(frames, 1)
    frame = torch.arange(frames).repeat_interleave(resolution**3)
    near = ball_distance(points, frame).abs() < 2 / resolution
    return near.view(frames, *[resolution] * 3).nonzero().int()


def network(preset="test", **model):
    torch.manual_seed(0)
    return CompletionNetwork(load_config(preset, model=model).model)


def awake(net):
    """Give the layers that start at zero something to say, so that a test can see what passes through them."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return net


@pytest.fixture(scope="module")
def window():
    return ball_window(32)


@pytest.mark.parametrize("preset", ["test", "lite", "base", "full"])
def test_every_preset_completes_a_frame(preset):
    net = network(preset)
    resolution = net.model.resolution
    with torch.no_grad():
        field = net(ball_window(resolution, length=1))
        points, frame = torch.rand(50, 3) - 0.5, torch.zeros(50, dtype=torch.int64)
        assert field.levels == (resolution // 4, resolution // 2, resolution)
        assert field.sdf(points, frame).shape == (50,)
        assert field.features(points, frame).shape == (50, net.model.field_channels)
        assert field.embedding(points, frame).shape == (50, net.model.embedding_channels)


@torch.no_grad()
def test_untrained_network_sees_empty_space_but_refines_what_was_observed(window):
    field = network()(window)
    points, frame = torch.rand(100, 3) - 0.5, torch.zeros(100, dtype=torch.int64)
    assert float(field.level_sdf(8, points, frame)[0].min()) > 0
    near = window.coords[window.values[:, 0].abs() < 0.5]
    assert bool((field.fine_grid.rows(near) < len(field.fine_grid)).all())


def test_same_input_gives_the_same_bits_in_any_order_of_voxels(window):
    net = awake(network())
    order = torch.randperm(len(window.coords))
    shuffled = replace(window, coords=window.coords[order], values=window.values[order])
    points, frame = torch.rand(500, 3) - 0.5, torch.randint(0, 2, (500,))
    with torch.no_grad():
        once, again, other = (net(w).sdf(points, frame) for w in (window, window, shuffled))
    assert torch.equal(once, again)
    assert torch.equal(once, other)


@pytest.mark.parametrize("mode", ["joint", "temporal"])
def test_windows_of_a_batch_do_not_see_each_other(window, mode):
    net = awake(network(attention_mode=mode))
    net.mixed_precision = False
    other = ball_window(32, shift=0.1)
    after = other.coords + torch.tensor([2, 0, 0, 0], dtype=torch.int32)
    both = TsdfWindow(
        torch.cat([window.coords, after]),
        torch.cat([window.values, other.values]),
        torch.cat([window.seen, other.seen]),
        32,
        2,
    )
    points, frame = torch.rand(300, 3) - 0.5, torch.randint(0, 2, (300,))
    with torch.no_grad():
        torch.testing.assert_close(net(both).sdf(points, frame), net(window).sdf(points, frame), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            net(both).sdf(points, frame + 2), net(other).sdf(points, frame), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("mode", ["joint", "temporal"])
def test_attention_carries_information_between_frames(window, mode):
    net = awake(network(attention_mode=mode))
    net.mixed_precision = False
    quiet = replace(window, coords=window.coords.clone(), values=window.values.clone())
    quiet.values[window.coords[:, 0] == 1] *= -1
    points, frame = torch.rand(300, 3) - 0.5, torch.zeros(300, dtype=torch.int64)
    with torch.no_grad():
        assert not torch.allclose(net(window).sdf(points, frame), net(quiet).sdf(points, frame), atol=1e-7)


def test_teacher_voxels_are_refined(window):
    teacher = {16: ball_voxels(16, 2), 32: ball_voxels(32, 2)}
    field = network()(window, teacher)
    for grid, level in ((field.middle_grid, 16), (field.fine_grid, 32)):
        assert bool((grid.rows(teacher[level]) < len(grid)).all())
    parents = torch.cat([field.fine_grid.coords[:, :1], field.fine_grid.coords[:, 1:] // 2], dim=1)
    assert bool((field.middle_grid.rows(parents) < len(field.middle_grid)).all())


def test_every_parameter_learns(window):
    net = awake(network())
    field = net(window, {16: ball_voxels(16, 2), 32: ball_voxels(32, 2)})
    points, frame = torch.rand(400, 3) - 0.5, torch.randint(0, 2, (400,))
    loss = sum(field.level_sdf(level, points, frame)[0].sum() for level in field.levels)
    (loss + field.embedding(points, frame)[:, 0].sum()).backward()
    silent = [name for name, p in net.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    assert silent == []


def test_a_few_steps_find_the_whole_ball_and_refine_around_it():
    net, window = network(), ball_window(32)
    teacher = {16: ball_voxels(16, 2), 32: ball_voxels(32, 2)}
    optimiser = torch.optim.AdamW(net.parameters(), 5e-3)
    steps = 120
    decay = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.05, steps)
    for _ in range(steps):
        points, frame = torch.rand(1500, 3) - 0.5, torch.randint(0, 2, (1500,))
        truth = ball_distance(points, frame).clamp(-0.2, 0.2)
        field = net(window, teacher)
        loss = torch.zeros(())
        for level in field.levels:
            values, valid = field.level_sdf(level, points, frame)
            loss = loss + ((values.clamp(-0.2, 0.2) - truth).abs() * valid).sum() / valid.sum()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        decay.step()
    with torch.no_grad():
        field = net(window)  # no teacher any more
        points, frame = torch.rand(4000, 3) - 0.5, torch.randint(0, 2, (4000,))
        inside, truth = field.sdf(points, frame) < 0, ball_distance(points, frame) < 0
        covered = field.fine_grid.rows(ball_voxels(32, 2)) < len(field.fine_grid)
    assert float((inside & truth).sum() / (inside | truth).sum()) > 0.85
    assert float(covered.float().mean()) > 0.8


def test_frames_without_any_depth_are_completed_too(window):
    blind = replace(window, coords=window.coords[:0], values=window.values[:0], seen=torch.zeros_like(window.seen))
    field = network()(blind)
    assert len(field.fine_grid) == 0
    assert field.sdf(torch.zeros(1, 3), torch.zeros(1, dtype=torch.int64)).shape == (1,)
    everything_empty = torch.zeros_like(window.seen)
    everything_empty[:, 0] = 1
    assert network()(replace(blind, seen=everything_empty)).frames == 2


def test_no_more_voxels_are_refined_than_the_cap_allows(window):
    net = network(active_cap=0.5)
    torch.nn.init.zeros_(net.distance.last.weight)
    torch.nn.init.zeros_(net.distance.last.bias)  # a field that is a surface everywhere
    empty = replace(window, coords=window.coords[:0], values=window.values[:0])
    field = net(empty)
    for grid in (field.middle_grid, field.fine_grid):
        counts = torch.bincount(grid.frame_index, minlength=2)
        assert counts.tolist() == [grid.resolution**2 // 2] * 2


def test_the_cap_keeps_the_voxels_nearest_to_the_surface_in_each_frame():
    coords = torch.tensor([[0, 0, 0, i] for i in range(5)] + [[1, 0, 0, i] for i in range(2)], dtype=torch.int32)
    away = torch.tensor([0.5, 0.1, 0.4, 0.2, 0.3, 0.9, 0.8])
    kept = nearest(coords, away, frames=2, cap=3)
    assert sorted(map(tuple, kept.tolist())) == [(0, 0, 0, 1), (0, 0, 0, 3), (0, 0, 0, 4), (1, 0, 0, 0), (1, 0, 0, 1)]


@pytest.mark.parametrize("limit", [0, 1 << 24], ids=["sorted", "marked"])
def test_united_voxels_are_unique_and_in_order(limit, monkeypatch):
    monkeypatch.setattr(decoder, "MARKED", limit)
    first = torch.tensor([[1, 3, 0, 2], [0, 1, 1, 1]], dtype=torch.int32)
    second = torch.tensor([[0, 1, 1, 1], [0, 0, 3, 3]])
    assert united([first, second], 4, 2).coords.tolist() == [[0, 0, 3, 3], [0, 1, 1, 1], [1, 3, 0, 2]]


def test_all_cells_take_part_in_attention_when_none_may_be_dropped(window):
    seen = torch.zeros_like(window.seen)
    seen[:, 0] = 1  # all empty
    empty = replace(window, coords=window.coords[:0], values=window.values[:0], seen=seen)
    points, frame = torch.rand(50, 3) - 0.5, torch.zeros(50, dtype=torch.int64)
    with torch.no_grad():
        everyone, nobody = (awake(network(drop_empty_tokens=drop))(empty).sdf(points, frame) for drop in (False, True))
    assert not torch.allclose(everyone, nobody, atol=1e-6)


def test_cells_that_were_seen_to_be_empty_are_left_out_of_attention():
    seen = torch.zeros(1, 2, 4, 4, 4)
    seen[:, 0, :2], seen[:, 1, :2] = 0.75, 0.25  # half of the box: empty, or no return
    seen[0, 0, 0, 0, 0] = 0.5  # one coarse voxel of which a part is unknown
    observed = SparseGrid(torch.tensor([[0, 1, 3, 3]], dtype=torch.int32), 4, 1)
    kept = informative_cells(seen, observed, cells=2)
    assert kept[0].tolist() == [[[True, False], [False, True]], [[True, True], [True, True]]]


def test_left_out_cells_pass_attention_unchanged():
    torch.manual_seed(0)
    fusion = FrameFusion(16, layers=1, heads=2, mode="joint")
    torch.nn.init.normal_(fusion.last.weight)
    latent = torch.randn(2, 16, 2, 2, 2)
    keep = torch.rand(2, 2, 2, 2) < 0.5
    changed = (fusion(latent, 2, keep) != latent).any(1)
    assert torch.equal(changed, keep)


def test_places_of_a_window_differ():
    places = sinusoidal_places(5, 8, 64, torch.device("cpu")).reshape(-1, 64)
    assert float(torch.pdist(places).min()) > 0.1


def test_shorter_windows_have_the_places_of_those_that_were_trained():
    trained, shorter = (sinusoidal_places(length, 4, 64, torch.device("cpu")) for length in (5, 3))
    assert torch.equal(shorter, trained[:3])


def test_window_of_another_resolution_is_refused(window):
    with pytest.raises(InputError, match="resolution 32 meets a network for 64") as error:
        network("lite")(window)
    assert error.value.reason == "resolution"


def test_malformed_windows_are_refused(window):
    net = network()
    doubled = replace(
        window, coords=torch.cat([window.coords, window.coords]), values=torch.cat([window.values, window.values])
    )
    for bad, reason in (
        (doubled, "duplicate_voxels"),
        (replace(window, length=3), "window_length"),
        (replace(window, seen=window.seen[:, :, :4]), "seen_shape"),
    ):
        with pytest.raises(InputError) as error:
            net(bad)
        assert error.value.reason == reason


def test_models_that_do_not_fit_together_are_refused():
    with pytest.raises(ConfigError, match=r"latent_cells: 5 does not fit model\.resolution 32"):
        network(latent_cells=5)
    with pytest.raises(ConfigError, match=r"latent_channels: 18 must be a multiple"):
        network(latent_channels=18, attention_heads=4)


def learnt_fusion(mode):
    """One that changes what it is given: before training, the last layer is zero."""
    torch.manual_seed(0)
    fusion = FrameFusion(16, layers=2, heads=2, mode=mode)
    torch.nn.init.normal_(fusion.last.weight)
    return fusion


@pytest.mark.parametrize("mode", ["joint", "temporal"])
def test_frames_that_are_only_attended_to_change_no_others(mode):
    fusion = learnt_fusion(mode)
    latent, keep = torch.randn(5, 16, 3, 3, 3), torch.rand(5, 3, 3, 3) < 0.5
    torch.testing.assert_close(fusion(latent, 5, keep, earlier=3), fusion(latent, 5, keep)[3:])
    torch.testing.assert_close(fusion(latent, 5, torch.zeros_like(keep), earlier=3), latent[3:])


@pytest.mark.parametrize("mode", ["joint", "temporal"])
def test_cells_that_are_not_kept_pass_unchanged_and_are_not_seen(mode):
    fusion = learnt_fusion(mode)
    latent, keep = torch.randn(4, 16, 3, 3, 3), torch.rand(4, 3, 3, 3) < 0.5
    keep[:, 0, 0] = False  # at no time
    other = torch.where(keep[:, None], latent, torch.randn_like(latent))
    with torch.no_grad():
        fused, again = fusion(latent, 4, keep), fusion(other, 4, keep)
    changed = (fused != latent).any(1)
    assert torch.equal(changed, keep)
    cells = keep[:, None].expand_as(latent)
    torch.testing.assert_close(again[cells], fused[cells])
    for earlier in (1, 3):
        torch.testing.assert_close(fusion(latent, 4, keep, earlier), fused[earlier:])


@pytest.mark.parametrize(("capability", "able"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_a_gpu_that_only_imitates_bfloat16_is_not_asked_for_it(capability, able, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    cuda_has_bfloat16.cache_clear()
    try:
        net = network()
        assert net.uses_bfloat16(torch.device("cuda", 0)) == able
        net.mixed_precision = False
        assert not net.uses_bfloat16(torch.device("cuda", 0))
    finally:
        cuda_has_bfloat16.cache_clear()
