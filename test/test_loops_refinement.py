"""Compiled loops of the fit of the deformation graph against their twins in numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from moving_shapes import bend, mesh_of, rod_distance, rotation
from scipy.sparse import csr_matrix
from twins import both, needs_loops

from nr_tracking.config import RefinementConfig, load_config
from nr_tracking.deformation.carrier import build_carrier
from nr_tracking.deformation.decoder import DeformationDecoder
from nr_tracking.deformation.matching import Target, even_sample, find_matches, space_order
from nr_tracking.deformation.normal_equations import (
    DeformationGraph,
    Motion,
    NormalEquations,
    bending,
    carried,
    disagreement,
    edge_arms,
    still,
)
from nr_tracking.deformation.panelled import PanelMatrix
from nr_tracking.deformation.patches import build_patches
from nr_tracking.deformation.prediction import PatchMotion
from nr_tracking.deformation.projection import SurfaceIndex, sample_evenly
from nr_tracking.deformation.refinement import Refiner
from nr_tracking.deformation.rotations import rotation_from_vector, vector_from_rotation
from nr_tracking.loops import compiled_loops

pytestmark = needs_loops

CONFIG = RefinementConfig(samples=400, nodes=40, iterations=6)


class Rod:
    """A rod with a graph on it, and the same rod bent."""

    def __init__(self):
        vertices, faces = mesh_of(rod_distance, 40)
        self.samples = sample_evenly(vertices, faces, CONFIG.samples)
        patches = build_patches(vertices, faces, CONFIG.nodes)
        self.nodes, self.graph = build_carrier(patches, self.samples.points, self.samples.vertex)
        self.size = float(np.ptp(vertices, axis=0).max())
        self.bent = bend(vertices.astype(float), 0.8), faces

    def fit(self, config=CONFIG, **options):
        points, normals = self.samples.points, self.samples.normals
        target = SurfaceIndex(*self.bent).target(config.samples)
        return Refiner(config, self.graph).refine(self.nodes, points, normals, target, self.size, **options)

    def motion(self, spread=0.1):
        generator = np.random.default_rng(0)
        turns = rotation_from_vector(generator.normal(0, spread, (len(self.nodes), 3)))
        return Motion(turns, self.nodes + generator.normal(0, 0.1 * spread, self.nodes.shape))


@pytest.fixture(scope="module")
def rod():
    return Rod()


def cloud(count, seed=0):
    generator = np.random.default_rng(seed)
    normals = generator.normal(size=(count, 3))
    return generator.random((count, 3)), normals / np.linalg.norm(normals, axis=1, keepdims=True)


def alike(compiled, plain, **tolerances):
    for ours, theirs in zip(compiled, plain, strict=True):
        np.testing.assert_allclose(ours, theirs, **tolerances)


@pytest.mark.parametrize("limit", [0.007, 0.0])
def test_fits_are_the_same(rod, limit):
    config = CONFIG.model_copy(update={"rigidity_limit": limit})
    shifted = Motion(still(rod.nodes).rotations, rod.nodes + 0.01)
    compiled, plain = both(lambda: rod.fit(config, starts=[still(rod.nodes), shifted]))
    assert len(compiled.energies) == len(plain.energies) > 2
    np.testing.assert_allclose(compiled.energies, plain.energies, rtol=1e-4)
    np.testing.assert_allclose(compiled.motion.translations, plain.motion.translations, atol=1e-5)
    np.testing.assert_allclose(compiled.motion.rotations, plain.motion.rotations, atol=1e-3)
    np.testing.assert_allclose(compiled.residuals, plain.residuals, atol=1e-5)


def test_a_fit_is_the_same_to_the_bit_each_time(rod):
    first, second = rod.fit(), rod.fit()
    np.testing.assert_array_equal(first.motion.rotations, second.motion.rotations)
    np.testing.assert_array_equal(first.motion.translations, second.motion.translations)


def test_a_fit_goes_on_where_there_are_no_loops(rod):
    """As from a checkpoint that is taken elsewhere."""
    refiner, samples = Refiner(CONFIG, rod.graph), rod.samples

    def fit():
        target = SurfaceIndex(*rod.bent).target(CONFIG.samples)
        return refiner.refine(rod.nodes, samples.points, samples.normals, target, rod.size)

    for mode in (*both(fit), *both(fit)):
        np.testing.assert_allclose(mode.motion.translations, rod.fit().motion.translations, atol=1e-5)


def test_guesses_are_judged_alike(rod):
    turned = Motion(np.tile(rotation([0, 1, 0], np.pi), (len(rod.nodes), 1, 1)), rod.nodes)
    compiled, plain = both(lambda: rod.fit(starts=[turned], guesses=[lambda: still(rod.nodes)]))
    np.testing.assert_allclose(compiled.energies, plain.energies, rtol=1e-4)


def test_a_target_out_of_reach_or_of_one_point_moves_nothing(rod):
    points, normals = rod.samples.points, rod.samples.normals
    away = Target(np.array([[9.0, 9.0, 9.0]]), np.array([[0.0, 0.0, 1.0]]), np.zeros(1, np.int64))
    for fit in both(lambda: Refiner(CONFIG, rod.graph).refine(rod.nodes, points, normals, away, rod.size)):
        np.testing.assert_allclose(fit.motion.translations, rod.nodes, atol=1e-6)
        assert np.isnan(fit.residuals).all()


def test_points_normals_and_disagreement_of_a_motion(rod):
    motion, points = rod.motion(), rod.samples.points
    compiled, plain = both(lambda: carried(rod.graph, rod.nodes, points, rod.samples.normals, motion))
    alike(compiled, plain, atol=1e-12)
    compiled, plain = both(lambda: disagreement(rod.graph, rod.nodes, points, motion, plain[0]))
    np.testing.assert_allclose(compiled, plain, atol=1e-7)  # the twin subtracts squares


@pytest.mark.parametrize("limit", [0.01, 0.0])
def test_what_edges_hold(rod, limit):
    arms, plain = both(lambda: edge_arms(rod.graph, rod.nodes))
    np.testing.assert_allclose(arms, plain, atol=1e-12)
    alike(*both(lambda: bending(rod.graph, arms, rod.motion(), limit)), rtol=1e-9, atol=1e-12)


def system(graph, nodes, points, motion, seed=0, damping=1e-4, sign=1.0):
    """A matrix in the order of the nodes, a right-hand side and the step, for random data."""
    generator = np.random.default_rng(seed)
    roots = generator.normal(size=(len(points), 3, 3))
    pull, equations = generator.normal(size=(len(points), 3)), NormalEquations(graph)
    moved, _ = carried(graph, nodes, points, np.ones_like(points), motion)
    turned, gap, weight, _ = bending(graph, edge_arms(graph, nodes), motion, 0.1)
    step_matrix, right = equations.assemble(
        nodes, points, motion, moved, sign * roots @ roots.transpose(0, 2, 1), pull, turned, gap, 30 * weight
    )
    matrix = step_matrix.dense()
    return matrix, right, equations.solve(step_matrix, right, damping)


def test_the_linear_system(rod):
    compiled, plain = both(lambda: system(rod.graph, rod.nodes, rod.samples.points, rod.motion()))
    scale = np.abs(plain[0]).max()
    np.testing.assert_allclose(compiled[0], plain[0], atol=1e-6 * scale)
    np.testing.assert_allclose(compiled[1], plain[1], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(compiled[2], plain[2], atol=1e-4 * np.abs(plain[2]).max())


@pytest.mark.parametrize("damping", [0.0, 1e-4, 10.0])
def test_steps_by_panels_and_by_a_band_are_those_of_the_dense_matrix(rod, damping):
    def solved():
        matrix, right, step = system(rod.graph, rod.nodes, rod.samples.points, rod.motion(), damping=damping)
        return step, np.linalg.solve(matrix + damping * np.diag(np.diag(matrix)), right.ravel()).reshape(-1, 6)

    for step, exact in both(solved):
        np.testing.assert_allclose(step, exact, atol=1e-4 * np.abs(exact).max())


def test_a_block_outside_of_the_pattern_is_told():
    matrix = PanelMatrix(csr_matrix(np.eye(3)))
    matrix.lay(np.arange(3), np.arange(3))
    with pytest.raises(ValueError, match="1 of 2 blocks"):
        matrix.lay(np.array([0, 2]), np.array([0, 1]))


def test_other_types_of_numbers_compile_no_other_loops(rod):
    """What is compiled at runtime holds up the first frame that asks for it."""
    graph, samples, motion = rod.graph, rod.samples, rod.motion()
    target = SurfaceIndex(*rod.bent).target(100)
    loops = [
        (compiled_loops(module), name)
        for module, name in (
            ("projection", "grid_of"),
            ("matching", "nearest_similar"),
            ("deformation", "carried"),
            ("deformation", "edge_arms"),
            ("deformation", "bending"),
        )
    ]

    def compiled():
        return [len(getattr(module, name).signatures) for module, name in loops]

    def use(kind):
        points, normals, nodes = (values.astype(kind) for values in (samples.points, samples.normals, rod.nodes))
        carried(graph, nodes, points, normals, motion)
        bending(graph, edge_arms(graph, nodes).astype(kind), motion, 0.1)
        find_matches(points, normals, Target(target.points.astype(kind), target.normals, target.sample), 1, 0)

    use(np.float64)
    before = compiled()
    use(np.float32)
    assert compiled() == before


def test_a_matrix_that_is_not_positive_definite_is_told(rod):
    step = system(rod.graph, rod.nodes, rod.samples.points, rod.motion(), sign=-1.0)[2]
    assert not step.any()
    assert not system(rod.graph, rod.nodes, np.nan * rod.samples.points, rod.motion())[2].any()


def test_what_nothing_holds_stays_where_it_is():
    nodes = np.random.default_rng(0).normal(size=(5, 3))
    graph = DeformationGraph(5, np.array([[0, 1]], np.int32), np.ones(1), np.array([[0, 1]] * 9), np.full((9, 2), 0.5))
    for _, _, step in both(lambda: system(graph, nodes, np.ones((9, 3)), still(nodes))):
        assert np.array_equal(step[2:], np.zeros((3, 6))) and step[:2].any()


@settings(max_examples=30)
@given(st.integers(1, 12), st.integers(1, 4), st.integers(0, 20), st.integers(0, 9), st.integers(0, 99))
def test_linear_systems_of_any_graph(count, slots, samples, links, seed):
    """Of one node and many, with and without edges and samples, in one piece and in several."""
    generator = np.random.default_rng(seed)
    slots = min(slots, count)
    pairs = {tuple(sorted(generator.permutation(count)[:2])) for _ in range(links if count > 1 else 0)}
    edges = np.array(sorted(pairs), np.int32).reshape(-1, 2)
    nodes, lengths = generator.normal(size=(count, 3)), generator.uniform(0.5, 2, len(edges))
    index = np.array([generator.permutation(count)[:slots] for _ in range(samples)], np.int64).reshape(-1, slots)
    graph = DeformationGraph(count, edges, lengths, index, generator.dirichlet(np.ones(slots), samples))
    points = generator.normal(size=(samples, 3))
    turns = rotation_from_vector(generator.normal(0, 0.3, (count, 3)))
    compiled, plain = both(lambda: system(graph, nodes, points, Motion(turns, nodes), seed))
    np.testing.assert_allclose(compiled[0], plain[0], atol=1e-5 * (1 + np.abs(plain[0]).max()))
    np.testing.assert_allclose(compiled[1], plain[1], rtol=1e-9, atol=1e-9)
    assert np.isfinite(compiled[2]).all()


def test_a_node_named_twice_by_a_sample_counts_twice():
    nodes, edges = np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]]), np.array([[0, 1], [1, 2]], np.int32)
    index, weight = np.array([[0, 1, 0], [2, 1, 2]]), np.array([[0.5, 0.3, 0.2], [0.7, 0.3, 0.0]])
    graph = DeformationGraph(3, edges, np.ones(2), index, weight)
    compiled, plain = both(lambda: system(graph, nodes, np.array([[0.2, 0.1, 0.0], [1.8, 0.0, 0.1]]), still(nodes)))
    alike(compiled[:2], plain[:2], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cosine", [-1.0, 0.7, 2.0])
@pytest.mark.parametrize(("moving", "count"), [(500, 900), (3, 2), (1, 1), (300, 1), (0, 5)])
def test_matches_from_both_sides(moving, count, cosine):
    target = Target(*cloud(count, 1), np.arange(0, count, 2))
    if moving == 0:  # a tree of nothing finds nothing
        assert len(find_matches(*cloud(0), target, 0.2, cosine).sample) == 0
        return
    compiled, plain = both(lambda: find_matches(*cloud(moving), target, 0.2, cosine))
    for name in ("sample", "place", "normal", "forward"):
        np.testing.assert_array_equal(getattr(compiled, name), getattr(plain, name))
    compiled, plain = both(lambda: target.nearest_similar(*cloud(moving), 0.3, cosine))
    np.testing.assert_array_equal(compiled, plain)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_refused(odd):
    target, (points, normals) = Target(*cloud(100, 1), np.arange(100)), cloud(20)
    points[3, 1] = odd

    def refused():
        with pytest.raises(ValueError, match="finite"):
            find_matches(points, normals, target, 0.5, -1.0)
        with pytest.raises(ValueError, match="finite"):
            Target(points, normals, np.arange(20)).nearest_similar(*target.sought, 0.5, -1.0)

    both(refused)


def test_samples_without_a_normal_have_no_match():
    target, (points, normals) = Target(*cloud(100, 1), np.arange(100)), cloud(20)
    normals[::3] = np.nan
    compiled, plain = both(lambda: find_matches(points, normals, target, 0.5, -1.0))
    for name in ("sample", "place", "normal", "forward"):
        np.testing.assert_array_equal(getattr(compiled, name), getattr(plain, name))
    assert not np.isin(compiled.sample, np.arange(0, 20, 3)).any() and np.isfinite(compiled.place).all()


@settings(max_examples=50)
@given(st.integers(0, 300), st.integers(0, 99), st.sampled_from([1e-12, 0.01, 1.0, 1e6]), st.booleans())
def test_order_in_space(count, seed, scale, flat):
    points = scale * cloud(count, seed)[0]
    if flat:
        points[:, 1] = 1.0
    if count:
        compiled, plain = both(lambda: space_order(points))
        np.testing.assert_array_equal(compiled, plain)
    chosen = even_sample(points, 10)
    assert len(np.unique(chosen)) == min(count, 10) and np.isin(chosen, np.arange(count)).all()


def test_order_in_space_of_what_is_no_number_is_still_an_order():
    points = cloud(50)[0]
    points[::7] = np.nan
    order, finite = space_order(points), np.arange(50) % 7 > 0
    np.testing.assert_array_equal(np.sort(order), np.arange(50))
    numbers = np.flatnonzero(finite)
    np.testing.assert_array_equal(order[finite[order]], numbers[space_order(points[numbers])])  # others do not upset it
    points[3] = np.inf
    np.testing.assert_array_equal(np.sort(space_order(points)), np.arange(50))


@settings(max_examples=50)
@given(st.integers(0, 20), st.integers(0, 99), st.sampled_from([0.0, 1e-200, 1e-9, 1.0]))
def test_rotations_of_vectors_and_back(count, seed, length):
    vectors = length * np.random.default_rng(seed).uniform(-1.5, 1.5, (count, 3))
    rotations, plain = both(lambda: rotation_from_vector(vectors))
    np.testing.assert_allclose(rotations, plain, atol=1e-15)
    compiled, plain = both(lambda: vector_from_rotation(rotations))
    np.testing.assert_allclose(compiled, plain, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(compiled, vectors, atol=1e-9)


@pytest.mark.parametrize("count", [40, 1])
def test_patches_are_guessed_to_move_the_same_way(count):
    torch.manual_seed(0)
    model = load_config("test").model
    graph = build_patches(*mesh_of(rod_distance, 40), count, (14, 5))
    decoder = DeformationDecoder(model)
    torch.nn.init.normal_(decoder.head[-1].weight, std=0.1)
    centres = torch.as_tensor(graph.centres)
    first, second = torch.randn(2, len(graph), model.embedding_channels)
    matched = centres + 0.1 * torch.randn(len(graph), 3)
    with torch.no_grad():
        compiled, plain = both(lambda: decoder(centres, first, matched, second, graph))
    assert float((compiled[1] - matched).abs().max()) > 0.01
    alike(compiled, plain, atol=2e-6)


@pytest.mark.parametrize("count", [40, 1])
def test_patches_carry_points_the_same_way(count):
    vertices, faces = mesh_of(rod_distance, 40)
    graph = build_patches(vertices, faces, count)
    generator = np.random.default_rng(0)
    turns = rotation_from_vector(generator.normal(0, 0.4, (len(graph), 3))).astype(np.float32)
    motion = PatchMotion(graph, turns, graph.centres + generator.normal(0, 0.1, (len(graph), 3)).astype(np.float32))
    points = generator.normal(0, 0.3, (500, 3)).astype(np.float32)
    points[0] = 1e3  # where every patch's weight is nothing but for the nearest one's
    compiled, plain = both(lambda: motion.carry(points, vertices))
    assert compiled.dtype == plain.dtype == np.float32
    np.testing.assert_allclose(compiled[1:], plain[1:], atol=1e-6)
    np.testing.assert_allclose(compiled[0], plain[0], rtol=1e-3)
