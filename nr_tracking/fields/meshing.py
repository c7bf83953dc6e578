"""The zero level set of a field as a closed triangle mesh.

The field is known at all voxel centres (finely near its surface, coarsely elsewhere). The part of the grid that holds
the inside is cut out, made denser by cubic interpolation, and walled with positive values, so that marching cubes
meets every sign change there is and each surface closes. Its vertices are then pulled onto the zero level of the field
itself, and settled so that the faces between them lie on it too (:mod:`nr_tracking.fields.settling`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage.measure import marching_cubes
from torch import Tensor
from torch.nn import functional

from nr_tracking.config import MeshConfig
from nr_tracking.fields.field import upsample_smoothly
from nr_tracking.fields.settling import settle
from nr_tracking.loops import compiled_loops
from nr_tracking.normals import face_normals
from nr_tracking.types import Bool, Float32, Float64, InputError, Int32, Int64

REACH = 0.75  # voxels from the surface: what is thinner may lie between voxel centres
CLEARANCE = 0.02  # of a cell: least distance of a vertex from a grid point, so that no triangle degenerates
_SEEN_SHARE = 0.25  # of a part's vertices: with so many it was measured, with fewer it stands where others were
_SEEN_AREA = 0.1  # of the least area: what is smaller is noise even where it was measured


class Field(Protocol):
    """What meshing asks of a field (see :class:`nr_tracking.fields.field.FieldWindow`)."""

    resolution: int

    def grid(self, frame: int) -> Tensor:
        """Signed distance (R, R, R) at the voxel centres."""
        ...

    def sdf(self, points: Tensor, frame: Tensor) -> Tensor:
        """Signed distance (Q,) at ``points`` (Q, 3) of ``frame`` (Q,)."""
        ...


@torch.no_grad()
def extract_surface(
    field: Field,
    frame: int,
    config: MeshConfig,
    bound: Callable[[Tensor], Tensor] | None = None,
    seen: Callable[[Float32], Bool] | None = None,
) -> tuple[Float32, Int32]:
    """The surface of one frame: vertices (V, 3) float32 in box coordinates and faces (F, 3) int32.

    ``bound`` maps points (Q, 3) to a lower bound of the signed distance (Q,), -inf where nothing is known; with
    ``config.carve`` the surface of max(sdf, bound) is meshed. Every edge has two faces, also where the box cuts the
    surface; faces are counter-clockwise seen from outside; components that enclose a hollow or cover less than
    ``config.minimum_component`` of the area are left out. ``seen`` tells which of points (V, 3) the camera measured:
    of what it did, a tenth of that area is enough, since a thin leg that came off the body is a leg nevertheless.
    Raises :class:`InputError` ``no_surface`` where the field is positive everywhere.
    """
    bound = bound if config.carve else None
    values = field.grid(frame)
    near = values.cpu().numpy() < (REACH / field.resolution if config.upsample > 1 else 0.0)
    if not near.any():
        raise _no_surface()
    first, last = _extent(near)
    first, last = np.maximum(first - 2, 0), np.minimum(last + 3, field.resolution)
    part = values[tuple(map(slice, first.tolist(), last.tolist()))].contiguous()
    dense = part if config.upsample == 1 else upsample_smoothly(part, config.upsample)
    if bound is not None:
        dense = _carve_grid(dense, bound, first * config.upsample, field.resolution * config.upsample)
    if not bool((dense < 0).any()):
        raise _no_surface()

    cell = 1.0 / (field.resolution * config.upsample)
    least = CLEARANCE * cell
    dense = torch.where(dense < 0, dense.clamp(max=-least), dense.clamp(min=least))
    walled = functional.pad(dense, (1,) * 6, value=cell).float().cpu().numpy()
    places, faces, _, _ = marching_cubes(walled, 0.0, mask=_cells_with_surface(walled < 0))
    origin = first * config.upsample - 1

    def measured(places: Float32) -> Bool:
        return np.zeros(len(places), np.bool_) if seen is None else seen(_in_box(places, origin, cell))

    places, faces = _without_small_components(places, faces.astype(np.int32), config.minimum_component, measured)
    distance = _carved(field, frame, bound, values)
    if config.pull:
        places = _pulled(places, walled, origin, cell, distance)
    vertices = _in_box(places, origin, cell)
    if config.settle:
        inside: Bool = np.all(np.abs(vertices) < 0.5 - cell / 2, axis=1)  # and not on the wall around the box
        vertices = settle(vertices, faces, distance, cell, inside)
    return vertices, faces


def _in_box(places: Float32, origin: Int64, cell: float) -> Float32:
    """Places (V, 3) on the walled grid in box coordinates."""
    return ((places + origin + 0.5) * cell - 0.5).astype(np.float32)


def _extent(inside: Bool) -> tuple[Int64, Int64]:
    """The first and the last cell (3,) along each axis with something ``inside`` (R, R, R), which has something."""
    across, up = np.any(inside, axis=0), np.any(inside, axis=2)
    along = [np.flatnonzero(np.any(some, axis=axis)) for some, axis in ((up, 1), (across, 1), (across, 0))]
    return np.array([cells[0] for cells in along]), np.array([cells[-1] for cells in along])


def _no_surface() -> InputError:
    return InputError(
        "no_surface", "the field is nowhere negative, so there is no surface in the frame; are the weights trained?"
    )


def _carved(
    field: Field, frame: int, bound: Callable[[Tensor], Tensor] | None, like: Tensor
) -> Callable[[Tensor], Tensor]:
    """The function of points (Q, 3) whose zero level is wanted, on the device of ``like``."""

    def distance(points: Tensor) -> Tensor:
        points = points.to(like)
        values = field.sdf(points, torch.full((len(points),), frame, dtype=torch.int64, device=points.device))
        return values if bound is None else torch.maximum(values, bound(points).to(values.dtype))

    return distance


def _carve_grid(values: Tensor, bound: Callable[[Tensor], Tensor], first: Int64, resolution: int) -> Tensor:
    """max(values, bound) on a part (a, b, c) of a grid, where it can matter: inside and up to a voxel outside.

    The part starts at voxel ``first`` (3,) of a grid of ``resolution``.
    """
    near = (values < 1 / resolution).nonzero()
    if len(near) == 0:
        return values
    limit = bound((near.to(values.dtype) + torch.from_numpy(first).to(values) + 0.5) / resolution - 0.5).to(
        values.dtype
    )
    place = tuple(near.t())
    return values.index_put(place, torch.maximum(values[place], limit))


def _cells_with_surface(inside: Bool) -> Bool:
    """The lower and the upper corner of every cell whose corners differ: all that marching cubes has to look at."""
    some, every = inside, inside
    for axis in range(3):
        near, far = (slice(None),) * axis + (slice(None, -1),), (slice(None),) * axis + (slice(1, None),)
        some, every = some[near] | some[far], every[near] & every[far]
    cells = some & ~every
    mask = np.zeros_like(inside)
    mask[:-1, :-1, :-1] = cells
    mask[1:, 1:, 1:] |= cells
    return mask


def _pulled(
    places: Float32, walled: Float32, origin: Int64, cell: float, distance: Callable[[Tensor], Tensor]
) -> Float32:
    """Marching cubes' vertices (V, 3), pulled onto the zero level along the grid edges they lie on.

    One step of false position between the vertex and the end of its edge that has the other sign. A vertex never leaves
    its edge, so the mesh cannot fold. The few vertices inside cells, and those on the wall, stay where they are.
    """
    lower = np.floor(places)
    part = places - lower
    fractional = part > CLEARANCE / 2
    axis = fractional.argmax(1)
    along = np.arange(len(places)), axis
    start = lower.astype(np.int64)
    end = start.copy()
    end[along] += 1
    size = np.array(walled.shape)
    end = np.minimum(end, size - 1)
    movable = (fractional.sum(1) == 1) & (start > 0).all(1) & (end < size - 1).all(1)

    points = torch.from_numpy((places + origin + 0.5) * np.float32(cell) - np.float32(0.5))
    here = distance(points).cpu().numpy()
    begin_value, end_value = walled[tuple(start.T)], walled[tuple(end.T)]
    t = part[along]
    with np.errstate(divide="ignore", invalid="ignore"):
        onward = t + (1 - t) * here / (here - end_value)
        back = t * begin_value / (begin_value - here)
    moved = np.where(np.sign(here) == np.sign(begin_value), onward, back)
    moved = np.where(movable & np.isfinite(moved), np.clip(moved, CLEARANCE, 1 - CLEARANCE), t)
    places = places.copy()
    places[along] = lower[along] + moved
    return places


def _without_small_components(
    vertices: Float32, faces: Int32, minimum: float, measured: Callable[[Float32], Bool]
) -> tuple[Float32, Int32]:
    """Only components that enclose matter, not a hollow, and cover at least ``minimum`` of all such area.

    A tenth of it where a quarter of the component's vertices were ``measured``.
    """
    components, labels = _components(faces, len(vertices))
    if components == 1:
        return vertices, faces
    areas, volumes = _sizes(vertices.astype(np.float64), faces, labels, components)
    solid = volumes > 0
    least = minimum * areas[solid].sum()
    keep = solid & (areas >= least)
    keep[np.where(solid, areas, -1.0).argmax()] = True
    small = solid & ~keep & (areas >= _SEEN_AREA * least)
    of_small = np.flatnonzero(small[labels])
    if len(of_small):
        seen = np.bincount(labels[of_small], weights=measured(vertices[of_small]), minlength=components)
        keep |= small & (seen >= _SEEN_SHARE * np.bincount(labels, minlength=components))
    faces = faces[keep[labels[faces[:, 0]]]]
    renumbered = np.cumsum(keep[labels]) - 1
    return vertices[keep[labels]], renumbered[faces].astype(np.int32)


def _components(faces: Int32, count: int) -> tuple[int, Int64]:
    """How many connected parts a mesh of ``count`` vertices has, and which each vertex belongs to (V,)."""
    if (loops := compiled_loops("meshes")) is not None:
        found: tuple[int, Int64] = loops.components(faces, count)
        return found
    ends = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]]])
    graph = coo_array((np.ones(len(ends), dtype=np.int8), (ends[:, 0], ends[:, 1])), shape=(count, count))
    components, labels = connected_components(graph, directed=False)
    return components, labels.astype(np.int64)


def _sizes(places: Float64, faces: Int32, labels: Int64, count: int) -> tuple[Float64, Float64]:
    """Twice the area and six times the volume (K,) of each of ``count`` parts of a closed mesh; ``labels`` (V,)."""
    if (loops := compiled_loops("meshes")) is not None:
        found: tuple[Float64, Float64] = loops.sizes(places, faces, labels, count)
        return found
    normals, first = face_normals(places, faces), faces[:, 0]
    areas = np.bincount(labels[first], weights=np.sqrt((normals**2).sum(0)), minlength=count)
    volumes = np.bincount(labels[first], weights=(normals * places.T[:, first]).sum(0), minlength=count)
    return areas.astype(np.float64), volumes.astype(np.float64)
