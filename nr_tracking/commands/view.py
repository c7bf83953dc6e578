"""``nr_tracking view``: an OUTPUT, or a running node, in the rerun viewer."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from nr_tracking.normals import vertex_normals
from nr_tracking.tracking.result import read_output
from nr_tracking.tracking.rows import NO_STAMP
from nr_tracking.types import InputError

_PORT = 9090


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
        if result.stamps_ns[row] != NO_STAMP:
            rerun.set_time("stamp", timestamp=result.stamps_ns[row] / 1e9)
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
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


def _open(rerun: Any, save: Path | None, web: bool) -> None:
    """Begin a recording that goes to a file, a browser, or a window of the viewer."""
    windowless = sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    if save is None and not web and windowless:
        raise InputError(
            "no_display", "there is no display for a window: --web shows it in a browser, --save FILE keeps it"
        )
    rerun.init("nr_tracking", spawn=save is None and not web)
    if save is not None:
        rerun.save(save)
    elif web:
        try:
            address = rerun.serve_grpc()
            rerun.serve_web_viewer(web_port=_PORT, connect_to=address)
        except RuntimeError as error:
            raise InputError("port_taken", f"the viewer cannot be served: {error}; is another one running?") from None
        print(f"showing it at http://127.0.0.1:{_PORT}/?url={quote(address, safe='')} until Ctrl-C", flush=True)
