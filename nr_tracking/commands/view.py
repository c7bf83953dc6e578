"""``nr_tracking view``: an OUTPUT, or a running node, in the rerun viewer."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import Any

import numpy as np

from nr_tracking.normals import vertex_normals
from nr_tracking.tracking.result import read_output


def view_node(source: str, save: Path | None = None, web: bool = False) -> None:
    """Show what the node named ``source`` publishes, until it is interrupted."""
    import rerun

    from nr_tracking.ros.viewer import show

    _open(rerun, save, web)
    show(source, rerun)


def view(output: Path, save: Path | None = None, web: bool = False) -> None:
    """Show meshes and tracks over time, in a window or a browser, or write them as a recording of the viewer."""
    import rerun

    result = read_output(output)
    _open(rerun, save, web)
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
    if web and save is None:
        print("showing it in the browser until Ctrl-C")
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


def _open(rerun: Any, save: Path | None, web: bool) -> None:
    """Begin a recording that goes to a file, a browser, or a window of the viewer."""
    rerun.init("nr_tracking", spawn=save is None and not web)
    if save is not None:
        rerun.save(save)
    elif web:
        rerun.serve_web_viewer(connect_to=rerun.serve_grpc())
