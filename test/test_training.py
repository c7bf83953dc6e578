"""Training: what a step is fed, that a window can be learnt by heart, and that a killed run goes on exactly."""

import multiprocessing
import os
import shutil
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from bending_body import bending_window, write_cache
from PIL import Image, ImageDraw
from scipy.spatial import cKDTree

from nr_tracking.config import load_config
from nr_tracking.data.clip_cache import GeneratedWindows
from nr_tracking.fields.completion import CompletionNetwork
from nr_tracking.fields.field import interpolate_sparse
from nr_tracking.fields.sparse import SparseGrid
from nr_tracking.fields.weights import read_weights
from nr_tracking.sensing.camera import back_project
from nr_tracking.training import batches
from nr_tracking.training.checkpoints import (
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from nr_tracking.training.feed import PreparedWindows, draws_of_epoch
from nr_tracking.training.journal import Journal
from nr_tracking.training.motion import true_positions
from nr_tracking.training.objective import window_losses
from nr_tracking.training.trainer import Plan, Run, train
from nr_tracking.types import InputError

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {
    "points": 200,
    "hidden_points": 60,
    "empty_points": 40,
    "surface_points": 60,
    "contrast_points": 32,
    "workers": 0,
    "warmup_steps": 5,
}
UNDISTURBED = {
    **dict.fromkeys(
        ("noise", "mirror", "reverse", "background", "dropout", "centre_jitter", "stretch", "warp", "occluder"), 0.0
    ),
    "side_jitter": (1.0, 1.0),
    "single_frame_cube": 0.0,
}


@pytest.fixture(scope="module")
def sample():
    return bending_window(0)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    write_cache(folder, windows=3, frames=3)
    return folder


@pytest.fixture(scope="module")
def by_heart(tmp_path_factory):
    """A cache of one window, and a run that learnt it by heart."""
    folder = tmp_path_factory.mktemp("heart")
    write_cache(folder / "cache", windows=1, frames=2)
    training = {**SMALL, **UNDISTURBED, "points": 500, "active_cap": 8.0, "learning_rate": 8e-3, "average": 0.9}
    training |= {"volume_rise": (1.0, 1.0), "occupancy": 0.2, "precision": 0.25}  # nothing here is doubtful
    config = load_config("test", training=training)
    weights = train(config, folder / "cache", folder / "run", steps=350, validation=folder / "cache")
    return folder / "cache", weights


def cloud_distance(sample) -> np.ndarray:
    """Distance of the observed points from the nearest stored surface points."""
    cloud = back_project(sample.depth[0], sample.intrinsics)[sample.depth[0] > 0]
    return np.linalg.norm(cloud[::20, None] - sample.surface[0][None], axis=-1).min(1)


def test_mirror_and_reversal_keep_depth_and_truth_together(sample):
    mirrored = batches.mirrored(sample)
    assert cloud_distance(sample).max() < 0.06
    assert cloud_distance(mirrored).max() < 0.06
    assert not np.allclose(mirrored.surface, sample.surface)
    twice = batches.mirrored(mirrored)
    for name in ("depth", "surface", "points", "normals", "up"):
        np.testing.assert_array_equal(getattr(twice, name), getattr(sample, name))
    assert twice.intrinsics == sample.intrinsics
    backwards = batches.reversed_in_time(sample)
    np.testing.assert_array_equal(backwards.surface[0], sample.surface[-1])
    np.testing.assert_array_equal(backwards.sdf[1], sample.sdf[-2])


def test_a_camera_that_lies_on_its_side_sees_depth_and_truth_together(sample):
    for quarters in (1, 2, 3):
        rolled = batches.rolled(sample, quarters)
        assert cloud_distance(rolled).max() < 0.06
        assert rolled.depth.shape[1:] == (rolled.intrinsics.height, rolled.intrinsics.width)
        angle = np.arctan2(-rolled.up[1], rolled.up[0]) - np.arctan2(-sample.up[1], sample.up[0])
        assert np.cos(angle - quarters * np.pi / 2) > 0.999, "counter-clockwise in the image"
    whole = batches.rolled(batches.rolled(sample, 3), 1)
    np.testing.assert_array_equal(whole.depth, sample.depth)
    np.testing.assert_array_equal(whole.surface, sample.surface)
    assert whole.intrinsics == sample.intrinsics


def test_a_stretched_body_is_seen_where_it_is_and_keeps_its_inside(sample):
    factors = np.array([1.1, 0.85, 1.2])
    stretched = batches.stretched(sample, factors)
    np.testing.assert_allclose(stretched.surface, sample.surface * factors, rtol=1e-5)
    assert cloud_distance(stretched).max() < 0.06 * 1.2
    np.testing.assert_allclose(np.linalg.norm(stretched.normals, axis=-1), 1, atol=1e-5)
    assert np.array_equal(stretched.sdf < 0, sample.sdf < 0)


def test_the_distances_to_a_stretched_ball_are_those_to_the_ellipsoid():
    rng, factors = np.random.default_rng(0), np.array([1.1, 0.85, 1.2])
    way = rng.normal(size=(2, 4000, 3))
    surface = (way / np.linalg.norm(way, axis=-1, keepdims=True)).astype(np.float32)
    points = (surface[:, :500] * rng.uniform(0.85, 1.2, (2, 500, 1))).astype(np.float32)
    ball = replace(
        bending_window(0), surface=surface, normals=surface, points=points, sdf=np.linalg.norm(points, axis=-1) - 1
    )
    stretched = batches.stretched(ball, factors)
    dense = rng.normal(size=(200_000, 3))
    dense *= factors / np.linalg.norm(dense, axis=-1, keepdims=True)
    distance, _ = cKDTree(dense).query(stretched.points[0])
    assert np.abs(np.abs(stretched.sdf[0]) - distance).max() < 0.02
    assert np.abs(np.abs(ball.sdf[0]) - distance).max() > 0.03


def test_a_batch_tells_the_truth_in_box_coordinates(sample):
    config = load_config("test", training={"noise": 0.0, "mirror": 0.0, "reverse": 0.0, "stretch": 0.0, "warp": 0.0})
    batch = batches.prepare(sample, config, np.random.default_rng(3))
    assert batch.points.abs().max() <= 0.5
    assert len(batch.points) == len(batch.frame) == len(batch.distance)
    metric = batch.volume.to_metric(batch.points).double().numpy()
    for frame in range(5):
        here = batch.frame == frame
        zeros = batch.distance[here] == 0
        assert zeros.sum() > 100
    # The limbs' own axes are not stored; the sampled distances are, so look each drawn point up among them.
    stored = {tuple(np.round(p, 4)): d for p, d in zip(sample.points[1], sample.sdf[1], strict=True)}
    rows = ((batch.frame == 1) & (batch.distance != 0)).nonzero()[:50, 0]
    for row in rows.tolist():
        nearest = min(stored, key=lambda p: np.abs(np.array(p) - metric[row]).sum())
        assert batch.distance[row].item() * batch.volume.side == pytest.approx(stored[nearest], abs=1e-3)
    assert batch.matched.abs().max() < 0.5
    first, second = batch.pair
    moved, known = true_positions(batch.matched[0], batch.tracks[first], batch.tracks[second])
    assert known.all()
    torch.testing.assert_close(moved, batch.matched[1])


def test_samples_weigh_as_much_as_the_volume_they_stand_for():
    """Weighted over all stored points, a body has the volume that uniform points alone give it."""
    inside, volume, plain = [], [], []
    for seed in range(4):
        sample = bending_window(seed, points=9000)
        weight = batches.sample_weights(sample, sample.near)
        truth = sample.sdf < 0
        inside.append((weight * truth).sum() / weight.sum())
        volume.append(truth[:, sample.near :].mean())
        plain.append(truth.mean())
    assert np.mean(inside) == pytest.approx(np.mean(volume), rel=0.1)
    assert np.mean(plain) > 5 * np.mean(volume)


def test_a_point_on_the_last_rounding_before_the_border_is_inside():
    points = np.full((1, 4, 3), np.nextafter(np.float32(0.5), np.float32(0)), np.float32)
    training = load_config("test").training
    (chosen,) = batches.chosen_samples(points, 1, np.ones((1, 2, 8, 8, 8)), training, np.random.default_rng(0))
    assert sorted(chosen) == [0, 1, 2, 3]


def test_true_masks_hold_every_corner_that_the_surface_needs(sample):
    batch = batches.prepare(sample, load_config("test"), np.random.default_rng(0), augment=False)
    for resolution, voxels in batch.teacher.items():
        assert voxels.dtype == torch.int32
        assert len(torch.unique(voxels, dim=0)) == len(voxels)
        assert torch.equal(voxels[:, 0], voxels[:, 0].sort().values)
        frame, row = (batch.tracks.abs() < 0.5 - 1 / resolution).all(-1).nonzero(as_tuple=True)
        grid = SparseGrid(voxels, resolution, frames=5)
        _, complete = interpolate_sparse(torch.zeros(len(voxels), 1), grid, batch.tracks[frame, row], frame)
        assert complete.all()


def test_the_same_draw_gives_the_same_batch(sample):
    config = load_config("test")
    one, two, other = (batches.prepare(sample, config, np.random.default_rng(s)) for s in (5, 5, 6))
    assert torch.equal(one.window.coords, two.window.coords) and torch.equal(one.points, two.points)
    assert one.volume.side == two.volume.side != other.volume.side


def test_one_window_is_learnt_by_heart(by_heart):
    """A bending body at R = 32: the field must reproduce it, on the masks that it finds itself."""
    _, weights = by_heart
    (scores,) = Journal(weights.parent / "log.jsonl").entries("validation")
    assert scores["iou"] > 0.95
    assert scores["surface_cells"] < 0.25
    assert (weights.parent / "curve.png").stat().st_size > 500


def learn(cache: Path, run: Path, steps: int, environment: dict[str, str] | None = None, **settings) -> None:
    """Train with a checkpoint after every step, in the way of a script that reads the environment of torchrun."""
    os.environ.update(environment or {})
    training = {**SMALL, "points": 100, "checkpoint_minutes": 1e-6, **settings}
    train(load_config("test", training=training), cache, run, steps=steps)


def forked(*arguments, **settings) -> multiprocessing.process.BaseProcess:
    """:func:`learn` in a process of its own; a fork, because importing everything anew takes longer than learning."""
    process = multiprocessing.get_context("fork").Process(target=learn, args=arguments, kwargs=settings)
    process.start()
    return process


def curve(run: Path) -> list[dict]:
    entries = Journal(run / "log.jsonl").entries("step")
    return [{key: value for key, value in entry.items() if key != "seconds"} for entry in entries]


def test_a_run_killed_at_five_random_moments_goes_on_to_the_bit(cache, tmp_path):
    """Kill -9 wherever a run happens to be, in the middle of a step or of a checkpoint; compare with one left alone."""
    steps = 7
    begun = time.monotonic()
    learn(cache, tmp_path / "whole", steps, workers=1)
    a_step = (time.monotonic() - begun) / steps
    moments = np.random.default_rng(0).uniform(0.0, a_step, 5)
    for number, moment in enumerate(moments):
        process = forked(cache, tmp_path / "killed", steps)
        while len(curve(tmp_path / "killed")) < number + 1 and process.is_alive():
            time.sleep(0.002)
        time.sleep(moment)
        process.kill()
        process.join()
    assert len(curve(tmp_path / "killed")) >= 5
    learn(cache, tmp_path / "killed", steps)
    one, other = curve(tmp_path / "whole"), curve(tmp_path / "killed")
    assert [entry["step"] for entry in other] == list(range(steps))
    assert one == other
    ours, theirs = (read_weights(tmp_path / name / "weights.safetensors") for name in ("whole", "killed"))
    assert ours.sha256 == theirs.sha256
    assert ours.notes["steps"] == str(steps)


def test_two_processes_learn_what_one_learns_from_both_windows(cache, tmp_path):
    """Windows that make a step together are shared, and gradients averaged, as torchrun's environment says."""
    learn(cache, tmp_path / "one", 3, windows_per_step=2)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    team = [forked(cache, tmp_path / "two", 3, {**place, "RANK": str(rank)}) for rank in range(2)]
    for process in team:
        process.join()
        assert process.exitcode == 0
    one, two = curve(tmp_path / "one"), curve(tmp_path / "two")
    assert len(one) == len(two) == 3
    for ours, theirs in zip(one, two, strict=True):
        assert ours.keys() == theirs.keys() and ours.pop("kind") == theirs.pop("kind")
        assert theirs == pytest.approx(ours, rel=2e-4), "one sum in another order"
    first, second = (read_weights(tmp_path / name / "weights.safetensors") for name in ("one", "two"))
    for name, value in first.part("completion").items():
        torch.testing.assert_close(second.part("completion")[name], value, rtol=1e-3, atol=1e-4)
    learn(cache, tmp_path / "single", 3)
    assert curve(tmp_path / "single")[0]["loss"] != pytest.approx(one[0]["loss"], rel=1e-3)


def test_a_run_does_not_go_on_with_fewer_windows_than_it_had(cache, tmp_path):
    config = load_config("test", training=SMALL)
    run = Run(config, cache, tmp_path / "run", "completion", Plan(50, None), None, None)
    assert run.step(next(run.windows_of_epoch()))
    run.checkpoint()
    held = tmp_path / "cache"
    shutil.copytree(cache, held)
    next(iter(sorted(held.glob("shard_*.npz")))).unlink()
    resumed = Run(config, held, tmp_path / "run", "completion", Plan(50, None), None, None)
    resumed.resume()
    with pytest.raises(InputError, match=r"the run had \d+ windows, \d+ are there"):
        next(resumed.windows_of_epoch())


def test_gradients_are_the_mean_over_windows(cache, tmp_path):
    """One step of two windows moves the weights as the mean of both windows' own gradients does."""
    settings = {**SMALL, "windows_per_step": 2}
    run = Run(load_config("test", training=settings), cache, tmp_path, "completion", Plan(5, None), None, None)
    batches = next(run.windows_of_epoch())
    stage, means = run.stage(), {}
    for batch in batches:
        run.optimizer.zero_grad(set_to_none=True)
        torch.stack(
            list(window_losses(run.networks, batch, stage, run.config, run.taught(stage)).values())
        ).sum().backward()
        for name, parameter in run.networks.named_parameters():
            if parameter.grad is not None:
                means[name] = means.get(name, 0.0) + parameter.grad / 2
    norm = torch.stack([mean.norm() for mean in means.values()]).norm()
    assert run.step(batches)
    (entry,) = run.journal.entries("step")
    assert entry["norm"] == pytest.approx(norm.item(), rel=1e-4)
    assert run.windows_per_step == 2 and run.position == 2
    with pytest.raises(InputError, match="do not make a step"):
        many = load_config("test", training={**settings, "windows_per_step": 9})
        next(Run(many, cache, tmp_path / "x", "completion", Plan(5, None), None, None).windows_of_epoch())


def test_processes_share_the_windows_of_a_step():
    shares = [draws_of_epoch(3, 1, 11, 4, together=4, rank=rank, size=2) for rank in range(2)]
    alone = draws_of_epoch(3, 1, 11, 4, together=4, rank=0, size=1)
    assert [draw.place for draw in alone] == [4, 5, 6, 7] == sorted(d.place for share in shares for d in share)
    assert [draw.place for draw in shares[0]] == [4, 6]
    assert sorted(draw.window for draw in draws_of_epoch(3, 1, 11, 0, 1, 0, 1)) == list(range(11))


def test_a_window_that_is_dear_to_make_is_made_once_and_comes_several_times():
    draws = draws_of_epoch(3, 1, 600, 0, together=8, rank=0, size=1, echoes=3)
    assert [draw.place for draw in draws] == list(range(8 * (len(draws) // 8)))
    times = np.bincount([draw.window for draw in draws])
    assert len(times) == 600 and (times == 3).all()
    seen, fresh = set[int](), []
    for draw in draws:
        fresh.append(draw.window not in seen)
        seen.add(draw.window)
    steps = np.reshape(fresh, (-1, 8)).sum(1)[8:-16]  # all are new in the beginning, none in the end
    assert abs(steps.mean() - 8 / 3) < 0.2 and (steps == 8).mean() < 0.1, "new ones come evenly"
    places = [[place for place, draw in enumerate(draws) if draw.window == window] for window in range(0, 600, 7)]
    apart = np.diff(places, axis=1)
    assert apart.max() < 256 and len(np.unique(apart)) > 10, "soon, and in another order each time"

    class Clips(GeneratedWindows):
        made: ClassVar[list[int]] = []

        def __init__(self) -> None: ...

        def drawn(self, number: int, epoch: int) -> str:
            self.made.append(number)
            return f"{number} of {epoch}"

    # Every process finds the frames of its draws again, however many there are.
    for workers in (1, 2, 4):
        Clips.made.clear()
        config = load_config("test", training={"echoes": 3})
        for worker in range(workers):
            windows = PreparedWindows(Clips(), config)
            for draw in draws[worker::workers]:
                assert windows._drawn(draw) == f"{draw.window} of 1"
        assert len(Clips.made) == 600
    resumed = draws_of_epoch(3, 1, 600, 264, together=8, rank=0, size=1, echoes=3)
    assert resumed == draws[264:]


def test_a_gate_keeps_a_phase_of_the_papers_schedule_until_its_score_is_reached(cache, tmp_path, monkeypatch):
    scores = iter([{"coarse_iou": 0.2}, {"coarse_iou": 0.6}])
    monkeypatch.setattr(Run, "validate", lambda self: next(scores, {"iou": 1.0}))
    config = load_config("test", training={**SMALL, "gates": (0.5, 0.0, 0.0)})
    lines: list[str] = []
    monkeypatch.setattr("nr_tracking.training.trainer._TELL_S", 0.0)
    train(config, cache, tmp_path, schedule="paper", steps=8, validation=cache, report=lines.append)
    fine = ["distance_32" in entry for entry in curve(tmp_path)]
    assert fine == [False] * 6 + [True] * 2, "two epochs of three windows instead of one"
    (waited,) = Journal(tmp_path / "log.jsonl").entries("gate")
    assert (waited["waits_for"], waited["least"], waited["reached"]) == ("coarse_iou", 0.5, 0.2)
    assert len(lines) == 8 and "step 8 of 8" in lines[-1] and "s left" in lines[0]
    with pytest.raises(InputError, match="validation windows"):
        train(config, cache, tmp_path / "other", schedule="paper", steps=1)


def test_the_curve_of_a_run_can_be_read(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "log.jsonl")
    for step, loss in enumerate((4.0, 2.0, 1.0, 1.5), 1):
        journal.write("step", step, loss=loss)
    for step, iou in ((2, 0.25), (3, 0.75), (4, 0.5)):
        journal.write("validation", step, iou=iou)
    written = []
    text = ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        ImageDraw.ImageDraw, "text", lambda pen, at, words, **how: (written.append(words), text(pen, at, words, **how))
    )
    journal.plot(tmp_path / "curve.png")
    assert "loss, running mean: first 4, last 1.5, least 1" in written
    assert "validation IoU: first 0.250, last 0.500, most 0.750" in written
    assert {"4", "2", "1"} <= set(written) and {"0", "0.5"} <= set(written), "both axes have numbers"
    assert "steps" in written
    picture = np.asarray(Image.open(tmp_path / "curve.png").convert("RGB")).astype(int)
    red = (picture[..., 0] > picture[..., 1] + 100).nonzero()
    assert red[1].max() > 600 and red[0].min() < 40, "the axis and the legend of the IoU are in its colour"


def test_validation_scores_noise_and_the_embedding_too(by_heart):
    _, weights = by_heart
    (clean,) = Journal(weights.parent / "log.jsonl").entries("validation")
    (noisy,) = Journal(weights.parent / "log.jsonl").entries("noisy_validation")
    assert 0.5 < noisy["iou"] <= clean["iou"] + 0.01 and noisy["surface_cells"] > clean["surface_cells"]
    assert 0.5 < clean["coarse_iou"] < clean["iou"] and 0 <= clean["match"] < 0.2


def test_deformation_is_learnt_on_frozen_fields(by_heart, tmp_path):
    cache, weights = by_heart
    config = load_config("test", training={**SMALL, **UNDISTURBED, "learning_rate": 5e-3})
    final = read_weights(train(config, cache, tmp_path, steps=32, schedule="deformation", start=weights))
    for name, value in read_weights(weights).part("completion").items():
        assert torch.equal(final.part("completion")[name], value)
    steps = curve(tmp_path)
    assert {"match", "rigidity", "surface", "position"} <= set(steps[0])
    assert np.mean([e["loss"] for e in steps[-4:]]) < 0.8 * np.mean([e["loss"] for e in steps[:4]])


def test_paper_schedule_trains_in_its_last_column(by_heart, cache, tmp_path, monkeypatch):
    from nr_tracking.training import schedule, trainer

    def at_epoch(name, training, **place):
        return schedule.stage_at(name, training, **{**place, "epoch": 0 if place["step"] == 0 else 30})

    monkeypatch.setattr(trainer, "stage_at", at_epoch)
    train(load_config("test", training=SMALL), cache, tmp_path, steps=3, schedule="paper", start=by_heart[1])
    first, *_, last = curve(tmp_path)
    assert {"distance_8", "eikonal_8"} <= set(first) and "distance_32" not in first
    assert {"cycle", "own", "coarse_cycle", "coarse_own", "match", "rigidity", "surface", "eikonal_32"} <= set(last)
    assert "position" not in last and "contrast" not in last
    assert np.isfinite(last["loss"])


def test_an_optimiser_that_is_restored_steps_as_if_nothing_had_happened(tmp_path):
    """Also for weights with the channels last in memory, whose moments a checkpoint holds in another order."""
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Conv2d(3, 5, 3).to(memory_format=torch.channels_last) for _ in range(2))
    images = torch.randn(2, 3, 8, 8)

    def stepped(layer, optimizer):
        optimizer.zero_grad()
        layer(images).square().mean().backward()
        optimizer.step()

    optimizers = [torch.optim.AdamW(layer.parameters(), lr=0.1, fused=True) for layer in (ours, theirs)]
    stepped(ours, optimizers[0])
    save_checkpoint(tmp_path / "kept", optimizer_tensors(optimizers[0]), {})
    theirs.load_state_dict(ours.state_dict())
    restore_optimizer(optimizers[1], load_checkpoint(tmp_path / "kept").tensors)
    for layer, optimizer in zip((ours, theirs), optimizers, strict=True):
        stepped(layer, optimizer)
    assert torch.equal(ours.weight, theirs.weight) and torch.equal(ours.bias, theirs.bias)
    for parameter, moments in optimizers[1].state.items():
        assert moments["exp_avg"].stride() == parameter.stride()


def test_attention_is_exact_on_a_cpu_whose_network_is_held_in_bfloat16(monkeypatch):
    monkeypatch.setattr("nr_tracking.fields.completion.cpu_has_bfloat16", lambda: True)
    network = CompletionNetwork(load_config("test").model).eval()
    network.hold_bfloat16(torch.device("cpu"))
    assert {p.dtype for p in network.fusion.parameters()} == {torch.float32}
    assert torch.bfloat16 in {p.dtype for p in network.dense_encoder.parameters()}
    seen = []
    for layer in network.fusion.layers:
        layer.register_forward_pre_hook(lambda module, given: seen.append(given[0].dtype))
    config = load_config("test")
    with torch.no_grad():
        network(batches.prepare(bending_window(0), config, np.random.default_rng(0), augment=False).window)
    assert set(seen) == {torch.float32}
