"""Other methods on the same frames: surfaces without a network, followed by a deformation graph without a network.

Each frame's surface is made from its own depth image. Where it is closed, points are followed as in embedded
deformation (Sumner et al. 2007; Newcombe et al. 2015): the package's own deformation graph and fitting, with neither
learned completion nor learned matches, so that the difference is what the networks bring.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import numpy as np

from nr_tracking.config import Config
from nr_tracking.evaluation.classical_surfaces import (
    Completion,
    inflated_surface,
    observed_surface,
    poisson_surface,
)
from nr_tracking.evaluation.metrics import Mesh
from nr_tracking.evaluation.protocol import Candidate
from nr_tracking.sensing.camera import rectify
from nr_tracking.sensing.subject import find_subject
from nr_tracking.tracking.tracks import PersistentTracks
from nr_tracking.types import DepthFrame, InputError, Surface, Tracks

METHODS: dict[str, tuple[Completion, bool]] = {
    "observed only": (observed_surface, False),
    "inflated, graph": (inflated_surface, True),
    "Poisson, graph": (poisson_surface, True),
}
"""How each method makes surfaces, and whether it follows points; a sheet without a back has none to follow."""


def classical_candidate(method: str, frames: Iterable[DepthFrame | None], config: Config) -> Candidate:
    """Surfaces and tracks of one of :data:`METHODS`; a frame that cannot be read, None, or used stays without one.

    Its ``seconds`` a frame are those of the method's own work, as a tracker's are: reading the frames is not in them.
    """
    complete, follows = METHODS[method]
    tracker = PersistentTracks(config.refinement, config.tracks)
    meshes: list[Mesh | None] = []
    rows: list[Tracks | None] = []
    seconds = 0.0
    for frame in frames:
        begun = time.perf_counter()
        mesh = None if frame is None else _completed(complete, frame, config)
        row = None
        if frame is not None and mesh is not None and follows:
            started = any(earlier is not None for earlier in rows)
            row = _follow(tracker, mesh, frame.stamp_ns, started)
        seconds += time.perf_counter() - begun
        meshes.append(mesh)
        rows.append(row)
    found = [row for row in rows if row is not None]
    ids = np.unique(np.concatenate([np.empty(0, np.int64), *(row.ids for row in found)]))
    tracks = np.full((len(rows), len(ids), 3), np.nan, np.float32)
    for index, row in enumerate(rows):
        if row is not None:
            tracks[index, np.searchsorted(ids, row.ids)] = row.positions
    return Candidate(meshes, tracks, seconds=seconds / max(len(meshes), 1), method=method)


def _completed(complete: Completion, frame: DepthFrame, config: Config) -> Mesh | None:
    try:
        seen = rectify(frame)
        return complete(seen.depth, find_subject(seen, config.subject), seen.intrinsics)
    except InputError:
        return None


def _follow(tracker: PersistentTracks, mesh: Mesh, stamp_ns: int, started: bool) -> Tracks | None:
    known = np.ones(len(mesh.vertices), np.float32)
    surface = Surface(mesh.vertices.astype(np.float32), mesh.faces, known, known > 0)
    try:
        return tracker.advance(surface, stamp_ns) if started else tracker.start(surface, stamp_ns)
    except InputError:
        return None
