"""Things before the subject: they hide some of it, the mask leaves them out, and what is behind them is unknown."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bending_body import bending_window

from nr_tracking.config import load_config
from nr_tracking.data import occluders
from nr_tracking.data.clips import Clip, is_closed
from nr_tracking.data.occluders import KINDS, draw_occluder, occlude
from nr_tracking.sensing.tsdf import seen_space
from nr_tracking.training.batches import prepare, subject_volume


@pytest.fixture(scope="module")
def window():
    return bending_window(0, frames=2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_thing_stands_between_the_camera_and_the_subject(window, kind, monkeypatch) -> None:
    monkeypatch.setattr(occluders, "KINDS", (kind,))
    nearest = window.depth[window.depth > 0].min()
    for seed in range(4):
        thing = draw_occluder(window.depth, window.depth > 0, window.intrinsics, np.random.default_rng(seed))
        assert thing.kind == kind
        before = thing.rendered(2, window.intrinsics)
        seen = before[before > 0]
        assert len(seen) and seen.min() > 0.05 and np.median(seen) < nearest
    if kind != "hand":
        assert is_closed(thing.faces)


def test_what_is_hidden_is_in_no_mask_and_the_rest_is_as_it_was(window) -> None:
    hidden = []
    for seed in range(8):
        subject = window.depth > 0
        depth, mask = occlude(window.depth, subject, window.intrinsics, np.random.default_rng(seed))
        assert not (mask & ~subject).any()
        np.testing.assert_array_equal(depth[mask], window.depth[mask])
        lost = subject & ~mask
        assert (depth[lost] < window.depth[lost]).all() and (depth[lost] > 0).all()
        hidden.append(lost.sum() / subject.sum())
    assert max(hidden) <= 0.45 and np.mean(np.array(hidden) > 0.01) > 0.5


def test_space_behind_a_thing_is_neither_empty_nor_without_return(window) -> None:
    depth, mask = occlude(window.depth, window.depth > 0, window.intrinsics, np.random.default_rng(1))
    assert ((window.depth > 0) & ~mask).any()
    volume = subject_volume(window.depth, window.intrinsics, load_config("test"), None)
    free, shut = (
        seen_space(torch.from_numpy(images[0]), None, window.intrinsics, volume, 8) for images in (window.depth, depth)
    )
    behind = free[0] > shut[0] + 1e-6
    assert behind.any() and (shut[1] <= free[1] + 1e-6).all()


def test_training_sees_less_of_an_occluded_subject(window) -> None:
    calm = dict.fromkeys(
        ("noise", "background", "mirror", "reverse", "stretch", "warp", "dropout", "centre_jitter"), 0.0
    )
    calm |= {"single_frame_cube": 0.0, "side_jitter": (1.0, 1.0)}
    plain, less = (
        prepare(window, load_config("test", training={**calm, "occluder": share}), np.random.default_rng(1))
        for share in (0.0, 1.0)
    )
    assert len(less.window.coords) < len(plain.window.coords)


def test_a_clip_is_played_at_another_rate() -> None:
    vertices = np.arange(5, dtype=np.float32)[:, None, None] * np.ones((1, 3, 3), np.float32)
    clip = Clip("walk", "object", "x", vertices, np.array([[0, 1, 2]]), 30.0)
    np.testing.assert_allclose(clip.resampled(60.0, 5).vertices[:, 0, 0], [0, 0.5, 1, 1.5, 2])
    np.testing.assert_allclose(clip.resampled(15.0, 3).vertices[:, 0, 0], [0, 2, 4])
    np.testing.assert_array_equal(clip.resampled(10.0, 2).vertices, clip.every(3).vertices)
    assert clip.resampled(60.0, 5).fps == 60
