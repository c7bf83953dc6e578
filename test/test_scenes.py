"""Scenes around a training subject: what they show never contradicts where the subject is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from bending_body import bending_window
from hypothesis import given, settings
from hypothesis import strategies as st

from nr_tracking.config import load_config
from nr_tracking.data.cache import WindowSample
from nr_tracking.data.occluders import occlude
from nr_tracking.sensing.camera import back_project
from nr_tracking.sensing.tsdf import seen_space
from nr_tracking.training.batches import prepare, subject_volume, turned
from nr_tracking.training.scenes import cut_sides, dark_patch, is_cut, observed, with_background

EVERYTHING = {"occluder": 0.5, "background": 1.0, "noise": 0.5, "dark": 0.3, "warp": 0.5, "stretch": 0.1}


@pytest.fixture(scope="module")
def window() -> WindowSample:
    return bending_window(0, frames=2)


def cut_off(sample: WindowSample) -> WindowSample:
    """The same subject in an image that ends 40 rows higher."""
    camera = replace(sample.intrinsics, height=sample.intrinsics.height - 40)
    return replace(sample, depth=np.ascontiguousarray(sample.depth[:, :-40]), intrinsics=camera)


def background_of(sample: WindowSample, seed: int, depth: np.ndarray | None = None, mask: np.ndarray | None = None):
    depth = sample.depth if depth is None else depth
    mask = depth > 0 if mask is None else mask
    rng = np.random.default_rng(seed)
    return with_background(depth, mask, sample.intrinsics, sample.surface, sample.up, rng)


def test_a_background_fills_the_view_and_is_the_same_in_all_frames(window: WindowSample) -> None:
    for seed in range(6):
        depth, mask, camera = background_of(window, seed)
        assert depth.shape[1:] == (camera.height, camera.width)
        at = mask[1]
        pad = (camera.width - window.intrinsics.width) // 2
        before = back_project(window.depth[1], window.intrinsics)[at[pad:-pad, pad:-pad]]
        np.testing.assert_allclose(back_project(depth[1], camera)[at], before, atol=1e-5)
        alone = np.pad(window.depth, ((0, 0), (pad, pad), (pad, pad))).max(0) == 0
        assert (np.ptp(depth[:, alone], axis=0) == 0).all()
        assert (depth[:, alone] > 0).mean() > 0.3


def test_a_background_lies_behind_the_whole_subject_and_not_only_what_is_seen_of_it(window: WindowSample) -> None:
    # Only the upper half was seen; the floor is under the feet all the same.
    depth = window.depth.copy()
    depth[:, 48:] = 0
    behind = 0
    for seed in range(8):
        scene, mask, camera = background_of(window, seed, depth)
        points = window.surface.reshape(-1, 3)
        at = np.rint(points[:, :2] / points[:, 2:] * (camera.fx, camera.fy) + (camera.cx, camera.cy)).astype(int)
        there = scene[0][at[:, 1], at[:, 0]]
        alone = (there > 0) & ~np.pad(depth.max(0) > 0, (camera.width - 72) // 2)[at[:, 1], at[:, 0]]
        assert (there[alone] > points[alone, 2] - 1e-3).all()
        behind += int(alone.sum())
        assert not (mask & (scene == 0)).any()
    assert behind > 500


def test_there_is_no_floor_between_the_subject_and_a_camera_that_looks_up_at_it(window: WindowSample) -> None:
    steep = replace(window, up=np.array([0, -1, 1], np.float32) / np.float32(np.sqrt(2)))
    assert (steep.surface @ steep.up).min() > 0.3, "all of the subject is higher than the camera"
    walls = 0
    for seed in range(12):
        depth, mask, camera = background_of(steep, seed)
        pad = (camera.width - window.intrinsics.width) // 2
        alone = np.pad(window.depth, ((0, 0), (pad, pad), (pad, pad))) == 0
        assert (depth >= 0).all() and mask.sum() > 0.6 * (window.depth > 0).sum()
        walls += (depth[alone] > 0).mean() > 0.3
    assert walls > 4


def test_a_background_stays_behind_what_stands_before_the_subject(window: WindowSample) -> None:
    depth, mask = occlude(window.depth, window.depth > 0, window.intrinsics, np.random.default_rng(1))
    scene, subject, camera = background_of(window, 0, depth, mask)
    pad = (camera.width - window.intrinsics.width) // 2
    inner = np.s_[:, pad : pad + depth.shape[1], pad : pad + depth.shape[2]]
    np.testing.assert_array_equal(scene[inner][depth > 0], depth[depth > 0])
    assert not (subject[inner] & ~mask).any()


def test_feet_on_a_floor_are_taken_for_a_part_of_it_now_and_then(window: WindowSample) -> None:
    kept = np.array([background_of(window, seed)[1].sum() for seed in range(60)])
    whole = (window.depth > 0).sum()
    assert (kept == whole).any() and (kept < whole).any() and kept.min() > 0.6 * whole


def test_the_mask_follows_the_noise(window: WindowSample) -> None:
    config = load_config("test", training={"noise": 1.0, "background": 1.0, "occluder": 1.0}).training
    for seed in range(10):
        depth, mask, camera = observed(window, config, np.random.default_rng(seed))
        points = back_project(depth[0], camera)[mask[0]]
        # All that is taken for the subject is near it: neither wall nor floor nor what stands before it.
        gap = np.sqrt(((points[:, None] - window.surface[0][None]) ** 2).sum(-1)).min(1)
        assert len(points) > 200 and np.percentile(gap, 99) < 0.15
    assert not is_cut(window.depth) and is_cut(cut_off(window).depth)


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), cut=st.booleans())
def test_no_part_of_the_subject_lies_where_the_scene_is_seen_to_be_empty(seed: int, cut: bool) -> None:
    config = load_config("test", training=EVERYTHING)
    sample, rng = bending_window(seed % 3, frames=2, points=1500, surface=400), np.random.default_rng(seed)
    sample = cut_off(sample) if cut else sample
    was_cut = is_cut(sample.depth)
    straight = was_cut and seed % 2 == 0
    sample = turned(sample, config.training, rng, warp=not straight)
    depth, mask, camera = observed(sample, config.training, rng, background=straight or not was_cut)
    volume = subject_volume(np.where(mask, depth, 0), camera, config, None)
    seen = seen_space(torch.from_numpy(depth[0]), torch.from_numpy(mask[0]), camera, volume, 16)
    empty = seen[0].numpy() > 0.99
    deep = volume.to_box(sample.points[0][sample.sdf[0] < -0.07])
    deep = deep[(np.abs(deep) < 0.5).all(1)]
    cells = ((deep + 0.5) * 16).astype(int)
    assert not empty[tuple(cells.T)].any()


def test_a_window_is_ready_for_a_step_whatever_is_around_it(window: WindowSample) -> None:
    config = load_config("test", training=EVERYTHING)
    for seed in range(4):
        batch = prepare(window, config, np.random.default_rng(seed))
        assert len(batch.window.coords) and torch.isfinite(batch.distance).all()


def test_a_subject_that_is_cut_has_a_background_beside_it_and_none_beyond_the_border(window: WindowSample) -> None:
    sample = cut_off(window)
    assert cut_sides(sample.depth) == (False, True, False, False)
    rows, filled = sample.depth.shape[1], []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        cut = cut_sides(sample.depth)
        depth, mask, camera = with_background(
            sample.depth, sample.depth > 0, sample.intrinsics, sample.surface, sample.up, rng, cut
        )
        pad = depth.shape[1] - rows
        assert pad > 0 and depth.shape[2] - sample.depth.shape[2] == 2 * pad
        assert camera.cy == sample.intrinsics.cy + pad and camera.cx == sample.intrinsics.cx + pad
        # The lowest row is still the one in which the image ended.
        there = sample.depth[:, -1] > 0
        np.testing.assert_array_equal(depth[:, -1, pad:-pad][there], sample.depth[:, -1][there])
        assert mask[:, -1].any()
        filled.append((depth > 0).mean())
    assert max(filled) > 0.9 and min(filled) > (sample.depth > 0).mean() / 4


def test_a_dark_patch_is_a_part_of_the_subject_and_moves_with_it(window: WindowSample) -> None:
    shares, common = [], []
    for seed in range(40):
        mask = window.depth > 0
        dark = dark_patch(window.depth, mask, window.intrinsics, window.surface, np.random.default_rng(seed))
        assert dark.shape == mask.shape and not (dark & ~mask).any()
        shares.append(dark.sum() / mask.sum())
        if shares[-1] == 0:
            continue
        # What is dark of the first frame lies on those points of the body that are dark in the second.
        parts = []
        for frame in range(2):
            points = back_project(window.depth[frame], window.intrinsics)[dark[frame]]
            apart = np.linalg.norm(points[:, None] - window.surface[frame][None], axis=-1)
            parts.append(set(apart.argmin(1).tolist()))
        if min(map(len, parts)) > 20:
            common.append(len(parts[0] & parts[1]) / min(map(len, parts)))
    assert len(common) > 10 and min(common) > 0.3 and np.mean(common) > 0.6
    assert max(shares) <= 0.6 and 0.05 < np.mean(shares) < 0.45 and np.count_nonzero(shares) > 20


def test_an_image_without_its_subject_has_no_dark_patch(window: WindowSample) -> None:
    nothing = np.zeros_like(window.depth)
    assert not dark_patch(nothing, nothing > 0, window.intrinsics, window.surface, np.random.default_rng(0)).any()
