"""Completion along rays: images that do not depend on the camera, distances between rays, and how it is learnt."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from bending_body import bending_window, write_cache
from scipy.spatial import cKDTree

from nr_tracking.config import load_config
from nr_tracking.fields.completion import CompletionNetwork
from nr_tracking.fields.meshing import extract_surface
from nr_tracking.fields.rays import ELSEWHERE, RayField, RayNetwork, Steps, ray_depths
from nr_tracking.fields.weights import read_weights, save_weights
from nr_tracking.sensing.ray_images import FAR, REACH, RayImages, along_rays, continued, joined, ray_cube, ray_image
from nr_tracking.sensing.volume import Volume, fit_volume
from nr_tracking.training.batches import one_frame, prepare
from nr_tracking.training.networks import build_networks
from nr_tracking.training.objective import along_rays as distances_of
from nr_tracking.training.objective import frame_losses
from nr_tracking.training.trainer import Plan, Run, train
from nr_tracking.types import InputError, Intrinsics

CAMERA = Intrinsics(320, 240, 300.0, 310.0, 170.0, 110.0)
RAYS = {
    "rays": True,
    "ray_pixels": 32,
    "ray_channels": (4, 8, 8, 8, 8),
    "ray_blocks": (1, 0, 0, 0, 0),
    "ray_steps": 16,
}
STUDENT = (2, 4, 4, 4, 4)
QUICK = {
    "points": 300,
    "hidden_points": 100,
    "empty_points": 50,
    "surface_points": 80,
    "contrast_points": 32,
    "workers": 0,
    "warmup_steps": 5,
    "learning_rate": 5e-3,
    "average": 0.8,
}
EASY = {"dark": 0.0, "stereo": 0.0, "on_its_side": 0.0}  # for a run of few steps


def ball(camera: Intrinsics, centre: np.ndarray, radius: float) -> torch.Tensor:
    """Depth of a ball."""
    v, u = np.mgrid[: camera.height, : camera.width]
    rays = np.stack(((u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones(u.shape)), axis=-1)
    along, length = rays @ centre, (rays**2).sum(-1)
    root = along**2 - length * (centre @ centre - radius**2)
    return torch.from_numpy(np.where(root > 0, (along - np.sqrt(np.maximum(root, 0))) / length, 0).astype(np.float32))


def window_of(config, seed=0):
    """A training batch of one window, undisturbed."""
    return prepare(bending_window(seed), config, np.random.default_rng(seed), augment=False)


def completed(config):
    """An untrained network, a window, and the field that it makes of it."""
    torch.manual_seed(0)
    network = CompletionNetwork(config.model).eval()
    batch = window_of(config)
    with torch.no_grad():
        return network, batch, network(batch.window)


class TestImages:
    def test_camera_distance_and_size_do_not_show(self):
        """The same ball, twice as large, twice as far, with another camera: the same image along rays."""
        centre = np.array([0.05, 0.1, 1.2])
        other = Intrinsics(640, 480, 640.0, 600.0, 330.0, 250.0)
        first = ray_image(ball(CAMERA, centre, 0.3), None, CAMERA, Volume(centre, 1.0), 64)
        second = ray_image(ball(other, 2 * centre, 0.6), None, other, Volume(2 * centre, 2.0), 64)
        torch.testing.assert_close(first.view, second.view)
        both = (first.channels[0, 0] > 0) & (second.channels[0, 0] > 0)
        assert both.float().sum() > 0.95 * first.channels[0, 0].sum()
        assert (first.channels[0, 1] - second.channels[0, 1])[both].abs().median() < 0.003

    def test_every_subject_point_lies_on_the_front_of_its_ray(self):
        """Pixels of the image, back-projected to the cube, fall on the ray that reads them, at the depth it gives."""
        centre = np.array([-0.2, 0.1, 1.5])
        depth, volume = ball(CAMERA, centre, 0.35), Volume(centre, 1.1)
        images = ray_image(depth, None, CAMERA, volume, 128)
        v, u = np.nonzero(depth.numpy())
        z = depth.numpy()[v, u]
        metric = np.stack([(u - CAMERA.cx) / CAMERA.fx * z, (v - CAMERA.cy) / CAMERA.fy * z, z], axis=1)
        points = torch.from_numpy(volume.to_box(metric).astype(np.float32))
        place, deep, _ = along_rays(points, images.view.expand(len(points), 3))
        at = ((place + 0.5) * 128 - 0.5).round().long()
        assert (images.front[0, at[:, 1], at[:, 0]] - deep).abs().median() < 0.002
        assert bool((images.channels[0, 0, at[:, 1], at[:, 0]] == 1).float().mean() > 0.99)

    def test_slopes_of_a_plane(self):
        """z = 0.3 x + const through the cube's centre, seen almost without perspective."""
        camera = Intrinsics(400, 400, 8000.0, 8000.0, 199.5, 199.5)
        u = torch.arange(400, dtype=torch.float32)
        ray = (u - 199.5) / 8000.0
        depth = (20.0 / (1 - 0.3 * ray)).expand(400, 400).contiguous()
        images = ray_image(depth, None, camera, Volume(np.array([0.0, 0.0, 20.0]), 0.9), 64)
        inner = images.channels[0, 2:4, 8:-8, 8:-8]
        # A ray reads the nearest pixel, up to half a pixel beside it.
        assert (inner[0] - 0.3 / 4).abs().max() < 0.008 and abs(float(inner[0].mean()) - 0.3 / 4) < 5e-4
        assert inner[1].abs().max() < 1e-4

    def test_what_else_returns_is_told_apart(self):
        depth = torch.full((240, 320), 2.0)
        depth[100:140, 150:190] = 1.0
        mask = depth < 1.5
        image = ray_image(depth, mask, CAMERA, Volume(np.array([0.0, 0.0, 1.0]), 0.5), 64).channels[0]
        subject, other = image[0] > 0, image[5] > 0
        assert bool((subject ^ other).all())
        assert (image[1][subject].abs() < 1e-6).all() and (image[4][other] == 1).all()
        assert (image[4][subject] == 0).all() and (image[1][other] == 0).all()

    def test_the_front_is_continued_so_far_and_no_further(self):
        subject = torch.zeros(40, 40, dtype=torch.bool)
        subject[20, 20] = subject[20, 30] = True
        z = torch.where(subject, torch.linspace(-0.2, 0.2, 40).expand(40, 40), torch.tensor(7.0))
        front = continued(z, subject)
        reached = front < FAR
        assert reached[20 - REACH, 20] and not reached[20 - REACH - 1, 20]
        assert front[20, 25] == z[20, 20], "of two as near, the frontmost"
        assert set(front[reached].unique().tolist()) == {z[20, 20].item(), z[20, 30].item()}

    @pytest.mark.parametrize("distance", [0.5, 0.7, 3.0])
    def test_all_of_a_close_subject_is_in_the_image(self, distance):
        """What is nearer than the middle of the cube looks larger than the cube's side."""
        depth, config = ball(CAMERA, np.array([0.02, -0.03, distance]), 0.2), load_config("lite")
        v, u = np.nonzero(depth.numpy())
        z = depth.numpy()[v, u]
        cloud = np.stack(((u - CAMERA.cx) / CAMERA.fx * z, (v - CAMERA.cy) / CAMERA.fy * z, z), axis=1)
        own, fitted = ray_cube(cloud, config.volume), fit_volume(cloud, config.volume)
        assert own.side >= fitted.side and (own.side == fitted.side or distance < 1)
        points = torch.from_numpy(own.to_box(cloud).astype(np.float32))
        images = ray_image(depth, None, CAMERA, own, 64)
        _, _, beside = along_rays(points, images.view.expand(len(points), 3))
        assert float((beside > 0).float().mean()) < 0.003

    def test_a_cube_behind_the_camera_is_refused(self):
        with pytest.raises(ValueError, match="before the camera"):
            ray_image(torch.ones(240, 320), None, CAMERA, Volume(np.array([0.0, 0.0, -1.0]), 0.5), 32)


class TestField:
    def random_field(self, frames=2, side=8, steps=9):
        torch.manual_seed(0)
        front = torch.rand(frames, side, side) * 0.4 - 0.3
        front[0, :2] = FAR
        view = torch.tensor([[0.1, -0.2, 0.4], [0.0, 0.3, 0.7]])[:frames]
        place = torch.tensor([[0.0, 0.0, 0.0, 1.0], [0.1, -0.05, 0.02, 0.8]])[:frames]
        return RayField(torch.randn(frames, side, side, steps), ray_depths(steps), front, view, place)

    def test_against_a_loop(self):
        """One point at a time: project, read four rays, interpolate along each with numpy."""
        field = self.random_field()
        points, frame = torch.rand(200, 3) - 0.5, torch.arange(200) % 2
        found = field.sdf(points, frame).numpy()
        for index in range(200):
            place = field.place[frame[index]].double().numpy()
            x, y, z = (points[index].double().numpy() - place[:3]) / place[3]
            a, b, scale = field.view[frame[index]].double().numpy()
            near = 1 + scale * z
            gx, gy = (x - a * z) / near, (y - b * z) / near
            px, py = np.clip((gx + 0.5) * 8 - 0.5, 0, 7), np.clip((gy + 0.5) * 8 - 0.5, 0, 7)
            column, row = min(int(px), 6), min(int(py), 6)
            total = 0.0
            for r, c in ((0, 0), (0, 1), (1, 0), (1, 1)):
                share = (py - row if r else 1 - py + row) * (px - column if c else 1 - px + column)
                front = float(field.front[frame[index], row + r, column + c])
                values = field.distances[frame[index], row + r, column + c].numpy()
                total += share * (ELSEWHERE if front >= FAR else np.interp(z - front, field.depths.numpy(), values))
            beside = max(abs(gx), abs(gy)) - 0.5
            expected = max(total, beside * near) if beside > 0 else total
            assert abs(found[index] - place[3] * expected) < 1e-4

    def test_the_same_field_in_another_window(self):
        """Where the window's cube lies changes no distance in metres."""
        torch.manual_seed(1)
        centre = np.array([0.05, 0.1, 1.2])
        depth, own = ball(CAMERA, centre, 0.3), Volume(centre, 0.9)
        network = RayNetwork((4, 8, 8, 8, 8), (0,) * 5, 16).eval()
        metric = centre + 0.5 * (np.random.default_rng(0).random((300, 3)) - 0.5)
        found = []
        for window in (own, Volume(np.array([0.2, 0.0, 1.1]), 1.4)):
            field = network(ray_image(depth, None, CAMERA, own, 64, window))
            points = torch.from_numpy(window.to_box(metric).astype(np.float32))
            found.append(window.side * field.sdf(points, torch.zeros(300, dtype=torch.int64)))
        torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-4)

    def test_nothing_goes_on_beside_the_image(self):
        """Rays at the border are inside of the subject; beside the image there is nothing, and the farther the less."""
        field = replace(self.random_field(), distances=torch.full((2, 8, 8, 9), -0.05), front=torch.zeros(2, 8, 8))
        across = torch.linspace(0, 0.9, 26)
        points = torch.stack((across, torch.zeros(26), torch.full((26,), 0.1)), dim=1)
        frame = torch.ones(26, dtype=torch.int64)
        for found in (field.sdf(points, frame), field.sdf_of_nearest(points, frame)):
            inside = found < 0
            assert inside[0] and not inside[-1] and int(inside.int().diff().abs().sum()) == 1
            assert bool((found[~inside].diff() > 0).all())

    def test_more_values_than_a_small_integer_counts(self, monkeypatch):
        field, points, frame = self.random_field(), torch.rand(50, 3) - 0.5, torch.arange(50) % 2
        expected = field.sdf(points, frame)
        monkeypatch.setattr("nr_tracking.fields.rays._MOST_BY_INT32", 100)
        assert torch.equal(field.sdf(points, frame), expected)

    def test_the_nearest_ray_alone(self):
        """Where distances do not change from pixel to pixel, one ray says what four say."""
        field = self.random_field()
        field = replace(field, distances=field.distances[:, :1, :1].expand_as(field.distances).contiguous())
        field = replace(field, front=torch.full_like(field.front, -0.1))
        points, frame = torch.rand(200, 3) - 0.5, torch.arange(200) % 2
        torch.testing.assert_close(field.sdf_of_nearest(points, frame), field.sdf(points, frame), atol=1e-5, rtol=1e-4)

    @pytest.mark.parametrize("steps", [8, 9, 48, 256])
    def test_steps_are_found_as_by_a_search(self, steps):
        depths = ray_depths(steps)
        low, high = float(depths[0]), float(depths[-1])
        behind = torch.cat([torch.linspace(low - 0.1, high + 0.1, 20_001), depths, depths - 1e-7])
        step, share = Steps(depths).place(behind)
        expected = (torch.searchsorted(depths, behind.clamp(low, high), right=True) - 1).clamp(0, steps - 2)
        assert torch.equal(step, expected.int())
        values = torch.rand(steps)
        found = torch.lerp(values[step], values[step + 1], share)
        np.testing.assert_allclose(found, np.interp(behind, depths, values), atol=1e-4)

    def test_derivative_by_the_points(self):
        field = self.random_field()
        field = replace(
            field, **{n: getattr(field, n).double() for n in ("distances", "depths", "front", "view", "place")}
        )
        points = (torch.rand(30, 3, dtype=torch.float64) - 0.5) * 0.8
        points.requires_grad_(True)
        frame = torch.ones(30, dtype=torch.int64)
        assert torch.autograd.gradcheck(lambda p: field.sdf(p, frame), (points,), eps=1e-7, atol=1e-4)

    def test_an_untrained_network_says_slab(self):
        network = RayNetwork((4, 8, 8, 8, 8), (1, 1, 1, 1, 1), 48).eval()
        with torch.no_grad():
            network.last.weight.zero_()
        front = torch.zeros(1, 64, 64)
        here = torch.tensor([[0.0, 0.0, 0.0, 1.0]])
        images = RayImages(torch.zeros(1, 7, 64, 64), front, torch.tensor([[0.0, 0.0, 0.3]]), here)
        z = torch.linspace(-0.1, 0.3, 50)
        points = torch.stack((torch.zeros(50), torch.zeros(50), z), dim=1)
        found = network(images).sdf(points, torch.zeros(50, dtype=torch.int64))
        assert (found - torch.maximum(-z, z - 0.08).clamp(-0.1, 0.1))[z > -0.05].abs().max() < 0.01

    def test_depths_rise(self):
        for steps in (8, 48, 200):
            depths = ray_depths(steps)
            assert len(depths) == steps and bool((depths.diff() > 0).all()) and 0.0 in depths


class TestCompletion:
    @pytest.fixture(scope="class")
    def config(self):
        return load_config("test", model=RAYS)

    @pytest.mark.parametrize("share", [0.5, 0.8])
    def test_the_field_is_the_mean_of_both_opinions(self, share):
        """On every scale and on the grid."""
        config = load_config("test", model={**RAYS, "ray_share": share})
        network, batch, field = completed(config)
        with torch.no_grad():
            rays = network.complete_rays(batch.window.rays)
            along = rays.sdf(batch.points, batch.frame)
            for level in field.levels:
                features, _ = field.level_features(level, batch.points, batch.frame)
                expected = share * along + (1 - share) * network.distance(features, batch.points)
                torch.testing.assert_close(field.level_sdf(level, batch.points, batch.frame)[0], expected)
            near = field.fine_grid.coords[field.fine_grid.frame_index == 1]
            centres, one = (near[:, 1:].float() + 0.5) / config.model.resolution - 0.5, torch.ones(len(near)).long()
            torch.testing.assert_close(field.grid(1)[tuple(near[:, 1:].long().t())], field.sdf(centres, one))
            far = (torch.rand(500, 3) - 0.5) * 0.9
            coarse = field.grid(1)[tuple(((far + 0.5) * config.model.resolution).long().t())]
            assert (coarse - field.sdf(far, torch.ones(500).long())).abs().median() < 0.02

    def test_its_surface_is_closed_and_around_what_is_seen(self, config):
        _, batch, field = completed(config)
        vertices, faces = extract_surface(field, 0, config.mesh)
        edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
        assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()
        assert np.abs(vertices).max() < 0.51
        voxels = batch.window.coords[(batch.window.coords[:, 0] == 0) & (batch.window.values[:, 0].abs() < 0.1)]
        seen = (voxels[:, 1:].numpy() + 0.5) / config.model.resolution - 0.5
        away = cKDTree(vertices).query(seen)[0]
        assert np.median(away) < 1 / config.model.resolution

    def test_a_window_without_rays_is_refused(self, config):
        batch = window_of(config)
        network = CompletionNetwork(config.model)
        with pytest.raises(InputError, match=r"model\.rays"):
            network(replace(batch.window, rays=None))
        with pytest.raises(InputError, match=r"model\.rays"):
            CompletionNetwork(load_config("test").model).complete_rays(batch.window.rays)


class TestTraining:
    @pytest.fixture(scope="class")
    def cache(self, tmp_path_factory):
        folder = tmp_path_factory.mktemp("cache")
        write_cache(folder, windows=3, frames=3)
        return folder

    def test_a_frame_of_a_window(self):
        window = bending_window(0)
        single = one_frame(window, np.random.default_rng(1))
        index = next(i for i in range(len(window.depth)) if np.array_equal(window.depth[i], single.depth[0]))
        assert single.depth.shape[0] == single.points.shape[0] == single.sdf.shape[0] == 1
        np.testing.assert_array_equal(single.points[0], window.points[index])
        np.testing.assert_array_equal(single.surface[0], window.surface[index])

    def test_first_the_rays_then_the_rest(self, tmp_path, cache):
        """The rays schedule lowers its losses and moves nothing else; the completion schedule leaves the rays alone."""
        config = load_config("test", model=RAYS, training={**QUICK, "noise": 0.0, "background": 0.0, "occluder": 0.0})
        torch.manual_seed(config.training.seed)
        fresh = build_networks(config, "rays", None)["completion"]
        first = train(config, cache, tmp_path / "rays", schedule="rays", steps=40)
        rows = [json.loads(line) for line in (tmp_path / "rays" / "log.jsonl").read_text().splitlines()]
        losses = [row["loss"] for row in rows if "loss" in row]
        assert np.mean(losses[-8:]) < 0.7 * np.mean(losses[:8])
        learnt = read_weights(first).part("completion")
        moved = {name for name, value in fresh.state_dict().items() if not torch.equal(value, learnt[name])}
        assert moved and all(name.startswith("rays.") for name in moved)

        second = train(config, cache, tmp_path / "all", schedule="completion", steps=6, start=first)
        final = read_weights(second).part("completion")
        moved = {name for name in learnt if not torch.equal(learnt[name], final[name])}
        assert moved and not any(name.startswith("rays.") for name in moved)

    def test_where_the_field_is_along_rays_alone_all_of_a_new_network_learns_at_once(self, tmp_path, cache):
        config = load_config("test", model={**RAYS, "ray_share": 1.0}, training={**QUICK, **EASY, "freeze_rays": True})
        torch.manual_seed(config.training.seed)
        fresh = build_networks(config, "completion", None)["completion"].state_dict()
        first = train(config, cache, tmp_path / "all", schedule="completion", steps=20)
        learnt = read_weights(first).part("completion")
        moved = {name.split(".")[0] for name in learnt if not torch.equal(fresh[name], learnt[name])}
        assert moved >= {"rays", "dense_encoder", "fine_decoder", "distance", "embedding"}
        rows = [json.loads(line) for line in (tmp_path / "all" / "log.jsonl").read_text().splitlines()]
        losses = [row["ray_distance"] for row in rows if row["kind"] == "step"]
        assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4])

        train(config, cache, tmp_path / "rest", schedule="completion", steps=2, start=first)
        rows = [json.loads(line) for line in (tmp_path / "rest" / "log.jsonl").read_text().splitlines()]
        assert not any("ray_distance" in row for row in rows)  # frozen now

    def test_a_student_learns_beside_its_teacher(self, tmp_path, cache):
        """It nears truth and teacher, its weights are a file of their own, and nothing of it but rays moves."""
        training = {
            **QUICK,
            "noise": 0.0,
            "background": 0.0,
            "occluder": 0.0,
            "student_channels": STUDENT,
            "windows_per_step": 2,
        }
        config = load_config("test", model=RAYS, training=training)
        torch.manual_seed(config.training.seed)
        fresh = build_networks(config, "rays", None)["student"]
        train(config, cache, tmp_path / "rays", schedule="rays", steps=40)
        rows = [json.loads(line) for line in (tmp_path / "rays" / "log.jsonl").read_text().splitlines()]
        for name in ("student_ray_distance", "student_ray_occupancy"):
            values = [row[name] for row in rows if name in row]
            assert np.mean(values[-8:]) < 0.7 * np.mean(values[:8]), name
        weights = read_weights(tmp_path / "rays" / "student_weights.safetensors")
        assert weights.preset == "test" and weights.model.ray_channels == STUDENT
        learnt = weights.part("completion")
        moved = {name for name, value in fresh.state_dict().items() if not torch.equal(value, learnt[name])}
        assert moved and all(name.startswith("rays.") for name in moved)

    def test_a_teacher_is_heeded(self, tmp_path, cache):
        """Its part of the loss alone brings the student to a teacher who is wrong, and leaves that one as it is."""
        config = load_config("test", model=RAYS, training={**QUICK, "student_channels": STUDENT, "windows_per_step": 2})
        run = Run(config, cache, tmp_path, "rays", Plan(1, None), None, None)
        batches = next(run.windows_of_epoch())
        rays = [run.networks[name].rays for name in ("completion", "student")]
        with torch.no_grad():
            rays[0].last.bias.sub_(0.3)
        optimizer = torch.optim.Adam(rays[1].parameters(), lr=5e-3)
        apart = []
        for _ in range(40):
            optimizer.zero_grad()
            taught = sum(row["student_taught"] for row in frame_losses(run.networks, batches, run.config.training))
            taught.backward()
            optimizer.step()
            apart.append(float(taught.detach()))
        assert apart[-1] < 0.3 * apart[0]
        assert all(parameter.grad is None for parameter in rays[0].parameters())

    def test_a_teacher_has_the_same_say_over_any_number_of_windows(self, tmp_path, cache):
        """The mean over the windows of a step does not fall with their number."""
        means = []
        for count in (1, 3):
            training = {**QUICK, "student_channels": STUDENT, "windows_per_step": 3}
            config = load_config("test", model=RAYS, training=training)
            run = Run(config, cache, tmp_path / str(count), "rays", Plan(1, None), None, None)
            batches = next(run.windows_of_epoch())
            groups = [batches[start : start + count] for start in range(0, 3, count)]
            rows = [row for group in groups for row in frame_losses(run.networks, group, run.config.training)]
            means.append(np.mean([float(row["student_taught"].detach()) for row in rows]))
        assert means[0] == pytest.approx(means[1], rel=0.02)

    def test_frozen_without_a_student_there_is_nothing_to_learn(self):
        config = load_config("test", model=RAYS, training={"freeze_teacher": True})
        with pytest.raises(InputError, match=r"training\.student_channels"):
            build_networks(config, "rays", None)

    def test_frames_together_have_the_losses_that_they_have_alone(self):
        """Windows of one and of three frames go through the network at once; none meets another's frames."""
        config = load_config("test", model=RAYS)
        network = CompletionNetwork(config.model).eval()
        whole = window_of(config, 1)
        single = prepare(one_frame(bending_window(2), np.random.default_rng(0)), config, np.random.default_rng(0))
        batches = [whole, single, whole]
        with torch.no_grad():
            at_once = distances_of(network.complete_rays(joined([batch.window.rays for batch in batches])), batches)
            for batch, found in zip(batches, at_once, strict=True):
                alone = network.complete_rays(batch.window.rays).sdf(batch.points, batch.frame)
                torch.testing.assert_close(found, alone, atol=2e-3, rtol=0)  # bfloat16 rounds by the batch

    def test_without_a_ray_network_there_is_nothing_to_train(self):
        with pytest.raises(InputError, match=r"model\.rays"):
            build_networks(load_config("test"), "rays", None)


def test_weights_held_in_bfloat16_give_the_same_bits(monkeypatch):
    """Also where the processor would not multiply in bfloat16 by itself."""
    monkeypatch.setattr("nr_tracking.fields.completion.cpu_has_bfloat16", lambda: True)
    config = load_config("test", model=RAYS)
    torch.manual_seed(0)
    network = CompletionNetwork(config.model).eval()
    batch = prepare(bending_window(0), config, np.random.default_rng(0), augment=False)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
        before = network(batch.window)
        network.hold_bfloat16(torch.device("cpu"))
        after = network(batch.window)
    held = sum(parameter.dtype == torch.bfloat16 for parameter in network.parameters())
    assert held > 20 and network.distance.last.weight.dtype == torch.float32
    for frame in range(5):
        assert torch.equal(before.grid(frame), after.grid(frame))
    assert (before.grid(0) < 0).any()


def test_weights_of_a_version_that_knew_fewer_settings(tmp_path, monkeypatch):
    """A file is verified by what it says itself, not by today's settings."""
    config = load_config("test")
    settings = config.model.model_dump_json(exclude={"rays", "ray_pixels", "ray_channels", "ray_blocks", "ray_steps"})
    monkeypatch.setattr("nr_tracking.fields.weights._settings", lambda model: settings)
    save_weights(tmp_path / "old.safetensors", {"part": {"a": torch.ones(3)}}, preset="test", model=config.model)
    monkeypatch.undo()
    assert read_weights(tmp_path / "old.safetensors").model == config.model
