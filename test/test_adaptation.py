import numpy as np
import pytest
import torch
from moving_shapes import bend, figure_distance, mesh_of, surface_of

from nr_tracking.config import load_config
from nr_tracking.deformation.decoder import DeformationDecoder
from nr_tracking.deformation.patches import build_patches
from nr_tracking.sensing.volume import Volume
from nr_tracking.tracking.adaptation import DecoderAdapter, PatchedFrame

CELLS = 40
ANGLES = (0.0, 0.8)


def unbent(points, angle):
    """Where points of the bent box came from, in torch."""
    if angle == 0:
        return points
    radius = 1.0 / angle
    x, z = radius - points[:, 0], points[:, 2]
    return torch.stack((radius - torch.hypot(x, z), points[:, 1], torch.atan2(z, x) / angle), dim=1)


class BendingField:
    """A rod that bends from frame to frame; features tell roughly which place of it a point is."""

    resolution = CELLS

    def _rest(self, points, frame):
        return torch.where((frame == 0)[:, None], unbent(points, ANGLES[0]), unbent(points, ANGLES[1]))

    def sdf(self, points, frame):
        rest = self._rest(points, frame)
        along = rest[:, 2].clamp(-0.27, 0.27)
        axis = torch.stack((torch.zeros_like(along), torch.zeros_like(along), along), dim=1)
        return (rest - axis).square().sum(1).clamp_min(1e-12).sqrt() - 0.08

    def embedding(self, points, frame):
        rest = self._rest(points, frame)
        waves = torch.cat((torch.sin(3 * rest), torch.cos(3 * rest), torch.sin(5 * rest[:, 2:]), rest[:, :1]), dim=1)
        return torch.nn.functional.normalize(waves, dim=1)


def frames():
    rest, faces = mesh_of(lambda p: np.linalg.norm(p - _axis(p), axis=-1) - 0.08, CELLS)
    found = []
    for index, angle in enumerate(ANGLES):
        vertices = bend(rest.astype(float), angle).astype(np.float32)
        found.append(PatchedFrame(BendingField(), index, vertices, build_patches(vertices, faces, 40, (15, 6))))
    return found


def _axis(points):
    axis = np.zeros_like(points)
    axis[..., 2] = np.clip(points[..., 2], -0.27, 0.27)
    return axis


def adapter(steps=15, rate=2e-3):
    config = load_config("test", refinement={"adaptation_steps": steps, "adaptation_rate": rate})
    torch.manual_seed(0)
    return DecoderAdapter(DeformationDecoder(config.model).eval(), config)


def weights(adapter):
    return torch.cat([value.reshape(-1) for value in adapter.decoder.state_dict().values()])


def test_a_motion_that_the_decoder_has_not_seen_is_learnt_and_forgotten_on_reset():
    ours, pair = adapter(), frames()
    trained = weights(ours).clone()
    report = ours.adapt(pair)
    assert sum(report.after.values()) < 0.8 * sum(report.before.values())
    assert report.before.keys() == report.after.keys() == {"match", "rigidity", "surface"}
    assert report.steps == 15
    # What is reported is what the decoder that is left behind gives.
    again = adapter(steps=0)
    again.decoder.load_state_dict(ours.decoder.state_dict())
    assert again.adapt(pair).before == pytest.approx(report.after, rel=1e-4)
    assert not torch.equal(weights(ours), trained)
    ours.reset()
    assert torch.equal(weights(ours), trained)


@pytest.mark.parametrize("rate", [0.1, 1.0])
def test_steps_that_make_it_worse_are_undone(rate):
    ours = adapter(steps=8, rate=rate)
    report = ours.adapt(frames())
    assert sum(report.after.values()) <= sum(report.before.values())
    assert report.undone > 0
    assert torch.isfinite(weights(ours)).all()


def test_without_steps_nothing_changes_and_that_is_the_default():
    assert load_config("lite").refinement.adaptation_steps == 0
    ours = adapter(steps=0)
    trained = weights(ours).clone()
    report = ours.adapt(frames())
    assert report.before == report.after and report.undone == 0
    assert torch.equal(weights(ours), trained)
    with pytest.raises(ValueError, match="two frames"):
        ours.adapt(frames()[:1])


def test_metric_surfaces_are_brought_into_the_box():
    vertices, faces = mesh_of(figure_distance, 32)
    volume = Volume(np.array([0.1, -0.2, 2.0]), 2.5)
    metric = volume.to_metric(vertices)
    graph = build_patches(metric, faces, 40, (15, 6))
    placed = PatchedFrame.of(BendingField(), 3, surface_of(metric, faces), graph, volume)
    assert placed.index == 3
    assert np.allclose(placed.vertices, vertices, atol=1e-5)
    assert np.allclose(placed.graph.centres, vertices[graph.index], atol=1e-5)
    assert np.allclose(placed.graph.widths * 2.5, graph.widths, rtol=1e-5)
