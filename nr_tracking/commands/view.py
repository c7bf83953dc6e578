"""``nr_tracking view``: an OUTPUT, or a running node, in the rerun viewer."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from nr_tracking.atomic import prepare_file, written_file
from nr_tracking.normals import vertex_normals
from nr_tracking.tracking.result import Output, read_output
from nr_tracking.tracking.rows import NO_STAMP
from nr_tracking.types import InputError

_PORT = 9090


def view_node(source: str, save: Path | None = None, web: bool = False) -> None:
    """Show what the node named ``source`` publishes, until it is interrupted."""
    import rerun

    from nr_tracking.ros.viewer import show

    with _opened(rerun, save, web):
        show(source, rerun)


def view(output: Path, save: Path | None = None, web: bool = False) -> None:
    """Show meshes and tracks over time, in a window or a browser, or write them as a recording of the viewer."""
    result = read_output(output)  # a wrong path is said first, also where the viewer is missing

    import rerun

    with _opened(rerun, save, web):
        _log(rerun, result)
    if web:
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


def _log(rerun: Any, result: Output) -> None:
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


@contextlib.contextmanager
def _opened(rerun: Any, save: Path | None, web: bool) -> Iterator[None]:
    """A recording that goes to a file, which appears when it is whole, to a browser, or to a window of the viewer."""
    windowless = sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    if save is None and not web and windowless:
        raise InputError(
            "no_display", "there is no display for a window: --web shows it in a browser, --save FILE keeps it"
        )
    if save is not None:
        prepare_file(save)
    rerun.init("nr_tracking", spawn=save is None and not web)
    if save is not None:
        with written_file(save) as partial:
            rerun.save(partial)
            yield
            rerun.disconnect()  # writes what is still on its way
        return
    if web:
        try:
            address = rerun.serve_grpc()
            rerun.serve_web_viewer(web_port=_PORT, connect_to=address)
        except RuntimeError as error:
            raise InputError("port_taken", f"the viewer cannot be served: {error}; is another one running?") from None
        print(f"showing it at http://127.0.0.1:{_PORT}/?url={quote(address, safe='')} until Ctrl-C", flush=True)
    yield
