import numpy as np
import pytest
import torch
from moving_shapes import bend, figure_distance, mesh_of, rod_distance, rotation, unbend

from nr_tracking.deformation.carrier import build_carrier
from nr_tracking.deformation.data_terms import (
    AssociationTerm,
    DepthTerm,
    FieldTerm,
    SurfaceTerm,
    depth_surface,
    tukey,
)
from nr_tracking.deformation.normal_equations import DeformationGraph
from nr_tracking.deformation.patches import build_patches
from nr_tracking.deformation.projection import sample_evenly
from nr_tracking.deformation.rotations import rotation_from_vector
from nr_tracking.deformation.solver import (
    GaussNewtonSolver,
    SolverGraph,
    SolverSettings,
    SymmetricSolve,
    rotation_from_vectors,
)
from nr_tracking.types import Intrinsics

CELLS = 48
CAMERA = Intrinsics(width=96, height=96, fx=140.0, fy=140.0, cx=47.5, cy=47.5)
AWAY = np.array([0.0, 0.0, 1.5])


def tensor(values):
    return torch.as_tensor(np.asarray(values), dtype=torch.float64)


class Small:
    """Seven nodes that move thirty samples, in two pairs that differ."""

    def __init__(self, seed=0, parents=()):
        generator = np.random.default_rng(seed)
        nodes = generator.normal(size=(7, 3))
        edges = np.array([[0, 1], [1, 2], [2, 3], [3, 4], [4, 5], [5, 6], [0, 6], [2, 5]], np.int32)
        index = np.stack([generator.permutation(7)[:3] for _ in range(30)])
        weight = generator.dirichlet(np.ones(3), 30)
        lengths = np.linalg.norm(nodes[edges[:, 0]] - nodes[edges[:, 1]], axis=1)
        self.graph = SolverGraph.of(DeformationGraph(7, edges, lengths, index, weight), parents)
        self.nodes = tensor(np.stack((nodes, nodes + generator.normal(0, 0.1, (7, 3)))))
        self.points = tensor(generator.normal(size=(2, 30, 3)))
        normals = generator.normal(size=(2, 30, 3))
        self.normals = tensor(normals / np.linalg.norm(normals, axis=2, keepdims=True))
        self.goals = self.points + tensor(generator.normal(0, 0.2, (2, 30, 3)))
        self.confidence = tensor(generator.uniform(0.2, 1.0, (2, 30)))
        turn = rotation_from_vector(generator.normal(0, 0.4, (2, 7, 3)))
        self.start = tensor(turn), self.nodes + tensor(generator.normal(0, 0.2, (2, 7, 3)))
        self.node_goals = AssociationTerm(
            self.nodes + tensor(generator.normal(0, 0.2, (2, 7, 3))), tensor(generator.uniform(0, 1, (2, 7)))
        )

    def solver(self, **settings):
        return GaussNewtonSolver(self.graph, SolverSettings(**settings))

    def solve(self, terms, solver=None, **options):
        return (solver or self.solver()).solve(self.nodes, self.points, self.normals, terms, **options)

    def state(self, solver, terms, step):
        """The linearisation after increments ``step`` (2, 7, 6) on the start."""
        turned = rotation_from_vectors(step[..., :3]) @ self.start[0]
        arms = solver._edge_arms(self.nodes)
        moved = self.start[1] + step[..., 3:]
        return solver._linearised(self.nodes, self.points, self.normals, arms, terms, self.node_goals, turned, moved)


def ball_field(points, pair):
    """Two balls, one for each pair."""
    away = points - torch.tensor([[0.1, 0.0, 0.0], [0.0, -0.1, 0.2]], dtype=points.dtype)[pair]
    length = away.norm(dim=1)
    return length - 0.8, away / length[:, None]


def wave():
    """Depth of a wavy wall before the camera."""
    rows, columns = np.mgrid[0 : CAMERA.height, 0 : CAMERA.width]
    depth = 1.6 + 0.1 * np.sin(columns / 15.0) + 0.1 * np.cos(rows / 11.0)
    return tensor(np.stack((depth, depth + 0.05)))


def every_term(small):
    """One of each kind, on samples before a camera."""
    surface, sides = tensor(np.random.default_rng(8).normal(size=(2, 2, 50, 3)))
    sides = torch.nn.functional.normalize(sides, dim=-1)
    return {
        "association": AssociationTerm(small.goals, small.confidence),
        "robust association": AssociationTerm(small.goals, small.confidence, radius=1.0, weight=0.7),
        "field": FieldTerm(ball_field, radius=2.0, weight=0.4),
        "surface": SurfaceTerm(surface, sides, radius=0.9, cosine=0.2),
    }


@pytest.mark.parametrize("name", ["association", "robust association", "field", "surface"])
def test_the_right_hand_side_is_the_gradient_of_the_energy(name):
    small = Small()
    terms, solver = [every_term(small)[name]], small.solver(rigidity=0.7)
    state = small.state(solver, terms, torch.zeros(2, 7, 6, dtype=torch.float64))
    epsilon, slopes = 1e-6, torch.zeros(2, 7, 6, dtype=torch.float64)
    for node in range(7):
        for axis in range(6):
            step = torch.zeros(2, 7, 6, dtype=torch.float64)
            step[:, node, axis] = epsilon
            ends = [small.state(solver, terms, sign * step).energy for sign in (1, -1)]
            slopes[:, node, axis] = (ends[0] - ends[1]) / (2 * epsilon)
    assert torch.allclose(state.right, -0.5 * slopes, atol=1e-7)


def test_the_matrix_is_that_of_the_residuals():
    small = Small()
    solver = small.solver(rigidity=0.7)
    terms = [AssociationTerm(small.goals, small.confidence)]

    def residuals(flat):
        state = small.state(solver, terms, flat.view(2, 7, 6))
        data = (small.confidence / 30).sqrt()[..., None] * (small.goals - state.moved)
        nodes = (small.node_goals.confidence / 7).sqrt()[..., None] * (small.node_goals.goals - state.translations)
        near, far = solver._edges.T
        arms = (state.rotations[:, near] @ solver._edge_arms(small.nodes)[..., None])[..., 0]
        edges = (0.7 / len(near)) ** 0.5 * (arms + state.translations[:, near] - state.translations[:, far])
        return torch.cat([part.flatten(1) for part in (data, nodes, edges)], dim=1)

    jacobian = torch.autograd.functional.jacobian(residuals, torch.zeros(2 * 42, dtype=torch.float64))
    state = small.state(solver, terms, torch.zeros(2, 7, 6, dtype=torch.float64))
    for pair in range(2):
        own = jacobian[pair, :, 42 * pair : 42 * (pair + 1)]
        matrix = state.matrix[pair].transpose(1, 2).reshape(42, 42)
        assert torch.allclose(matrix, own.T @ own, atol=1e-10)


def test_the_pull_of_depth_is_the_gradient_of_its_energy():
    points, sides = depth_surface(wave(), CAMERA)
    term = DepthTerm(points, sides, CAMERA, radius=0.2)
    pixel = np.random.default_rng(1).integers(10, 86, (2, 40, 2))
    place = torch.stack([points[b, pixel[b, :, 0], pixel[b, :, 1]] for b in range(2)])
    normal = torch.stack([sides[b, pixel[b, :, 0], pixel[b, :, 1]] for b in range(2)])
    # A step along the ray keeps the pixel, and is where the energy is smooth.
    moved = place * (1 + tensor(np.random.default_rng(2).uniform(-0.04, 0.04, (2, 40, 1))))
    _, pull, _ = term(moved, normal)
    small = 1e-6
    slope = (term(moved * (1 + small), normal)[2] - term(moved * (1 - small), normal)[2]) / (2 * small)
    assert torch.allclose((pull * moved).sum((1, 2)), -0.5 * slope, atol=1e-8)
    assert (slope.abs() > 1e-4).all()


def test_normals_of_depth_are_those_of_the_surface_and_face_the_camera():
    rows, columns = np.mgrid[0 : CAMERA.height, 0 : CAMERA.width]
    rays = np.stack(((columns - CAMERA.cx) / CAMERA.fx, (rows - CAMERA.cy) / CAMERA.fy, np.ones(rows.shape)), -1)
    centre, radius = np.array([0.02, -0.01, 1.5]), 0.3
    along, square = rays @ centre, (rays**2).sum(-1)
    root = along**2 - square * (centre @ centre - radius**2)
    depth = np.where(root > 0, (along - np.sqrt(np.maximum(root, 0))) / square, 0)
    points, normals = (values[0].numpy() for values in depth_surface(tensor(depth[None]), CAMERA))
    known = np.isfinite(normals).all(-1)
    truth = (points - centre) / radius
    assert known.sum() > 0.8 * (depth > 0).sum()
    assert np.percentile(np.linalg.norm(normals - truth, axis=-1)[known], 95) < 0.05
    assert np.allclose(points[known][:, 2], depth[known])
    assert np.isnan(points[depth == 0]).all()


def test_tukey_ends_smoothly_and_costs_what_it_should():
    squared = torch.linspace(0, 2, 401, dtype=torch.float64)
    weight, energy = tukey(squared, 1.5)
    assert torch.allclose(torch.gradient(energy, spacing=(squared,))[0][1:-1], weight[1:-1], atol=1e-4)
    assert weight[0] == 1 and weight[-1] == 0 and energy[-1] == 0.5


def test_the_linear_solve_and_its_backward_pass():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(3, 6, 6, dtype=torch.float64, generator=generator, requires_grad=True)
    right = torch.randn(3, 6, dtype=torch.float64, generator=generator, requires_grad=True)

    def solve(root, right):
        return SymmetricSolve.apply(root @ root.transpose(1, 2) + torch.eye(6, dtype=torch.float64), right)

    matrix = root @ root.transpose(1, 2) + torch.eye(6, dtype=torch.float64)
    assert torch.allclose(solve(root, right), torch.linalg.solve(matrix, right))
    assert torch.autograd.gradcheck(solve, (root, right), fast_mode=True)
    assert torch.equal(SymmetricSolve.apply(-matrix, right), torch.zeros_like(right))


@pytest.mark.parametrize(("steps", "coarse"), [(1, 0), (3, 0), (1, 1)])
def test_gradients_through_the_solver_agree_with_finite_differences(steps, coarse):
    small = Small(parents=(np.array([0, 0, 0, 1, 1, 1, 1]),) if coarse else ())
    solver = small.solver(iterations=steps, coarse_iterations=coarse, rigidity=0.5, damping=1e-2)

    def moved(goals, confidence, radius, node_confidence):
        def field(points, pair):
            distance, gradient = ball_field(points, pair)
            return distance + radius, gradient

        associations = AssociationTerm(small.node_goals.goals, node_confidence)
        terms = [AssociationTerm(goals, confidence, radius=1.5), FieldTerm(field, radius=2.0, weight=0.3)]
        return small.solve(terms, solver, associations=associations).moved[:, ::6]

    values = (small.goals, small.confidence, torch.zeros((), dtype=torch.float64), small.node_goals.confidence)
    inputs = tuple(value.clone().requires_grad_() for value in values)
    assert torch.autograd.gradcheck(moved, inputs, eps=1e-6, atol=1e-7, fast_mode=True)
    reached = torch.autograd.grad(moved(*inputs).square().sum(), inputs)
    assert all(gradient.abs().max() > 1e-4 for gradient in reached)


def test_pairs_of_a_batch_do_not_see_each_other():
    small = Small()
    terms = [AssociationTerm(small.goals, small.confidence, radius=0.8)]
    together = small.solve(terms)
    for pair in range(2):
        own = slice(pair, pair + 1)
        alone = small.solver().solve(
            small.nodes[own],
            small.points[own],
            small.normals[own],
            [AssociationTerm(small.goals[own], small.confidence[own], radius=0.8)],
        )
        assert torch.allclose(together.moved[own], alone.moved, atol=1e-9)


def test_steps_that_raise_the_energy_are_undone():
    small = Small()
    solution = small.solve([AssociationTerm(small.goals, small.confidence, radius=0.25)], small.solver(iterations=12))
    assert (solution.energies.diff(dim=0) <= 0).all()
    assert (solution.energies[-1] < solution.energies[0]).all()


def test_a_matrix_that_is_not_positive_definite_is_damped_until_it_is():
    """A term that errs about its curvature: along the diagonal it says that the energy falls ever faster."""
    small = Small()
    plain = AssociationTerm(small.goals, small.confidence)

    def saddle(points, normals):
        information, pull, energy = plain(points, normals)
        return information @ tensor(1.9 * np.eye(3) - 0.9), pull, energy

    energies = small.solve([saddle], small.solver(iterations=12, rigidity=0.01)).energies
    assert torch.equal(energies[1], energies[0])  # there is no first step
    assert (energies[-1] < 0.9 * energies[0]).all()


class Scene:
    """A figure or rod before the camera with samples on a graph."""

    def __init__(self, distance, samples=600, nodes=50, hierarchy=(20, 7)):
        self.vertices, self.faces = mesh_of(distance, CELLS)
        self.vertices = self.vertices + AWAY
        self.samples = sample_evenly(self.vertices, self.faces, samples)
        patches = build_patches(self.vertices, self.faces, nodes, hierarchy)
        self.places, graph = build_carrier(patches, self.samples.points, self.samples.vertex)
        self.graph = SolverGraph.of(graph, [level.parent for level in patches.levels])

    def solve(self, terms, scale=1.0, associations=None, **settings):
        graph = SolverGraph(
            self.graph.count,
            self.graph.edges,
            scale * self.graph.lengths,
            self.graph.index,
            self.graph.weight,
            self.graph.parents,
        )
        solver = GaussNewtonSolver(graph, SolverSettings(**settings))
        points, normals = tensor(self.samples.points)[None], tensor(self.samples.normals)[None]
        return solver.solve(tensor(scale * self.places)[None], scale * points, normals, terms, associations)


@pytest.fixture(scope="module")
def figure():
    return Scene(figure_distance)


def depth_of(distance, warp):
    """Depth image (H, W) of a shape by sphere tracing; ``warp`` maps a place back to where it came from."""
    rows, columns = np.mgrid[0 : CAMERA.height, 0 : CAMERA.width]
    rays = np.stack(((columns - CAMERA.cx) / CAMERA.fx, (rows - CAMERA.cy) / CAMERA.fy, np.ones(rows.shape)), -1)
    depth = np.full(rows.shape, 0.8)
    for _ in range(80):
        depth = np.minimum(depth + 0.9 * distance(warp(rays * depth[..., None])) / np.linalg.norm(rays, axis=-1), 4.0)
    return np.where(np.abs(distance(warp(rays * depth[..., None]))) < 1e-3, depth, 0.0)


def length(vectors):
    return np.linalg.norm(vectors, axis=-1)


@pytest.mark.parametrize("coarse", [0, 2])
def test_small_motions_of_the_patches_are_recovered_exactly(figure, coarse):
    generator = np.random.default_rng(4)
    turns = tensor(rotation_from_vector(generator.normal(0, 0.1, (1, figure.graph.count, 3))))
    shifts = tensor(figure.places + generator.normal(0, 0.01, figure.places.shape))[None]
    index, weight = figure.graph.index, figure.graph.weight
    levers = tensor(figure.samples.points)[None, :, None] - tensor(figure.places)[None][:, index]
    goals = (weight[..., None] * ((turns[:, index] @ levers[..., None])[..., 0] + shifts[:, index])).sum(2)
    terms = [AssociationTerm(goals, torch.ones(1, 600, dtype=torch.float64))]
    found = figure.solve(terms, rigidity=0.0, damping=1e-9, iterations=8, coarse_iterations=coarse)
    assert length((found.moved - goals)[0].numpy()).max() < 1e-6
    assert torch.allclose(found.translations, shifts, atol=1e-4)


@pytest.mark.parametrize("coarse", [0, 2])
def test_a_rigid_motion_is_recovered_from_one_depth_image(figure, coarse):
    turn, shift = rotation([0.3, 1, 0.2], 0.12), np.array([0.02, -0.015, 0.02])
    depth = depth_of(figure_distance, lambda points: (points - AWAY - shift) @ turn)
    points, sides = depth_surface(tensor(depth[None]), CAMERA)
    term = DepthTerm(points, sides, CAMERA, radius=0.08)
    found = figure.solve([term], rigidity=10.0, iterations=8, coarse_iterations=coarse).moved[0].numpy()
    goal = (figure.samples.points - AWAY) @ turn.T + AWAY + shift
    hidden = figure.samples.normals[:, 2] > 0.3
    assert length(found - goal).mean() < 0.1 / CELLS
    assert length(found - goal)[hidden].mean() < 0.1 / CELLS
    assert length(figure.samples.points - goal).mean() > 1.5 / CELLS


def test_a_field_draws_the_surface_onto_its_zero_level():
    rod = Scene(rod_distance)

    def distance(places):
        return rod_distance(unbend(places - AWAY, 0.5))

    def field(points, pair):
        places, step = points.numpy(), 1e-4
        ends = [(distance(places + step * axis), distance(places - step * axis)) for axis in np.eye(3)]
        return tensor(distance(places)), tensor(np.stack([(b - a) / (2 * step) for b, a in ends], axis=1))

    found = rod.solve([FieldTerm(field, radius=0.1)], iterations=8).moved[0].numpy()
    assert np.abs(distance(found)).mean() < 0.2 * np.abs(distance(rod.samples.points)).mean()


def test_a_bend_is_found_in_a_surface_seen_all_round():
    rod = Scene(rod_distance)
    target = sample_evenly(bend(rod.vertices - AWAY, 0.5) + AWAY, rod.faces, 1500)
    term = SurfaceTerm(tensor(target.points)[None], tensor(target.normals)[None], radius=0.08, cosine=0.3)
    found = rod.solve([term], iterations=10).moved[0].numpy()
    goal = bend(rod.samples.points - AWAY, 0.5) + AWAY
    assert length(found - goal).mean() < 0.3 * length(rod.samples.points - goal).mean()


def test_the_unit_of_length_does_not_matter(figure):
    shift, scale = np.array([0.01, 0.0, 0.015]), 1024.0
    depth = depth_of(figure_distance, lambda points: points - AWAY - shift)
    goals = tensor(figure.places + shift)[None]
    sure = torch.full((1, figure.graph.count), 0.1, dtype=torch.float64)
    found = []
    for factor in (1.0, scale):
        points, sides = depth_surface(tensor(factor * depth[None]), CAMERA)
        terms = [DepthTerm(points, sides, CAMERA, radius=0.08 * factor)]
        associations = AssociationTerm(factor * goals, sure)
        found.append(figure.solve(terms, factor, associations, coarse_iterations=1).moved / factor)
    assert torch.allclose(found[0], found[1], atol=1e-9)


def test_a_coarse_step_moves_a_limb_in_one_piece(figure):
    """One step of the coarsest level finds a rigid motion that the residuals show."""
    goals = tensor((figure.samples.points - AWAY) @ rotation([0, 1, 0], 0.02).T + AWAY + 0.01)[None]
    term = AssociationTerm(goals, torch.ones(1, 600, dtype=torch.float64))
    found = figure.solve([term], rigidity=0.0, iterations=0, coarse_iterations=1)
    assert length((found.moved - goals)[0].numpy()).max() < 2e-3
    assert len(found.energies) == 3


def test_confidence_learns_through_the_solver_which_associations_are_wrong(figure):
    """No truth is used: what is minimised is the distance of the moved samples to the depth image."""
    shift = np.array([0.02, 0.0, -0.03])
    depth = depth_of(figure_distance, lambda points: points - AWAY - shift)
    points, sides = depth_surface(tensor(depth[None]), CAMERA)
    judge = DepthTerm(points, sides, CAMERA, radius=0.1)
    goals = figure.places + shift
    wrong = np.random.default_rng(5).random(len(goals)) < 0.3
    goals[wrong] += np.random.default_rng(6).normal(0, 0.08, (int(wrong.sum()), 3))
    doubt = torch.zeros(1, len(goals), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([doubt], lr=1.0)
    losses = []
    normals = tensor(figure.samples.normals)[None]
    for _ in range(12):
        associations = AssociationTerm(tensor(goals)[None], torch.sigmoid(doubt))
        solution = figure.solve([], associations=associations, iterations=2, rigidity=0.1)
        loss = judge(solution.moved, normals)[2].sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    least = judge(tensor(figure.samples.points + shift)[None], normals)[2].item()
    assert losses[-1] - least < 0.3 * (losses[0] - least)
    learnt = torch.sigmoid(doubt)[0].detach().numpy()
    assert learnt[wrong].mean() < learnt[~wrong].mean() - 0.3


def test_rotations_of_vectors():
    vectors = np.random.default_rng(0).normal(size=(20, 3)) * np.logspace(-12, 0.4, 20)[:, None]
    assert np.allclose(rotation_from_vectors(tensor(vectors)).numpy(), rotation_from_vector(vectors), atol=1e-14)
    zero = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(rotation_from_vectors, (zero,))
