"""The network's guess of a deformation: associate patches of two surfaces, decode what each patch does.

    source, target = PlacedFrame(field, volume, 0), PlacedFrame(field, volume, 1)
    motion = predict_motion((source, graph_0), (target, graph_1), decoder, config.deformation.softmax_scale)
    moved = motion.carry(points_on_surface_0, vertices_0)

Surfaces and patches are metric; the fields of the frames, of one window or of two successive ones, know the features of
every point (Merrouche et al. 2024, sections 3.3 and 3.4).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from nr_tracking.deformation.association import associate
from nr_tracking.deformation.blending import blend_weights, deform
from nr_tracking.deformation.decoder import DeformationDecoder
from nr_tracking.deformation.patches import PatchGraph
from nr_tracking.deformation.projection import PointIndex
from nr_tracking.fields.averaging import CompletedField
from nr_tracking.loops import compiled_loops
from nr_tracking.sensing.volume import Volume
from nr_tracking.types import Float32


@dataclass(frozen=True)
class PlacedFrame:
    """Frame ``index`` of a field that was completed in the cube ``volume``."""

    field: CompletedField
    volume: Volume
    index: int

    @torch.no_grad()
    def embedding(self, points: Float32) -> torch.Tensor:
        """Unit vectors (N, E), on the field's device, at metric ``points`` (N, 3)."""
        places = torch.from_numpy(np.ascontiguousarray(self.volume.to_box(points), np.float32))
        places = places.to(self.field.device)
        return self.field.embedding(places, torch.full((len(places),), self.index, device=places.device))


@dataclass(frozen=True)
class PatchMotion:
    """How the P patches of ``graph`` move, in metres.

    ``rotations`` (P, 3, 3); ``translations`` (P, 3), the new positions of the centres.
    """

    graph: PatchGraph
    rotations: Float32
    translations: Float32

    def carry(self, points: Float32, vertices: Float32) -> Float32:
        """Move ``points`` (N, 3) on the surface that the patches were cut from, the blend of eq. 22.

        ``vertices`` (V, 3) are those of that surface: a point belongs to the patch of the nearest one.
        """
        index = PointIndex(np.asarray(vertices, np.float64))
        owner = self.graph.owner[index.nearest(np.asarray(points, np.float64))[1][:, 0]]
        points = np.ascontiguousarray(points, np.float32)
        if (loops := compiled_loops("patch_graphs")) is not None:
            graph = self.graph.centres, self.graph.widths, self.graph.neighbours
            gone: Float32 = loops.carried(points, owner, *graph, self.rotations, self.translations)
            return gone
        places = torch.from_numpy(points)
        blend = blend_weights(places, self.graph, owner)
        rotations, translations = torch.from_numpy(self.rotations), torch.from_numpy(self.translations)
        return deform(places, blend, self.graph.centres, rotations, translations).numpy()


@torch.no_grad()
def predict_motion(
    source: tuple[PlacedFrame, PatchGraph],
    target: tuple[PlacedFrame, PatchGraph],
    decoder: DeformationDecoder,
    softmax_scale: float,
) -> PatchMotion:
    """Predict how the patches of ``source`` move onto ``target``, each a frame and its patches."""
    volume = target[0].volume
    features = [frame.embedding(graph.centres) for frame, graph in (source, target)]
    centres = [torch.from_numpy(volume.to_box(graph.centres)).to(features[0].device) for _, graph in (source, target)]
    association = associate(features[0], features[1], softmax_scale)
    matched = association @ centres[1]
    rotations, translations = decoder(centres[0], features[0], matched, association @ features[1], source[1])
    moved = volume.to_metric(translations.cpu().numpy())
    return PatchMotion(source[1], rotations.cpu().numpy(), moved)
