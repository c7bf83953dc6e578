"""Pictures of what is wrong with a surface: its distance from the true one as colours, beside the truth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nr_tracking.evaluation.figures import grid
from nr_tracking.evaluation.protocol import Specimen
from nr_tracking.evaluation.shading import Picture, draw_surface, middle_and_extent, orbit_view
from nr_tracking.types import Float64

LARGEST_ERROR = 0.05
"""The error that is drawn in the last colour, and all beyond it; first longest edge = 1."""

TILE = 220

AZIMUTHS = (0.0, 90.0, 180.0)
"""Where the pictures are taken from: where the camera is, from its right, and from behind the subject."""

# Right is nearly white, so that form stays visible; then yellow, orange, red, and purple for what is far off.
_COLOURS = np.array([[226, 230, 236], [245, 221, 140], [239, 152, 74], [205, 62, 58], [110, 24, 84]], np.float64)


def error_colours(error: Float64, largest: float = LARGEST_ERROR) -> NDArray[np.uint8]:
    """Colours (V, 3) of errors (V,): pale for 0, purple for ``largest`` and beyond."""
    position = np.clip(error / largest, 0, 1) * (len(_COLOURS) - 1)
    steps = np.arange(len(_COLOURS))
    channels = [np.interp(position, steps, _COLOURS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def draw_specimen(specimen: Specimen) -> Picture:
    """Two rows, each from :data:`AZIMUTHS`: the surface by its distance from the truth, the truth by that from it.

    The first row shows what is there and wrong, the second what ought to be there and is not.
    """
    centre, extent = middle_and_extent(np.concatenate([specimen.truth.vertices, specimen.surface.vertices]))
    views = [orbit_view(centre, extent, azimuth, size=(TILE, TILE)) for azimuth in AZIMUTHS]
    colours, missed = error_colours(specimen.error), error_colours(specimen.missed)
    ours, truth = specimen.surface.vertices.astype(np.float32), specimen.truth.vertices.astype(np.float32)
    return grid(
        [
            [draw_surface(ours, specimen.surface.faces, view, colours) for view in views],
            [draw_surface(truth, specimen.truth.faces, view, missed) for view in views],
        ]
    )


def error_scale(width: int = 300, height: int = 14) -> Picture:
    """The colours from 0 to :data:`LARGEST_ERROR`, left to right."""
    row = error_colours(np.linspace(0, LARGEST_ERROR, width))
    return np.broadcast_to(row, (height, width, 3)).copy()
