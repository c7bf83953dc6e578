import numpy as np
import pytest
import torch
from moving_shapes import figure_distance, mesh_of, rod_distance, rotation

from nr_tracking.config import RefinementConfig
from nr_tracking.deformation.carrier import build_carrier
from nr_tracking.deformation.normal_equations import Motion, moved_points, robust_rigidity, still
from nr_tracking.deformation.patches import build_patches
from nr_tracking.deformation.projection import SurfaceIndex, sample_evenly
from nr_tracking.deformation.refinement import Refiner
from nr_tracking.deformation.solver import GaussNewtonSolver, SolverGraph, SolverSettings
from nr_tracking.deformation.torch_refinement import TorchRefiner

CELLS = 48
CONFIG = RefinementConfig(samples=1200, nodes=50, iterations=8)


class Scene:
    """A surface, and both refiners on it."""

    def __init__(self, distance, config=CONFIG):
        self.vertices, self.faces = mesh_of(distance, CELLS)
        self.samples = sample_evenly(self.vertices, self.faces, config.samples)
        patches = build_patches(self.vertices, self.faces, config.nodes)
        self.nodes, self.graph = build_carrier(patches, self.samples.points, self.samples.vertex)
        self.refiners = Refiner(config, self.graph), TorchRefiner(config, self.graph)
        self.size = float(np.ptp(self.vertices, axis=0).max())

    def fits(self, vertices, **options):
        target = SurfaceIndex(vertices, self.faces).target(CONFIG.samples)
        pose = self.nodes, self.samples.points, self.samples.normals
        return [refiner.refine(*pose, target, self.size, **options) for refiner in self.refiners]

    def errors(self, fits, goal):
        moved = [moved_points(self.graph, self.nodes, self.samples.points, fit.motion) for fit in fits]
        return [np.linalg.norm(places - goal, axis=1).mean() * CELLS for places in moved]


@pytest.fixture(scope="module")
def figure():
    return Scene(figure_distance)


def test_it_finds_what_the_live_refiner_finds(figure):
    turn, shift = rotation([1, 2, 0.5], 0.15), np.array([0.02, -0.01, 0.015])
    fits = figure.fits(figure.vertices @ turn.T + shift)
    live, ours = figure.errors(fits, figure.samples.points @ turn.T + shift)
    assert ours < max(0.3, 1.5 * live)
    assert np.all(np.diff(fits[1].energies) <= 0) and fits[1].energies[-1] < 0.2 * fits[1].energies[0]
    assert np.nanmean(fits[1].residuals) < 0.05 / CELLS
    assert np.isfinite(fits[1].residuals).mean() > 0.95
    assert fits[1].motion.rotations.dtype == np.float64


@pytest.mark.parametrize("limit", [0.0, 0.01])
def test_rigidity_gives_way_as_in_the_live_refiner(figure, limit):
    gaps = np.random.default_rng(6).normal(0, 0.02, (2, 2 * len(figure.graph.edges), 3))
    graph = SolverGraph.of(figure.graph)
    found = GaussNewtonSolver(graph, SolverSettings(rigidity_limit=limit)).robust(torch.as_tensor(gaps))
    for ours, live in zip(found, robust_rigidity(gaps.reshape(-1, 3), limit), strict=True):
        assert np.allclose(ours.reshape(-1), live)


def test_it_starts_from_the_better_guess(figure):
    shift = np.array([0.25, 0.1, 0.0])
    guess = Motion(still(figure.nodes).rotations, figure.nodes + 0.9 * shift)
    fits = figure.fits(figure.vertices + shift, starts=[still(figure.nodes), guess])
    assert figure.errors(fits, figure.samples.points + shift)[1] < 0.3


def test_features_show_a_turn_that_the_shape_hides():
    config = CONFIG.model_copy(update={"embedding": 0.3, "point_to_point": 1.0})
    rod = Scene(rod_distance, config)
    turn = rotation([0, 0, 1], 0.4)
    index = SurfaceIndex(rod.vertices @ turn.T, rod.faces)
    target = index.target(config.samples)

    def directions(points):
        around = points / [1, 1, 4]
        return (around / np.linalg.norm(around, axis=1, keepdims=True)).astype(np.float32)

    goals = type(target)(target.points, target.normals, target.sample, directions(target.points[target.sample] @ turn))
    errors = []
    for features in (None, directions(rod.samples.points)):
        fit = TorchRefiner(config, rod.graph, dtype=torch.float64).refine(
            rod.nodes, rod.samples.points, rod.samples.normals, goals, rod.size, features=features
        )
        errors.append(rod.errors([fit], rod.samples.points @ turn.T)[0])
    assert errors[1] < 0.5 * errors[0]
