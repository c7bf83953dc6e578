"""The mirror image of a prepared window is what would have been prepared in a mirrored world."""

from typing import ClassVar

import numpy as np
import pytest
import torch
from bending_body import bending_window

from nr_tracking.config import load_config
from nr_tracking.data.clip_cache import GeneratedWindows
from nr_tracking.training import batches
from nr_tracking.training.feed import PreparedWindows, draws_of_epoch
from nr_tracking.training.mirroring import mirrored_batch

CONFIG = load_config("test", model={"rays": True}, training={"echoes": 3, "points": 200})


@pytest.fixture(scope="module")
def sample():
    return bending_window(0)


def prepared(sample):
    return batches.prepare(sample, CONFIG, np.random.default_rng(0), augment=False)


def voxels(coords, values=None):
    """Rows of voxels, with their values, in one order."""
    rows = coords.double() if values is None else torch.cat((coords.double(), values.double()), dim=1)
    return rows.numpy()[np.lexsort(coords.numpy().T[::-1])]


def test_it_is_what_a_mirrored_window_is_prepared_to(sample):
    found, wanted = mirrored_batch(prepared(sample)), prepared(batches.mirrored(sample))
    np.testing.assert_allclose(found.volume.centre, wanted.volume.centre, atol=1e-6)
    assert found.volume.side == pytest.approx(wanted.volume.side)
    np.testing.assert_allclose(found.tracks, wanted.tracks, atol=1e-6)
    for name in ("view", "place"):
        np.testing.assert_allclose(getattr(found.window.rays, name), getattr(wanted.window.rays, name), atol=1e-6)
    # A centre that lies between two pixels may fall to either.
    for ours, theirs in (
        (found.window.rays.channels, wanted.window.rays.channels),
        (found.window.rays.front, wanted.window.rays.front),
        (found.window.seen, wanted.window.seen),
    ):
        assert (torch.isclose(ours, theirs, atol=1e-4)).double().mean() > 0.99
    ours, theirs = voxels(found.window.coords, found.window.values), voxels(wanted.window.coords, wanted.window.values)
    shared = {tuple(row[:4]): row[4] for row in ours}
    both = [(shared[tuple(row[:4])], row[4]) for row in theirs if tuple(row[:4]) in shared]
    assert len(both) > 0.98 * len(theirs) and np.isclose(*np.array(both).T, atol=1e-3).mean() > 0.98
    for cells, wanted_voxels in wanted.teacher.items():
        np.testing.assert_array_equal(voxels(found.teacher[cells]), voxels(wanted_voxels))


def test_points_keep_their_distances_and_partners(sample):
    batch = prepared(sample)
    found = mirrored_batch(batch)
    flip = torch.tensor([-1.0, 1.0, 1.0])
    for name in ("points", "matched"):
        assert torch.equal(getattr(found, name), getattr(batch, name) * flip)
    for name in ("frame", "distance", "weight"):
        assert torch.equal(getattr(found, name), getattr(batch, name))
    assert found.pair == batch.pair


def storages(held):
    """Where the tensors of a dataclass, and of those in it, lie."""
    if isinstance(held, torch.Tensor):
        return {held.untyped_storage().data_ptr()}
    parts = vars(held).values() if hasattr(held, "__dataclass_fields__") else held.values()
    inside = [part for part in parts if isinstance(part, torch.Tensor | dict) or hasattr(part, "__dataclass_fields__")]
    return set().union(*map(storages, inside))


def test_a_batch_and_its_mirror_image_share_no_memory(sample):
    batch = prepared(sample)
    ours, theirs = storages(mirrored_batch(batch)), storages(batch)
    assert len(ours) == len(theirs) >= 15 and not ours & theirs


def test_twice_is_the_window_itself(sample):
    batch = prepared(sample)
    twice = mirrored_batch(mirrored_batch(batch))
    for name in ("coords", "values", "seen"):
        assert torch.equal(getattr(twice.window, name), getattr(batch.window, name))
    assert torch.equal(twice.window.rays.channels, batch.window.rays.channels)
    assert torch.equal(twice.points, batch.points)


class OneBody(GeneratedWindows):
    """Parts of one window, counted."""

    made: ClassVar[list[int]] = []

    def __init__(self, frames=1) -> None:
        self.frames = frames

    def drawn(self, number, epoch):
        self.made.append(number)
        window = bending_window(0)
        return batches.one_frame(window, np.random.default_rng(number)) if self.frames == 1 else window


def same(first, second):
    return torch.equal(first.window.rays.channels, second.window.rays.channels) and torch.equal(
        first.points, second.points
    )


@pytest.mark.parametrize("frames", [1, 3])
def test_every_second_time_a_window_comes_as_the_mirror_image_of_the_time_before(frames):
    draws = draws_of_epoch(3, 1, 8, 0, together=8, rank=0, size=1, echoes=3)
    windows = PreparedWindows(OneBody(frames), CONFIG, single=frames == 1)
    OneBody.made.clear()
    shown = [windows[draw] for draw in draws]
    assert len(OneBody.made) == 8
    assert [draw.mirrors is None for draw in draws] == [True] * 8 + [False] * 8 + [True] * 8
    for draw, batch in zip(draws, shown, strict=True):
        if draw.mirrors is not None:
            assert draws[draw.mirrors].window == draw.window
            assert same(batch, mirrored_batch(shown[draw.mirrors]))
    first, third = (next(b for d, b in zip(draws[at:], shown[at:], strict=True) if d.window == 0) for at in (0, 16))
    assert not same(first, third), "augmented anew"


def test_a_mirror_image_is_the_same_in_a_process_that_has_not_seen_the_window():
    draws = draws_of_epoch(3, 1, 8, 0, together=8, rank=0, size=1, echoes=2)
    before = PreparedWindows(OneBody(), CONFIG, single=True)
    shown = [before[draw] for draw in draws]
    resumed = PreparedWindows(OneBody(), CONFIG, single=True)
    assert same(resumed[draws[8]], shown[8])
