"""Frames that are worked on before their window is full: once each, in the right cube, with the same results."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from bending_body import bending_window

from nr_tracking.config import load_config
from nr_tracking.fields.completion import CompletionNetwork
from nr_tracking.sensing.volume import Volume
from nr_tracking.tracking.frames_ahead import FramesAhead
from nr_tracking.tracking.parallel import Workers
from nr_tracking.tracking.reconstruction import Reconstructor, observe, tsdf_window
from nr_tracking.tracking.timing import StageClock
from nr_tracking.types import DepthFrame, InputError

HERE, THERE = Volume(np.zeros(3), 1.0), Volume(np.zeros(3), 2.0)


class Counting:
    """Makes a pair of a frame and the side of its cube, and counts how often."""

    def __init__(self):
        self.calls = []

    def __call__(self, frame, volume):
        self.calls.append((frame, volume.side))
        return frame, volume.side


def taken(ahead, *window):
    return [made.result() for made in ahead.take(*window)]


@pytest.mark.parametrize("threads", [1, 2])
def test_each_frame_is_made_once_in_each_cube(threads):
    ahead, make, workers = FramesAhead(), Counting(), Workers(threads)
    frames = [object() for _ in range(9)]
    for frame in frames[:5]:
        ahead.start(frame, HERE, make, workers)
    assert taken(ahead, frames[:5], Volume(np.zeros(3), 1.0), make, workers) == [(f, 1.0) for f in frames[:5]]
    for frame in frames[5:]:
        ahead.start(frame, HERE, make, workers)
    assert taken(ahead, frames[4:], HERE, make, workers) == [(f, 1.0) for f in frames[4:]]
    assert len(make.calls) == 9, "the frame that both windows share was made once"


def test_another_cube_than_was_guessed():
    ahead, make, workers = FramesAhead(), Counting(), Workers(1)
    frame = object()
    ahead.start(frame, HERE, make, workers)
    assert taken(ahead, [frame], THERE, make, workers) == [(frame, 2.0)]
    assert taken(ahead, [frame], THERE, make, workers) == [(frame, 2.0)]
    assert make.calls == [(frame, 1.0), (frame, 2.0)]


def test_faults_come_out_where_the_frame_is_asked_for():
    def fails(frame, volume):
        raise ValueError("the cube lies behind the camera")

    ahead, workers = FramesAhead(), Workers(2)
    ahead.start("frame", HERE, fails, workers)
    with pytest.raises(ValueError, match="behind the camera"):
        taken(ahead, ["frame"], HERE, fails, workers)


RAYS = {"rays": True, "ray_pixels": 32, "ray_channels": (4, 8, 8, 8, 8), "ray_blocks": (0,) * 5, "ray_steps": 12}


def bending_views(config):
    window = bending_window(0)
    subject = config.subject.model_copy(update={"remove_plane": False})
    views = [observe(DepthFrame(i + 1, image, window.intrinsics), subject) for i, image in enumerate(window.depth)]
    return views, Volume(np.median(views[0].cloud, axis=0).astype(np.float64), 1.8)


@pytest.mark.parametrize("rays", [False, True])
def test_a_window_is_the_same_begun_early_or_not(rays):
    config = load_config("test", model=RAYS | {"rays": rays})
    torch.manual_seed(0)
    network = CompletionNetwork(config.model)
    views, volume = bending_views(config)

    def values(begin, guess=volume):
        reconstructor, clock = Reconstructor(config, network, Workers(2)), StageClock()
        for view in views[:begin]:
            reconstructor.begin(view, guess)
        field = reconstructor.complete(reconstructor.window(views, volume), clock)
        assert set(clock.seconds) == {"tsdf", "network"} | ({"rays"} if rays else set())
        return torch.stack([field.grid(index) for index in range(len(views))])

    late = values(0)
    torch.testing.assert_close(values(len(views)), late, rtol=0, atol=0)
    torch.testing.assert_close(values(3), late, rtol=0, atol=0)
    torch.testing.assert_close(values(3, None), late, rtol=0, atol=0)
    torch.testing.assert_close(values(3, Volume(volume.centre + 0.1, 2.0)), late, rtol=0, atol=0)
    assert not torch.equal(late, torch.zeros_like(late))


def test_rays_are_completed_once_wherever_the_cube_of_the_window_is(monkeypatch):
    config = load_config("test", model=RAYS, volume={"cubes": 3})
    network = CompletionNetwork(config.model)
    completed = []
    monkeypatch.setattr(network, "complete_rays", lambda x, of=network.complete_rays: completed.append(x) or of(x))
    views, volume = bending_views(config)
    reconstructor, clock = Reconstructor(config, network, Workers(1)), StageClock()
    reconstructor.begin(views[0], None)
    for view in views:
        reconstructor.begin(view, Volume(volume.centre + 0.1, volume.side))
    reconstructor.complete(reconstructor.window(views, volume), clock)
    reconstructor.complete(reconstructor.window(views[-1:], Volume(volume.centre - 0.1, volume.side)), clock)
    assert len(completed) == len(views)


@pytest.mark.parametrize("moved", [0.0, 0.1])
def test_frames_of_earlier_windows_are_attended_to_and_not_completed_anew(moved, monkeypatch):
    """What is reused changes nothing, wherever the cube of the second window is."""
    config = load_config("test", model=RAYS)
    torch.manual_seed(0)
    network = CompletionNetwork(config.model)
    torch.nn.init.normal_(network.fusion.last.weight, std=0.2)  # frames that attend to each other, as after training
    views, volume = bending_views(config)
    cube = Volume(volume.centre + moved, volume.side)
    encoded = []
    monkeypatch.setattr(
        network, "encode", lambda x, rays, of=network.encode: encoded.append(len(x.seen)) or of(x, rays)
    )
    reconstructor, clock = Reconstructor(config, network, Workers(1)), StageClock()
    whole = reconstructor.complete(reconstructor.window(views, cube), clock)
    reconstructor.complete(reconstructor.window(views[:3], volume), clock)
    encoded.clear()
    later = reconstructor.complete(reconstructor.window(views, cube, new=2), clock)
    assert encoded == ([3, 2] if moved else [2])
    assert later.first.frames == 2
    for index in range(2):
        torch.testing.assert_close(later.grid(index), whole.grid(3 + index), rtol=0, atol=1e-5)
    alone = reconstructor.complete(reconstructor.window(views[3:], cube), clock)
    assert (alone.grid(0) - whole.grid(3)).abs().max() > 1e-3


def test_earlier_frames_belong_to_a_single_window():
    config = load_config("test")
    network = CompletionNetwork(config.model)
    views, volume = bending_views(config)
    window = tsdf_window(views[:2], volume, config, torch.device("cpu"))
    with pytest.raises(InputError, match="no batch"):
        network(replace(window, length=1), earlier=network.encode(window).codes)
