"""``nr_tracking view``: an OUTPUT in the rerun viewer."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nr_tracking.data.clips import vertex_normals
from nr_tracking.tracking.result import read_output


def view(output: Path, save: Path | None = None) -> None:
    """Show meshes and tracks over time, or write them as a recording of the viewer."""
    import rerun

    result = read_output(output)
    rerun.init("nr_tracking", spawn=save is None)
    if save is not None:
        rerun.save(save)
    rerun.log("camera", rerun.ViewCoordinates.RDF, static=True)
    for row in range(len(result)):
        rerun.set_time("frame", sequence=row)
        mesh = result.mesh(row)
        if mesh is None:
            rerun.log("camera", rerun.Clear(recursive=True))
            continue
        vertices, faces, colours = mesh
        normals = vertex_normals(vertices, faces)
        rerun.log(
            "camera/surface",
            rerun.Mesh3D(
                vertex_positions=vertices, triangle_indices=faces, vertex_colors=colours, vertex_normals=normals
            ),
        )
        known = np.all(np.isfinite(result.positions[row]), axis=1)
        rerun.log("camera/tracks", rerun.Points3D(result.positions[row, known], radii=0.002))
