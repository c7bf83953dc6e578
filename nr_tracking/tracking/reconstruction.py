"""From depth frames to complete surfaces: each frame on its own, then all of a window together.

    view = observe(frame, config)                        which pixels, which points
    window = reconstructor.window(views, volume, new)    each frame's part of the network's work, begun
    field = reconstructor.complete(window, clock)        the network's distance fields of the window's new frames
    surface = reconstructor.surface(field, i, view, volume)

Everything in metres in the camera optical frame, but for the field, which lives in the box coordinates of its volume.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

import numpy as np
import torch

from nr_tracking.config import Config, SubjectConfig
from nr_tracking.fields.averaging import AveragedField, PlacedField
from nr_tracking.fields.completion import CompletionNetwork
from nr_tracking.fields.field import FieldWindow
from nr_tracking.fields.fusion import FrameCodes
from nr_tracking.fields.meshing import extract_surface
from nr_tracking.fields.ray_window import RayWindow
from nr_tracking.fields.rays import RayField, joined_fields
from nr_tracking.sensing.background import BackgroundModel
from nr_tracking.sensing.camera import check_frame, rectify, thinned_points
from nr_tracking.sensing.emptiness import EmptySpace
from nr_tracking.sensing.passers import Known
from nr_tracking.sensing.ray_images import RayImages, joined, place_in, ray_cube, ray_image
from nr_tracking.sensing.subject import find_subject
from nr_tracking.sensing.tsdf import SparseTsdf, TsdfWindow, make_window, projective_tsdf, seen_space
from nr_tracking.sensing.visibility import confidence_of, observed_points
from nr_tracking.sensing.volume import Volume, neighbouring_cubes
from nr_tracking.tracking.frames_ahead import FramesAhead
from nr_tracking.tracking.parallel import Workers
from nr_tracking.tracking.timing import StageClock
from nr_tracking.types import Bool, DepthFrame, Float32, InputError, Surface

_CLOUD_POINTS = 20_000
_SEEN_VOXELS = 1.5  # a vertex within this many voxels of the measured depth counts as seen


@dataclass(frozen=True)
class View:
    """A frame as the tracker uses it.

    ``frame`` has no lens distortion; ``mask`` (H, W) is True on the subject; ``cloud`` (N, 3) float32 metres are its
    points, evenly thinned.
    """

    frame: DepthFrame
    mask: Bool
    cloud: Float32

    @property
    def area(self) -> float:
        """What is seen of the subject, in square metres across the view."""
        camera, depth = self.frame.intrinsics, self.cloud[:, 2].astype(np.float64)
        return float(np.count_nonzero(self.mask) * (depth**2).mean() / (camera.fx * camera.fy))

    @property
    def subject_depth(self) -> Float32:
        """The depth image (H, W) with 0 wherever the subject is not."""
        return np.where(self.mask, self.frame.depth, np.float32(0.0))


@dataclass(frozen=True)
class FrameInput:
    """The input of the network in the cube that one frame gives: TSDF voxels, seen space; and the seconds by stage."""

    voxels: SparseTsdf
    seen: torch.Tensor
    seconds: dict[str, float]


@dataclass(frozen=True)
class FrameRays:
    """The signed distances along the rays of one frame, in a cube of its own, and the seconds by stage."""

    field: RayField
    cube: Volume
    seconds: dict[str, float]

    def seen_from(self, window: Volume) -> RayField:
        """The same in the box coordinates of a window's cube."""
        return replace(self.field, place=place_in(window, self.cube).to(self.field.place))


@dataclass(frozen=True)
class PendingWindow:
    """A window whose frames are being worked on: in their own cubes, and in the first of the window's ``cubes``.

    The last ``new`` of its frames are to be completed; to the others, which earlier windows completed, they attend.
    """

    views: Sequence[View]
    new: int
    cubes: Sequence[Volume]
    rays: Sequence[Future[FrameRays]]
    inputs: Sequence[Future[FrameInput]]


def observe(
    frame: DepthFrame,
    config: SubjectConfig,
    place: Float32 | None = None,
    known: Known | None = None,
    background: BackgroundModel | None = None,
) -> View:
    """Check a frame, undo its lens, and find the subject in it, which was at ``place`` (3,) metres before, if known.

    What is ``known`` of it besides tells it from others that pass it, and the ``background`` model, which learns from
    the frame, from what was there before.

    Raises :class:`~nr_tracking.types.InputError` for a frame that cannot be used, with the reason.
    """
    frame = rectify(check_frame(frame))
    mask = find_subject(frame, config, place, known, background)
    cloud = thinned_points(mask, frame.depth, frame.intrinsics, _CLOUD_POINTS)
    if (cloud == cloud[0]).all():
        raise InputError("no_subject", "the subject is a single point: come nearer, or raise subject.minimum_pixels")
    return View(frame, mask, cloud)


class Reconstructor:
    """Runs the completion network on windows of views and takes surfaces out of its fields.

    ``workers`` complete the cubes of a window side by side.
    """

    def __init__(self, config: Config, network: CompletionNetwork, workers: Workers) -> None:
        self.config = config
        self.device = torch.device(config.device)
        self.network = network.to(self.device).eval()
        self._workers = workers
        self._ahead: FramesAhead[View, FrameInput] = FramesAhead()
        self._rays_ahead: FramesAhead[View, FrameRays] = FramesAhead()
        self._codes: list[tuple[View, Volume, FrameCodes]] = []  # of the last window's frames

    def begin(self, view: View, volume: Volume | None) -> None:
        """Start working on a frame while its window fills; it will probably be completed in ``volume``, if known."""
        if self.config.model.rays:
            self._rays_ahead.start(view, None, self._rays, self._workers)
        if volume is not None and not self.config.model.rays_alone:
            self._ahead.start(view, volume, self._input, self._workers)

    def forget(self) -> None:
        """Forget frames that were begun."""
        self._ahead.forget()
        self._rays_ahead.forget()
        self._codes.clear()

    def window(self, views: Sequence[View], volume: Volume, new: int | None = None) -> PendingWindow:
        """The frames of a window on their way to :meth:`complete`; what was not begun is begun now.

        The last ``new`` of them are to be completed, all unless it is given.
        """
        cubes = neighbouring_cubes(volume, self.config.volume.cubes)
        rays = self._rays_ahead.take(views, None, self._rays, self._workers) if self.config.model.rays else []
        inputs = [] if self.config.model.rays_alone else self._ahead.take(views, volume, self._input, self._workers)
        return PendingWindow(views, len(views) if new is None else new, cubes, rays, inputs)

    def complete(self, window: PendingWindow, clock: StageClock) -> AveragedField:
        """The distance fields of a window, one for each new view, in the box coordinates of its volume.

        They are the mean over ``volume.cubes`` completions, of which the first is in the window's volume itself. With
        ``model.ray_share`` at 1 they are known along the rays already.
        """
        rays = [part.result() for part in window.rays]
        for part in rays:
            _count(part.seconds, clock)
        if self.config.model.rays_alone:
            along = joined_fields([part.seen_from(window.cubes[0]) for part in rays[-window.new :]])
            features = FeaturesLater(self, window.views, rays, window.cubes[0], window.new)
            field = RayWindow(along, self.config.model.resolution, features)
            return AveragedField([PlacedField(field, window.cubes[0])])
        inputs = [part.result() for part in window.inputs]
        cubes, earlier = window.cubes, len(window.views) - window.new
        known = self._codes_of(window.views[:earlier], cubes[0])
        futures = [self._workers.submit(self._completed, inputs, rays, cubes[0], clock, earlier, known)]
        futures += [
            self._workers.submit(self._completed_anew, window.views, rays, cube, clock, earlier) for cube in cubes[1:]
        ]
        fields = [future.result() for future in futures]
        self._keep_codes(window, fields[0])
        return AveragedField([PlacedField(field, cube) for field, cube in zip(fields, cubes, strict=True)])

    def completed_in_cube(
        self, views: Sequence[View], rays: Sequence[FrameRays], volume: Volume, new: int
    ) -> FieldWindow:
        """The fields of the last ``new`` of ``views`` by the network in the cube; they attend to all ``views``."""
        return self._completed_anew(views, rays, volume, StageClock(), len(views) - new)

    def _codes_of(self, views: Sequence[View], cube: Volume) -> FrameCodes | None:
        """What earlier windows found out about ``views`` in the same cube, None unless that is all of them."""
        there = [(view, codes) for view, where, codes in self._codes if where.coincides_with(cube)]
        known = [codes for view in views for other, codes in there if other is view]
        return FrameCodes.joined(known) if views and len(known) == len(views) else None

    def _keep_codes(self, window: PendingWindow, field: FieldWindow) -> None:
        """Keep what later windows may attend to."""
        assert field.codes is not None
        self._codes = [(view, window.cubes[0], field.codes.of(index)) for index, view in enumerate(window.views)]

    def _completed_anew(
        self, views: Sequence[View], rays: Sequence[FrameRays], volume: Volume, clock: StageClock, earlier: int
    ) -> FieldWindow:
        """The network's fields in a cube that no frame was begun in."""
        return self._completed([self._input(view, volume) for view in views], rays, volume, clock, earlier)

    @torch.no_grad()
    def _completed(
        self,
        inputs: Sequence[FrameInput],
        rays: Sequence[FrameRays],
        volume: Volume,
        clock: StageClock,
        earlier: int,
        known: FrameCodes | None = None,
    ) -> FieldWindow:
        """The network's fields in one cube, of all but the ``earlier`` frames, whose codes may be ``known``."""
        for part in inputs:
            _count(part.seconds, clock)
        with clock("network"):
            if earlier and known is None:
                known = self.network.encode(*_seen_in(volume, inputs[:earlier], rays[:earlier])).codes
            window, along = _seen_in(volume, inputs[earlier:], rays[earlier:])
            return self.network(window, rays=along, earlier=known)

    @torch.no_grad()
    def _input(self, view: View, volume: Volume) -> FrameInput:
        """What a frame gives in a cube that does not depend on the other frames of its window."""
        clock = StageClock()
        with clock("tsdf"):
            voxels, seen = _seen_by(view, volume, self.config, self.device)
        return FrameInput(voxels, seen, clock.seconds)

    @torch.no_grad()
    def _rays(self, view: View, _: None) -> FrameRays:
        """What the network says along the rays of a frame, whatever its window's cube will be."""
        clock = StageClock()
        with clock("rays"):
            cube = ray_cube(view.cloud, self.config.volume)
            field = self.network.complete_rays(_along_rays(view, cube, self.config, self.device))
        return FrameRays(field, cube, clock.seconds)

    @torch.no_grad()
    def surface(self, field: AveragedField, index: int, view: View, volume: Volume) -> Surface:
        """The complete surface of frame ``index`` of a field, in metres in the camera frame of its view."""
        bound = None
        if self.config.mesh.carve:
            bound = EmptySpace(*_images(view, self.device), view.frame.intrinsics, volume)
        voxel = volume.side / self.config.model.resolution
        depth = view.subject_depth

        def seen(points: Float32) -> Bool:
            return observed_points(volume.to_metric(points), depth, view.frame, _SEEN_VOXELS * voxel)

        vertices, faces = extract_surface(field, index, self.config.mesh, bound, seen)
        points, observed = volume.to_metric(vertices), seen(vertices)
        return Surface(points, faces, confidence_of(points, observed, depth, view.frame, voxel), observed)


@dataclass(frozen=True)
class FeaturesLater:
    """The network in the cube, to be run on a window when its features are asked for.

    ``rays`` of all ``views``, of which the last ``new`` are to be completed in the cube ``volume``.
    """

    reconstructor: Reconstructor
    views: Sequence[View]
    rays: Sequence[FrameRays]
    volume: Volume
    new: int

    def field(self) -> FieldWindow:
        """Run it."""
        return self.reconstructor.completed_in_cube(self.views, self.rays, self.volume, self.new)


def _seen_in(
    volume: Volume, inputs: Sequence[FrameInput], rays: Sequence[FrameRays]
) -> tuple[TsdfWindow, RayField | None]:
    """The network's input for frames of one window in its cube."""
    window = make_window([(part.voxels, part.seen) for part in inputs])
    return window, joined_fields([part.seen_from(volume) for part in rays]) if rays else None


def _count(seconds: dict[str, float], clock: StageClock) -> None:
    """Count the time that a frame took, once: two windows may share it."""
    clock.add(seconds)
    seconds.clear()


def tsdf_window(views: Sequence[View], volume: Volume, config: Config, device: torch.device) -> TsdfWindow:
    """The network's input: what each of ``views`` saw of the cube ``volume``."""
    rays = None
    if config.model.rays:
        cubes = [ray_cube(view.cloud, config.volume) for view in views]
        rays = joined(
            [_along_rays(view, cube, config, device, volume) for view, cube in zip(views, cubes, strict=True)]
        )
    return make_window([_seen_by(view, volume, config, device) for view in views], rays=rays)


def _seen_by(view: View, volume: Volume, config: Config, device: torch.device) -> tuple[SparseTsdf, torch.Tensor]:
    """Voxels and seen space of one frame."""
    depth, mask = _images(view, device)
    camera, resolution = view.frame.intrinsics, config.model.resolution
    voxels = projective_tsdf(depth, mask, camera, volume, resolution, config.tsdf.truncation_voxels)
    return voxels, seen_space(depth, mask, camera, volume, resolution // 4)


def _along_rays(
    view: View, cube: Volume, config: Config, device: torch.device, window: Volume | None = None
) -> RayImages:
    """The image of one frame along the rays of its own cube."""
    return ray_image(*_images(view, device), view.frame.intrinsics, cube, config.model.ray_pixels, window)


def _images(view: View, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Depth and mask of a view, (H, W) each."""
    return torch.from_numpy(view.frame.depth).to(device), torch.from_numpy(view.mask).to(device)
