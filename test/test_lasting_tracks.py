"""What becomes of tracks over many comings and goings of what they lie on."""

import numpy as np
from moving_shapes import figure_distance, mesh_of, rotation, surface_of
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from nr_tracking.config import RefinementConfig, TracksConfig
from nr_tracking.deformation.carrier import build_carrier, on_nodes, part_of, used_nodes
from nr_tracking.deformation.normal_equations import Motion, moved_points
from nr_tracking.deformation.patches import build_patches
from nr_tracking.deformation.projection import sample_evenly
from nr_tracking.tracking.tracks import PersistentTracks

CELLS = 40
STEP_NS = 33_333_333
REFINEMENT = RefinementConfig(samples=400, nodes=40)
TRACKS = TracksConfig(count=800)


def without_an_arm(points):
    """The figure without most of its right arm."""
    return np.maximum(figure_distance(points), points[..., 0] - 0.12)


def test_nodes_without_points_are_done_without_and_the_rest_moves_as_before():
    vertices, faces = mesh_of(figure_distance, CELLS)
    samples = sample_evenly(vertices, faces, 800)
    nodes, graph = build_carrier(build_patches(vertices, faces, 40), samples.points, samples.vertex)
    # Both hands and the body: what ties the right hand to it is gone.
    stay = np.flatnonzero((samples.points[:, 0] < 0.0) | (samples.points[:, 0] > 0.25))
    part = part_of(graph, stay)
    kept = used_nodes(part)
    assert not kept.all()
    fewer = on_nodes(part, nodes, kept)
    assert fewer.count == kept.sum() < graph.count and fewer.index.max() < fewer.count
    random = np.random.default_rng(0)
    turns = np.stack([rotation(random.normal(size=3), 0.3) for _ in nodes])
    motion = Motion(turns, nodes + 0.1 * random.normal(size=nodes.shape))
    fewer_motion = Motion(turns[kept], motion.translations[kept])
    points = samples.points[stay]
    moved = moved_points(part, nodes, points, motion)
    assert np.allclose(moved_points(fewer, nodes[kept], points, fewer_motion), moved, atol=1e-5)
    links = csr_matrix((np.ones(len(fewer.edges)), tuple(fewer.edges.T)), shape=(fewer.count,) * 2)
    assert connected_components(links, directed=False)[0] == 1
    assert len(fewer.lengths) == len(fewer.edges)
    assert np.all(fewer.lengths > 0) and len(np.unique(fewer.edges, axis=0)) == len(fewer.edges)


def test_a_limb_that_comes_and_goes_hangs_on_nodes_of_its_own_each_time():
    """Nodes of forgotten points leave room for others: else a later arm would hang on what is far away."""
    settings = TRACKS.model_copy(
        update={"patience_s": 0.04, "memory_s": 0.04, "renew_frames": 2, "birth_ratio": 2.0, "keyframe_frames": 7}
    )
    tracks = PersistentTracks(REFINEMENT.model_copy(update={"nodes": 120}), settings)
    whole, part = surface_of(*mesh_of(figure_distance, CELLS)), surface_of(*mesh_of(without_an_arm, CELLS))
    tracks.start(part, 0)
    first, step = tracks._graph.count, 0
    known, newest = set(tracks.nodes().ids), first - 1
    for _ in range(22):
        for surface in [part] * 6 + [whole] * 5:
            step += 1
            found = tracks.advance(surface, step * STEP_NS)
            nodes = tracks.nodes()
            assert len(nodes.ids) == len(nodes.positions) == tracks._graph.count
            new = set(nodes.ids) - known
            assert all(number > newest for number in new), "no id comes again"
            known, newest = set(nodes.ids), max(newest, *nodes.ids)
    assert tracks._graph.count < 1.4 * first and newest > 1.5 * first
    arm = found.positions[:, 0] > 0.2
    assert arm.sum() > 20
    pose, graph = tracks._pose, tracks._graph
    points = np.flatnonzero(tracks._population.alive)[arm]
    strongest = graph.index[points, graph.weight[points].argmax(axis=1)]
    away = np.linalg.norm(pose.points[points] - pose.nodes[strongest], axis=1)
    assert away.mean() < 0.7 * tracks._node_spacing
