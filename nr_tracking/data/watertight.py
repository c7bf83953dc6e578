"""Whether a mesh is a closed surface that does not overlap itself: looked at, not assumed.

Distances need neither (see :mod:`nr_tracking.data.distance`); but an open mesh has a doubtful inside, and one that
overlaps itself hides surface that no camera sees. Sources are wrapped into one closed skin where they fail.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nr_tracking.data.clips import face_normals, interpolate, largest_edge, sample_surface
from nr_tracking.data.distance import winding_number


@dataclass(frozen=True)
class Condition:
    """What is wrong with a mesh: nothing where all are zero.

    ``open_edges`` belong to one face, ``crowded_edges`` to more than two, along ``flipped_edges`` both faces run the
    same way; ``buried``: share of the surface, by area, that lies inside another part of it.
    """

    open_edges: int
    crowded_edges: int
    flipped_edges: int
    buried: float

    @property
    def closed(self) -> bool:
        """Whether every edge is shared by exactly two faces that agree on what is outside."""
        return self.open_edges == self.crowded_edges == self.flipped_edges == 0


def examined(vertices: np.ndarray, faces: np.ndarray, samples: int = 1000, seed: int = 0) -> Condition:
    """Look at a mesh (V, 3), (F, 3).

    A surface point is buried if the winding number just outside of it exceeds one half: it is then inside of something
    else.
    """
    directed = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    edges, edge = np.unique(np.sort(directed, 1), axis=0, return_inverse=True)
    uses = np.bincount(edge.reshape(-1), minlength=len(edges))
    forward = np.bincount(edge.reshape(-1), directed[:, 0] < directed[:, 1], len(edges))
    face, weights = sample_surface(vertices, faces, samples, np.random.default_rng(seed))
    normals = face_normals(vertices, faces[face])
    outside = interpolate(vertices, faces, face, weights) + 1e-3 * largest_edge(vertices) * normals
    return Condition(
        open_edges=int((uses == 1).sum()),
        crowded_edges=int((uses > 2).sum()),
        flipped_edges=int(((uses == 2) & (forward != 1)).sum()),
        buried=float((winding_number(outside, vertices, faces) > 0.5).mean()),
    )
