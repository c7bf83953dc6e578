"""Surfaces along rays alone: the same as where the network in the cube has no share, and without running it."""

import numpy as np
import pytest
import torch
from bending_body import bending_window
from test_rays import RAYS, window_of

from nr_tracking.commands.checkpoint import load, modules_of, save
from nr_tracking.config import load_config
from nr_tracking.deformation.decoder import DeformationDecoder
from nr_tracking.fields.completion import CompletionNetwork
from nr_tracking.fields.meshing import extract_surface
from nr_tracking.fields.ray_window import RayWindow
from nr_tracking.tracking.tracker import Networks, Tracker
from nr_tracking.types import DepthFrame

MODEL = {**RAYS, "ray_share": 1.0}
TRACKS = {"count": 300, "renew_frames": 2}
REFINEMENT = {"nodes": 20, "samples": 200}


def config_of(**sections):
    """The settings of the tests, some sections replaced."""
    return load_config("test", **{"model": MODEL, "tracks": TRACKS, "refinement": REFINEMENT, **sections})


def frames(count=9):
    """A bending body, without background."""
    window = bending_window(0)
    images = [window.depth[index] for index in [*range(5), *range(3, -1, -1)]][:count]
    return [DepthFrame(1_000_000 + 33_000_000 * i, image, window.intrinsics) for i, image in enumerate(images)]


class Networked:
    """A tracker with networks that know nothing yet, and how often the one in the cube has run."""

    def __init__(self, config):
        torch.manual_seed(0)
        networks = Networks(CompletionNetwork(config.model), DeformationDecoder(config.model))
        self.runs = 0
        networks.completion.fusion.register_forward_hook(self._count)
        self.tracker = Tracker(config, networks)

    def _count(self, *_):
        self.runs += 1

    def results(self, pushed):
        """What comes out of ``pushed``, flushed."""
        return [result for frame in pushed for result in self.tracker.push(frame)] + self.tracker.flush()


@pytest.fixture(scope="module")
def both():
    """The same frames as both kinds of field have them."""
    config = config_of()
    torch.manual_seed(0)
    with torch.no_grad():
        field = CompletionNetwork(config.model).eval()(window_of(config).window)
    return field, RayWindow(field.rays, field.resolution, source=None)


def test_distances_are_those_of_a_mean_in_which_the_cube_has_no_share(both):
    field, alone = both
    points = torch.rand(4000, 3) - 0.5
    frame = torch.arange(4000) % 5
    with torch.no_grad():
        torch.testing.assert_close(alone.sdf(points, frame), field.sdf(points, frame))


def test_the_grid_is_exact_near_the_surface_and_has_the_right_sign_elsewhere(both):
    _, alone = both
    grid, side = alone.grid(2), alone.resolution
    axis = (torch.arange(side) + 0.5) / side - 0.5
    centres = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).view(-1, 3)
    exact = alone.sdf(centres, torch.full((side**3,), 2)).view(side, side, side)
    near = exact.abs() < 1 / side
    assert near.sum() > 200
    torch.testing.assert_close(grid[near], exact[near])
    far = exact.abs() > 3 / side
    assert (grid[far].sign() == exact[far].sign()).float().mean() > 0.999


def test_a_surface_is_that_of_the_mean(both):
    config = config_of().mesh
    for frame in range(5):
        (first, faces), (second, others) = (extract_surface(kind, frame, config) for kind in both)
        assert abs(len(faces) - len(others)) < 0.03 * len(others)
        apart = torch.cdist(torch.from_numpy(first), torch.from_numpy(second)).min(dim=1).values
        assert float(apart.median()) < 0.1 / 32 and float(apart.quantile(0.99)) < 1 / 32


def test_the_network_in_the_cube_runs_where_its_guess_is_asked_for_and_only_there():
    spared = Networked(config_of(deformation={"backend": "none"}))
    found = spared.results(frames())
    assert len(found) == 9 and spared.runs == 0
    # Without refinement, the guess is all there is.
    asked = Networked(config_of(refinement={**REFINEMENT, "enabled": False}))
    guesses = asked.results(frames())
    assert asked.runs == 2  # once for each window
    for plain, guessed in zip(found, guesses, strict=True):
        np.testing.assert_array_equal(plain.surface.vertices, guessed.surface.vertices)


def test_it_adapts_and_goes_on_from_a_checkpoint(tmp_path):
    config = config_of(refinement={**REFINEMENT, "adaptation_steps": 1})
    pushed = frames()
    whole = Networked(config).results(pushed)
    begun = Networked(config)
    early = [result for frame in pushed[:6] for result in begun.tracker.push(frame)]
    modules = modules_of(begun.tracker)
    save(tmp_path / "state.npz", {"tracker": begun.tracker}, modules)
    tracker = load(tmp_path / "state.npz", modules)["tracker"]
    late = [result for frame in pushed[6:] for result in tracker.push(frame)] + tracker.flush()
    assert len(early) + len(late) == len(whole) == 9
    for one, other in zip(early + late, whole, strict=True):
        np.testing.assert_array_equal(one.tracks.positions, other.tracks.positions)
