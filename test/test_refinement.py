import numpy as np
import pytest
from moving_shapes import bend, figure_distance, mesh_of, rod_distance, rotation
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from triangles import nearest_on_triangles

from nr_tracking.config import RefinementConfig
from nr_tracking.deformation.carrier import build_carrier, grow_carrier, part_of
from nr_tracking.deformation.matching import even_sample, find_matches
from nr_tracking.deformation.normal_equations import (
    HELD,
    DeformationGraph,
    Motion,
    NormalEquations,
    carried,
    disagreement,
    edge_arms,
    edge_gaps,
    moved_points,
    robust_rigidity,
    still,
)
from nr_tracking.deformation.patches import build_patches
from nr_tracking.deformation.projection import SurfaceIndex, sample_evenly
from nr_tracking.deformation.refinement import Refiner
from nr_tracking.deformation.rotations import rotation_from_vector
from nr_tracking.normals import vertex_normals
from nr_tracking.types import InputError

CELLS = 48
CONFIG = RefinementConfig(samples=600, nodes=50, iterations=8)


class Scene:
    """A surface with a refiner on it."""

    def __init__(self, vertices, faces, config=CONFIG):
        self.samples = sample_evenly(vertices, faces, config.samples)
        patches = build_patches(vertices, faces, config.nodes)
        self.nodes, self.graph = build_carrier(patches, self.samples.points, self.samples.vertex)
        self.refiner = Refiner(config, self.graph)
        self.size = float(np.ptp(vertices, axis=0).max())

    def refine(self, vertices, faces, **options):
        target = SurfaceIndex(vertices, faces).target(self.refiner.config.samples)
        samples = self.samples
        return self.refiner.refine(self.nodes, samples.points, samples.normals, target, self.size, **options)

    def moved(self, fit):
        return moved_points(self.graph, self.nodes, self.samples.points, fit.motion)


@pytest.fixture(scope="module")
def figure():
    return mesh_of(figure_distance, CELLS)


@pytest.fixture(scope="module")
def scene(figure):
    return Scene(*figure)


def random_system(seed=0):
    generator = np.random.default_rng(seed)
    nodes = generator.normal(size=(7, 3))
    edges = np.array([[0, 1], [1, 2], [2, 3], [3, 4], [4, 5], [5, 6], [0, 6], [2, 5]], np.int32)
    index = np.stack([generator.permutation(7)[:4] for _ in range(30)])
    weight = generator.dirichlet(np.ones(4), 30)
    lengths = np.linalg.norm(nodes[edges[:, 0]] - nodes[edges[:, 1]], axis=1)
    return generator, nodes, DeformationGraph(7, edges, lengths, index, weight), generator.normal(size=(30, 3))


@pytest.mark.parametrize("rigid", [True, False])
def test_the_linear_system_agrees_with_finite_differences(rigid):
    generator, nodes, graph, points = random_system()
    equations = NormalEquations(graph)
    if rigid:
        turn = rotation_from_vector(generator.normal(size=3))
        motion = Motion(np.tile(turn, (7, 1, 1)), nodes @ turn.T + generator.normal(size=3))
    else:
        motion = Motion(
            rotation_from_vector(generator.normal(0, 0.5, (7, 3))), nodes + generator.normal(0, 0.2, (7, 3))
        )
    roots = generator.normal(size=(30, 3, 3))
    goals, rigidity = generator.normal(size=(30, 3)), 0.7

    def residuals(step):
        stepped = motion.stepped(step.reshape(7, 6))
        data = roots @ (goals - moved_points(graph, nodes, points, stepped))[..., None]
        edges = edge_gaps(graph, edge_arms(graph, nodes), stepped)[1]
        return np.concatenate((data.ravel(), -np.sqrt(rigidity) * edges.ravel()))

    small = 1e-6
    jacobian = np.stack(
        [(residuals(small * one) - residuals(-small * one)) / (2 * small) for one in np.eye(42)], axis=1
    )
    information = np.swapaxes(roots, 1, 2) @ roots
    pull = (information @ (goals - moved_points(graph, nodes, points, motion))[..., None])[..., 0]
    moved, edges = moved_points(graph, nodes, points, motion), edge_gaps(graph, edge_arms(graph, nodes), motion)
    step_matrix, right = equations.assemble(
        nodes, points, motion, moved, information, pull, *edges, np.full(16, rigidity)
    )
    assert np.allclose(right.ravel(), -jacobian.T @ residuals(np.zeros(42)), atol=1e-5)
    matrix = step_matrix.dense()
    if rigid:  # nodes agree on where their samples are, so the common lever arm is exact
        assert np.allclose(matrix, jacobian.T @ jacobian, atol=1e-6 * np.abs(matrix).max())
    else:
        assert np.linalg.eigvalsh(matrix).min() > 0
    step = equations.solve(step_matrix, right, 0.0)
    assert np.allclose(matrix @ step.ravel(), right.ravel(), atol=1e-4)


def test_samples_are_carried_by_the_blend_of_their_nodes():
    generator, nodes, graph, points = random_system(3)
    motion = Motion(rotation_from_vector(generator.normal(0, 0.5, (7, 3))), nodes + generator.normal(0, 0.2, (7, 3)))
    normals = generator.normal(size=(30, 3))
    arms = points[:, None] - nodes[graph.index]
    each = np.einsum("sbij,sbj->sbi", motion.rotations[graph.index], arms) + motion.translations[graph.index]
    mean = np.einsum("sb,sbi->si", graph.weight, each)
    moved, turned = carried(graph, nodes, points, normals, motion)
    assert np.allclose(moved, mean) and np.allclose(moved, moved_points(graph, nodes, points, motion))
    blended = np.einsum("sb,sbij,sj->si", graph.weight, motion.rotations[graph.index], normals)
    assert np.allclose(turned, blended / np.linalg.norm(blended, axis=1, keepdims=True))
    spread = np.sqrt(np.einsum("sb,sbi,sbi->s", graph.weight, each - mean[:, None], each - mean[:, None]))
    assert np.allclose(disagreement(graph, nodes, points, motion, moved), spread, atol=1e-9)


def test_edges_keep_their_length_at_rest_and_forget_how_they_were_bent():
    _, nodes, graph, _ = random_system()
    grown = edge_arms(graph, 1.5 * nodes)
    near, far = graph.edges.T
    assert np.allclose(grown[: len(near)], nodes[far] - nodes[near])
    bent = nodes @ rotation([1, 0, 0], 0.8).T
    assert np.allclose(edge_gaps(graph, edge_arms(graph, bent), still(bent))[1], 0, atol=1e-12)


def test_weights_of_rigidity_are_those_of_its_energy():
    length = np.geomspace(1e-4, 1, 40)
    gaps = length[:, None] * rotation([1, 2, 3], 1.0)[0]
    weight, energy = robust_rigidity(gaps, 0.01)
    (_, less), (_, more) = (robust_rigidity(share * gaps, 0.01) for share in (1 - 1e-4, 1 + 1e-4))
    assert np.allclose(more - less, 2 * weight * length * 2e-4 * length, rtol=1e-4)
    assert weight[0] > 0.99 and HELD < weight[-1] < 1.1 * HELD
    assert np.allclose(robust_rigidity(gaps, 0.0)[1], length**2) and np.all(energy <= length**2)


def test_a_node_that_nothing_holds_stays_where_it_is():
    _, nodes, graph, points = random_system()
    lonely = DeformationGraph(8, graph.edges, graph.lengths, graph.index, graph.weight)
    places = np.concatenate((nodes, [[5.0, 5.0, 5.0]]))
    equations = NormalEquations(lonely)
    motion = still(places)
    step_matrix, right = equations.assemble(
        places,
        points,
        motion,
        moved_points(lonely, places, points, motion),
        np.tile(np.eye(3), (30, 1, 1)),
        np.ones((30, 3)),
        *edge_gaps(lonely, edge_arms(lonely, places), motion),
        np.ones(16),
    )
    step = equations.solve(step_matrix, right, 1e-4)
    assert np.allclose(step[7], 0) and np.allclose(step[:7, 3:].mean(0), 1, atol=0.05)


def test_no_motion_in_gives_no_motion_out(scene, figure):
    fit = scene.refine(*figure)
    moved = np.linalg.norm(scene.moved(fit) - scene.samples.points, axis=1)
    assert moved.mean() < 0.1 / CELLS and moved.max() < 0.3 / CELLS
    assert np.nanmean(fit.residuals) < 0.05 / CELLS


def test_a_matrix_that_is_not_positive_definite_gives_no_step_but_more_damping(scene, figure, monkeypatch):
    _, nodes, graph, points = random_system()
    equations, motion = NormalEquations(graph), still(nodes)
    moved, edges = moved_points(graph, nodes, points, motion), edge_gaps(graph, edge_arms(graph, nodes), motion)
    system = nodes, points, motion, moved, -np.tile(np.eye(3), (30, 1, 1)), np.ones((30, 3)), *edges
    assert not equations.solve(*equations.assemble(*system, np.zeros(16)), 0.0).any()

    solve, asked = NormalEquations.solve, []

    def failing_once(self, step_matrix, right, damping):
        asked.append(damping)
        return solve(self, step_matrix, right, damping) if len(asked) > 1 else np.zeros_like(right)

    monkeypatch.setattr(NormalEquations, "solve", failing_once)
    shift = np.array([0.02, -0.01, 0.015])
    found = scene.moved(scene.refine(figure[0] + shift, figure[1]))
    assert asked[1] > asked[0]
    assert np.linalg.norm(found - scene.samples.points - shift, axis=1).mean() < 0.25 / CELLS


@pytest.mark.parametrize("half", [False, True])
def test_a_rigid_motion_is_recovered_also_from_one_side(scene, figure, half):
    vertices, faces = figure
    turn, shift = rotation([1, 2, 0.5], 0.15), np.array([0.02, -0.01, 0.015])
    goal = scene.samples.points @ turn.T + shift
    moved = vertices @ turn.T + shift
    if half:
        faces = faces[vertices[faces].mean(axis=1)[:, 2] < 0]
    error = np.linalg.norm(scene.moved(scene.refine(moved, faces)) - goal, axis=1)
    assert error.mean() < (0.5 if half else 0.25) / CELLS
    assert np.linalg.norm(goal - scene.samples.points, axis=1).mean() > 1.5 / CELLS


def test_a_bend_is_recovered():
    vertices, faces = mesh_of(rod_distance, CELLS)
    rod = Scene(vertices, faces)
    fit = rod.refine(bend(vertices.astype(float), 0.7), faces)
    goal = bend(rod.samples.points, 0.7)
    error = np.linalg.norm(rod.moved(fit) - goal, axis=1)
    still_error = np.linalg.norm(rod.samples.points - goal, axis=1)
    assert error.mean() < 0.25 * still_error.mean()
    assert error.mean() < 0.2 / CELLS


def test_energy_never_rises(scene, figure):
    vertices, faces = figure
    fit = scene.refine(vertices @ rotation([0, 1, 0], 0.25).T, faces)
    assert len(fit.energies) > 2
    assert np.all(np.diff(fit.energies) <= 0)


def test_the_unit_of_length_does_not_matter(figure):
    vertices, faces = figure
    moved = vertices @ rotation([0, 1, 0], 0.1).T + 0.01
    small, large = Scene(vertices, faces), Scene(vertices * 1024, faces)
    result, scaled = small.moved(small.refine(moved, faces)), large.moved(large.refine(moved * 1024, faces))
    assert np.allclose(scaled / 1024, result, atol=1e-6)


def test_a_good_guess_reaches_what_is_out_of_sight(scene, figure):
    vertices, faces = figure
    shift = np.array([0.25, 0.1, 0.0])
    far = vertices + shift
    guess = Motion(still(scene.nodes).rotations, scene.nodes + 0.9 * shift)
    guided = scene.refine(far, faces, starts=[still(scene.nodes), guess])
    alone = scene.refine(far, faces)
    goal = scene.samples.points + shift
    assert np.linalg.norm(scene.moved(guided) - goal, axis=1).mean() < 0.25 / CELLS
    assert np.linalg.norm(scene.moved(alone) - goal, axis=1).mean() > 2 / CELLS


@pytest.mark.parametrize(("shift", "asked"), [(0.01, False), (0.25, True)])
def test_a_guess_is_asked_for_only_where_nothing_else_comes_close(scene, figure, shift, asked):
    vertices, faces = figure
    goal, calls = np.array([shift, 0.0, 0.0]), []

    def guess():
        calls.append(shift)
        return Motion(still(scene.nodes).rotations, scene.nodes + goal)

    fit = scene.refine(vertices + goal, faces, starts=[still(scene.nodes)], guesses=[guess])
    assert bool(calls) == asked
    assert np.linalg.norm(scene.moved(fit) - scene.samples.points - goal, axis=1).mean() < 0.25 / CELLS


def test_of_starts_that_come_equally_near_the_one_that_bends_nothing_is_taken(scene, figure):
    """Samples lie on the target by either; by one of them, each node is turned about itself as well."""
    vertices, faces = figure
    turned = Motion(np.tile(rotation([0, 1, 0], np.pi), (len(scene.nodes), 1, 1)), scene.nodes)
    for starts in ([still(scene.nodes), turned], [turned, still(scene.nodes)]):
        fit = scene.refine(vertices, faces, starts=starts)
        assert np.linalg.norm(scene.moved(fit) - scene.samples.points, axis=1).max() < 0.5 / CELLS


def test_a_point_hung_on_a_node_with_few_neighbours_counts_each_once():
    """A chain of three nodes: the rows of points at its ends are padded with the node itself, which weighs no more."""
    nodes = np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]])
    index = np.array([[0, 1, 0], [1, 0, 2], [2, 1, 2]])
    weight = np.array([[0.7, 0.3, 0.0], [0.6, 0.2, 0.2], [0.7, 0.3, 0.0]])
    graph = DeformationGraph(3, np.array([[0, 1], [1, 2]], np.int32), np.ones(2), index, weight)
    grown = grow_carrier(graph, nodes, np.array([[0.2, 0.0, 0.0]]), np.array([0]), 1.0, 3).graph
    shares = np.bincount(grown.index[-1], grown.weight[-1], minlength=3)
    near, far = np.exp(-0.5 * 0.2**2), np.exp(-0.5 * 0.8**2)
    np.testing.assert_allclose(shares, [near / (near + far), far / (near + far), 0], atol=1e-9)


def test_features_show_a_turn_that_the_shape_hides():
    vertices, faces = mesh_of(rod_distance, CELLS)
    rod = Scene(vertices, faces, CONFIG.model_copy(update={"embedding": 0.3, "point_to_point": 1.0}))
    turn = rotation([0, 0, 1], 0.4)
    index = SurfaceIndex(vertices @ turn.T, faces)
    target = index.target(600)

    def features(points):  # what tells the places around a rod apart
        angle = np.arctan2(points[:, 1], points[:, 0])
        return np.stack((np.cos(angle), np.sin(angle)), axis=1).astype(np.float32)

    known = type(target)(target.points, target.normals, target.sample, features(target.points[target.sample] @ turn))
    samples = rod.samples
    pose = rod.nodes, samples.points, samples.normals
    blind = rod.refiner.refine(*pose, target, rod.size)
    seeing = rod.refiner.refine(*pose, known, rod.size, features=features(samples.points))
    goal = samples.points @ turn.T
    blind_error = np.linalg.norm(rod.moved(blind) - goal, axis=1).mean()
    assert np.linalg.norm(rod.moved(seeing) - goal, axis=1).mean() < 0.35 * blind_error


def test_matches_keep_to_their_side_and_within_the_radius():
    sheet = np.stack(np.meshgrid(np.arange(5.0), np.arange(5.0), indexing="ij"), -1).reshape(-1, 2) * 0.1
    upper = np.concatenate((sheet, np.full((25, 1), 0.02)), axis=1)
    lower = np.concatenate((sheet, np.full((25, 1), -0.01)), axis=1)
    quads = (np.arange(4)[:, None] * 5 + np.arange(4)).reshape(-1)
    up = np.concatenate((np.stack((quads, quads + 5, quads + 1), 1), np.stack((quads + 1, quads + 5, quads + 6), 1)))
    faces = np.concatenate((up, 25 + up[:, ::-1]))
    target = SurfaceIndex(np.concatenate((upper, lower)), faces).target(50)
    assert np.allclose(target.normals[:25, 2], 1) and np.allclose(target.normals[25:, 2], -1)
    points, normals = np.concatenate((sheet, np.zeros((25, 1))), axis=1), np.tile([0.0, 0.0, 1.0], (25, 1))
    matches = find_matches(points, normals, target, 0.05, 0.5)
    assert matches.forward == 25 and len(matches.sample) == 50  # the lower sheet, though nearer, faces away
    assert np.allclose(matches.place[:, 2], 0.02)
    assert np.array_equal(np.sort(matches.sample[25:]), np.arange(25))
    assert len(find_matches(points, normals, target, 0.015, 0.5).sample) == 0


def test_vertex_normals_point_outward():
    vertices, faces = mesh_of(lambda points: np.linalg.norm(points, axis=-1) - 0.3, 40)
    normals = vertex_normals(vertices, faces)
    assert (normals * vertices).sum(1).min() > 0.29


def test_samples_are_even_by_area_and_reproducible():
    vertices, faces = mesh_of(figure_distance, 32)
    samples = sample_evenly(vertices, faces, 3000)
    again = sample_evenly(vertices, faces, 3000)
    assert samples.points.shape == (3000, 3) and np.array_equal(samples.points, again.points)
    corners = vertices[faces].astype(float)
    area = 0.5 * np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    for axis in range(3):
        for cut in np.quantile(vertices[:, axis], (0.2, 0.5, 0.8)):
            expected = area[corners.mean(axis=1)[:, axis] < cut].sum() / area.sum()
            assert abs((samples.points[:, axis] < cut).mean() - expected) < 0.03
    # Every sample lies on one of the triangles around the vertex that it names.
    for point, vertex in list(zip(samples.points, samples.vertex, strict=True))[::30]:
        around = corners[(faces == vertex).any(axis=1)]
        place, _ = nearest_on_triangles(np.tile(point, (len(around), 1)), around)
        assert np.linalg.norm(place - point, axis=1).min() < 1e-9
    assert np.allclose(np.linalg.norm(samples.normals, axis=1), 1)


def test_a_surface_without_area_is_refused():
    with pytest.raises(InputError) as error:
        sample_evenly(np.zeros((3, 3)), np.array([[0, 1, 2]]), 10)
    assert error.value.reason == "no_surface"


def test_projection_is_close_to_a_search_of_all_triangles():
    vertices, faces = mesh_of(figure_distance, 32)
    generator = np.random.default_rng(0)
    samples = sample_evenly(vertices, faces, 150)
    points = samples.points + 0.005 * generator.normal(size=(150, 3))
    found = SurfaceIndex(vertices, faces).project(points, samples.normals, 0.1, 0.0)
    corners = vertices[faces].astype(float)

    def exact(points):
        each = [nearest_on_triangles(np.tile(point, (len(faces), 1)), corners)[0] - point for point in points]
        return np.linalg.norm(each, axis=2).min(axis=1)

    assert np.allclose(found.distance, np.linalg.norm(found.points - points, axis=1))
    # Limbs are two and a half cells thick here, so their triangles are coarse themselves.
    assert np.median(exact(found.points)) < 0.06 / 32 and np.quantile(exact(found.points), 0.95) < 0.2 / 32
    assert np.quantile(np.abs(found.distance - exact(points)), 0.9) < 0.15 / 32
    nowhere = SurfaceIndex(vertices, faces).project(points + 5, samples.normals, 0.1, 0.0)
    assert (nowhere.vertex == -1).all() and np.isinf(nowhere.distance).all() and np.isnan(nowhere.points).all()


def test_projection_knows_that_a_surface_is_round():
    """Between the vertices of a coarse ball, places lie nearer to the ball than its triangles do."""
    vertices, faces = mesh_of(lambda points: np.linalg.norm(points, axis=-1) - 0.3, 24)
    samples = sample_evenly(vertices, faces, 2000)
    outward = samples.points / np.linalg.norm(samples.points, axis=1, keepdims=True)
    found = SurfaceIndex(vertices, faces).project(1.02 * samples.points, outward, 0.1, 0.0)
    radius = np.linalg.norm(vertices, axis=1).mean()
    off = np.linalg.norm(found.points, axis=1) - radius
    assert abs(off.mean()) < 0.15 * abs(np.linalg.norm(samples.points, axis=1).mean() - radius)
    assert np.abs(off).max() < 0.05 / 24


def test_nearest_places_on_triangles_beat_every_other_place_on_them():
    generator = np.random.default_rng(1)
    points, corners = generator.normal(size=(400, 3)), generator.normal(size=(400, 3, 3))
    corners[:20, 2] = corners[:20, 1]  # an edge
    corners[20:25] = corners[20:25, :1]  # a point
    place, shares = nearest_on_triangles(points, corners)
    assert shares.min() >= -1e-12 and np.allclose(shares.sum(1), 1)
    assert np.allclose(np.einsum("qc,qci->qi", shares, corners), place)
    distance = np.linalg.norm(place - points, axis=1)
    for weights in generator.dirichlet(np.full(3, 0.5), 300):
        other = np.einsum("c,qci->qi", weights, corners)
        assert (distance <= np.linalg.norm(other - points, axis=1) + 1e-9).all()


def test_an_even_sample_covers_the_surface():
    points = mesh_of(figure_distance, 40)[0].astype(float)
    chosen = even_sample(points, 300)
    assert len(np.unique(chosen)) == 300
    distance = np.linalg.norm(points[:, None] - points[chosen][None], axis=2).min(1)
    assert distance.max() < 0.08
    assert np.array_equal(even_sample(points, 10**6), np.arange(len(points)))


def test_parts_that_are_apart_are_tied_together():
    vertices, faces = mesh_of(rod_distance, 24)
    count = len(vertices)
    three = np.concatenate([vertices + np.array([shift, 0, 0]) for shift in (0.0, 0.3, 0.6)])
    faces = np.concatenate((faces, faces + count, faces + 2 * count))
    samples = sample_evenly(three, faces, 200)
    patches = build_patches(three, faces, 30)
    nodes, graph = build_carrier(patches, samples.points, samples.vertex)
    links = csr_matrix((np.ones(len(graph.edges)), tuple(graph.edges.T)), shape=(len(nodes),) * 2)
    assert connected_components(links, directed=False)[0] == 1
    assert (
        connected_components(
            csr_matrix((np.ones(len(patches.neighbours)), tuple(patches.neighbours.T)), shape=(len(nodes),) * 2)
        )[0]
        == 3
    )
    assert np.allclose(graph.weight.sum(1), 1)
    few = part_of(graph, np.array([3, 5]))
    assert np.array_equal(few.index, graph.index[[3, 5]]) and few.count == graph.count


def test_the_point_nearest_to_a_vertex_is_known_from_the_projection():
    vertices, faces = mesh_of(figure_distance, 32)
    index, samples = SurfaceIndex(vertices, faces), sample_evenly(vertices, faces, 3000)
    landing = index.project(samples.points, samples.normals, 0.1, 0.5)
    wanted = np.arange(3000) % 10 > 0
    near = landing.nearest(index.points, landing.points, wanted)
    known = np.flatnonzero(near >= 0)
    assert len(known) > 0.9 * len(vertices) and wanted[near[known]].all()
    apart = np.linalg.norm(landing.points[near[known]] - vertices[known], axis=1)
    least = np.linalg.norm(vertices[known, None] - landing.points[None, wanted], axis=2).min(axis=1)
    assert (apart < least + 1e-9).mean() > 0.9 and np.mean(apart - least) < 0.02 / 32
    assert (landing.nearest(index.points, landing.points, np.zeros(3000, bool)) == -1).all()


def test_a_subject_that_finds_nothing_stays_where_it_is(scene, figure):
    vertices, faces = figure
    fit = scene.refine(vertices + 10.0, faces)
    assert np.allclose(scene.moved(fit), scene.samples.points, atol=1e-6)
    assert np.isnan(fit.residuals).all()
