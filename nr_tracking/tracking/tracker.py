"""Depth frames in, complete tracked surfaces out.

The whole algorithm, as :class:`Tracker` reads from :meth:`Tracker.push` on: the frames of a window are placed in one
cube, turned into sparse TSDFs and completed together by the network; each new frame's surface is taken out of its field
and cut into patches; the refinement carries the persistent tracks onto it, and where that is hard, it starts from the
network's guess of how the patches of the frame before have moved. After Merrouche, Wuhrer and Boyer 2024, with tracks
that outlive the window.
"""

from __future__ import annotations

import copy
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch

from nr_tracking.config import Config
from nr_tracking.deformation.decoder import DeformationDecoder
from nr_tracking.deformation.patches import PatchGraph, build_patches
from nr_tracking.deformation.prediction import PlacedFrame
from nr_tracking.fields.averaging import AveragedField
from nr_tracking.fields.completion import CompletionNetwork
from nr_tracking.fields.weights import load_weights, weights_path
from nr_tracking.sensing.background import BackgroundModel
from nr_tracking.sensing.camera import normalised
from nr_tracking.sensing.following import NO_SUBJECT, Sighting
from nr_tracking.sensing.rigid import Rigid, change_of_view, check_pose, fixed_frame
from nr_tracking.sensing.stamps import StampOrder, check_stamp
from nr_tracking.sensing.volume import Volume, fit_volume, follow
from nr_tracking.tracking.adaptation import DecoderAdapter, PatchedFrame
from nr_tracking.tracking.cues import network_cues
from nr_tracking.tracking.parallel import Workers
from nr_tracking.tracking.reconstruction import PendingWindow, Reconstructor, View, observe
from nr_tracking.tracking.timing import StageClock
from nr_tracking.tracking.tracks import PersistentTracks
from nr_tracking.tracking.velocities import MotionEstimator
from nr_tracking.tracking.window import SlidingWindow, Window
from nr_tracking.types import DepthFrame, Float64, InputError, Surface, TrackedFrame

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Networks:
    """What is learnt: ``completion`` makes surfaces, ``deformation`` moves their patches."""

    completion: CompletionNetwork
    deformation: DeformationDecoder


def load_networks(config: Config) -> Networks:
    """Build the networks of a configuration and fill them from its weights.

    Raises :class:`~nr_tracking.types.InputError` where the weights are missing, damaged or made for other settings.
    """
    networks = Networks(CompletionNetwork(config.model), DeformationDecoder(config.model))
    parts = {"completion": networks.completion, "deformation": networks.deformation}
    load_weights(weights_path(config), parts, preset=config.preset, model=config.model)
    networks.completion.hold_bfloat16(torch.device(config.device))
    return networks


@dataclass(frozen=True)
class _Step:
    """The newest tracked frame: what the next one starts from.

    ``frame`` knows its features; ``pose`` (4, 4) is the camera's, None for a static one.
    """

    frame: PlacedFrame
    surface: Surface
    graph: PatchGraph
    pose: Float64 | None


class _Shape(NamedTuple):
    """What one frame of a window gives by itself, and the time that it took."""

    surface: Surface
    graph: PatchGraph
    clock: StageClock


class _Completed(NamedTuple):
    """A window's fields, the new frames' surfaces on their way, and each frame's share of the time."""

    field: AveragedField
    volume: Volume
    shapes: list[Future[_Shape]]
    shared: dict[str, float]


class _Nothing(NamedTuple):
    """What becomes of an accepted frame that gets no result."""

    stamp_ns: int
    error: InputError


class Tracker:
    """Follows one subject through a stream of depth frames from one camera.

    Results come in order, one for each accepted frame in which a surface is found, a window at a time: all frames of
    the first one together, then ``window.stride`` at a time. ``networks`` replaces the weights on disk.

    ``on_ready``, for live use: with ``window.overlap``, :meth:`push` does not wait for the window it completes, but
    at most for the one before, so that the network completes a window while tracks follow the last one. Results are the
    same; they come with a later :meth:`push`, :meth:`collect` or :meth:`flush`, and ``on_ready`` is called, on another
    thread, for each that is there.

    ``on_another`` hears in words, during :meth:`push`, that its frame shows another subject than the one before.

    ``on_no_result`` hears, during :meth:`push`, :meth:`collect` or :meth:`flush`, of an accepted frame that gets no
    result: its stamp in nanoseconds, and the :class:`~nr_tracking.types.InputError` that says why (``no_surface``, or
    ``failure`` for each such frame of a window that failed).
    """

    def __init__(self, config: Config, networks: Networks | None = None) -> None:
        if not isinstance(config, Config):
            made = f"Tracker(load_config({config!r}))" if isinstance(config, str) else "Tracker(load_config())"
            raise TypeError(f"a Tracker takes a Config, not {type(config).__name__}: {made}")
        self.config = config
        self.networks = networks = networks or load_networks(config)
        self.on_ready: Callable[[], None] | None = None
        self.on_another: Callable[[str], None] | None = None
        self.on_no_result: Callable[[int, InputError], None] | None = None
        self.windows = 0  # begun in all
        self._workers = Workers(torch.get_num_threads() if config.device == "cpu" else 1)
        self._completing, self._following = self._workers.in_line(), self._workers.in_line()
        self._running: deque[Future[None]] = deque()
        self._results: deque[TrackedFrame | _Nothing] = deque()
        self._reconstructor = Reconstructor(config, networks.completion, self._workers)
        self._decoder = networks.deformation.to(self._reconstructor.device).eval()
        adapts = config.refinement.adaptation_steps > 0 and config.deformation.backend != "none"
        if adapts:  # other trackers may share the networks
            self._decoder = copy.deepcopy(self._decoder)
        self._adapter = DecoderAdapter(self._decoder, config) if adapts else None
        self._window: SlidingWindow[View] = SlidingWindow(config.window_frames, config.window.stride)
        self._order = StampOrder()
        self._background = BackgroundModel()
        self._tracks = PersistentTracks(config.refinement, config.tracks, device=config.device)
        self.reset()

    def reset(self, keep_background: bool = False) -> None:
        """Forget the subject, and its surroundings unless ``keep_background``; tracks begin anew, in a new cube."""
        if not keep_background:
            self._background.forget()
        wait(self._running)
        self._running.clear()
        self._results.clear()
        self._window.clear()
        self._reconstructor.forget()
        self._order.forget()
        self._volume: Volume | None = None
        self._sighting: Sighting | None = None
        self._tracks = PersistentTracks(
            self.config.refinement, self.config.tracks, self._tracks.next_id, self.config.device, self._tracks.watch
        )
        self._last: _Step | None = None
        self._to_first: Rigid | None = None  # from the fixed frame to the camera of the first tracked frame
        self._estimator = MotionEstimator()
        if self._adapter is not None:
            self._adapter.reset()

    @property
    def next_id(self) -> int:
        """The first track id that was never used; a tracker that takes the place of another one is given its."""
        return self._tracks.next_id

    @next_id.setter
    def next_id(self, first: int) -> None:
        self._tracks.next_id = first

    @property
    def subject_size_m(self) -> float:
        """Longest edge of the box of what was seen of the subject last, metres; 0 before there was one."""
        return 0.0 if self._sighting is None else self._sighting.size_m

    def push(self, frame: DepthFrame) -> list[TrackedFrame]:
        """Take a frame; returns the results that it completes, none of them newer than it.

        A stamp far back in time (a recording that starts again), or a subject where the one before cannot have got to,
        finishes what was begun and starts anew. Raises :class:`~nr_tracking.types.InputError` for a frame that cannot
        be used; no result is changed by it and the next frame may come. Any other exception, here, of :meth:`collect`
        or of :meth:`flush`, says that a window failed, as when memory runs out: :meth:`reset` before the next frame,
        which gives up what was begun. The frame's arrays are copied: the caller may fill them anew.
        """
        check_stamp(frame.stamp_ns)
        check_pose(frame.pose)
        restarted = self._order.jumped_back(frame.stamp_ns)
        seen = None if restarted else self._sighting
        if seen is not None and (seen.pose is None) != (frame.pose is None):
            raise InputError(
                "bad_pose", "frames with and without a pose of the camera cannot follow each other: reset the tracker"
            )
        if restarted:  # it may be another recording
            self._background.forget()
        frame = normalised(frame)
        view = self._observe(frame, seen)
        another = seen is not None and self._is_another(view, seen)
        results = []
        if restarted or another:
            results = self.flush()
            self.reset(keep_background=True)
        self._order.accept(frame.stamp_ns)
        self._sighting = Sighting.of(view.cloud, frame.pose, frame.stamp_ns, None if another else seen, view.area)
        self._reconstructor.begin(view, self._volume)  # the next window's cube is nearly always that of the last one
        if window := self._window.push(view):
            self._begin(window)
        return results + self._finished(most_running=1 if self._ready is not None else 0)

    def _observe(self, frame: DepthFrame, seen: Sighting | None) -> View:
        """Find the subject, near where it was ``seen`` if there is something."""
        place = known = None
        if seen is not None:
            place, known = seen.place_for(frame.pose), seen.known_for(frame.pose, frame.stamp_ns)
        try:
            return observe(frame, self.config.subject, place, known, self._background)
        except InputError as error:
            if seen is not None and error.reason in NO_SUBJECT:
                self._sighting = seen.missed(frame.stamp_ns)
            raise

    def _is_another(self, view: View, seen: Sighting) -> bool:
        """Whether a view shows another subject than the one that was ``seen``; tells of it."""
        stamp = view.frame.stamp_ns
        distance, reach = seen.distance(view.cloud, view.frame.pose, stamp), seen.reach(stamp)
        if distance <= reach:
            return False
        if self.on_another is not None:
            gone_s = (stamp - seen.stamp_ns) / 1e9
            self.on_another(f"another subject, {distance:.2f} m from where the last one was {gone_s:.2f} s before")
        return True

    @property
    def _ready(self) -> Callable[[], None] | None:
        """Whom to tell of results, where windows overlap; otherwise :meth:`push` waits for them itself."""
        return self.on_ready if self.config.window.overlap else None

    def collect(self) -> list[TrackedFrame]:
        """What is finished by now, without waiting; see ``on_ready``."""
        return self._finished(most_running=len(self._running))

    def flush(self) -> list[TrackedFrame]:
        """Finish the frames that wait for a full window; returns all results that are still to come."""
        if window := self._window.flush():
            self._begin(window)
        return self._finished(most_running=0)

    def _begin(self, window: Window[View]) -> None:
        """Begin to complete a window; its frames are followed when those of the last one have been."""
        self.windows += 1
        volume = self._place_volume(window)
        pending = self._reconstructor.window(window.items, volume, window.new)
        completed = self._completing.submit(self._complete, window, pending, volume)
        self._running.append(self._following.submit(self._follow_all, window, completed))

    def _finished(self, most_running: int) -> list[TrackedFrame]:
        """All results there are, once no more than ``most_running`` windows are under way."""
        try:
            while self._running and (self._running[0].done() or len(self._running) > most_running):
                self._running.popleft().result()
        except Exception:
            self._results.extendleft(reversed(self._told()))  # what was finished before is still to be had
            raise
        return self._told()

    def _told(self) -> list[TrackedFrame]:
        """Take the results that are there, and tell of the frames that have none."""
        outcomes = [self._results.popleft() for _ in range(len(self._results))]
        for outcome in outcomes:
            if isinstance(outcome, _Nothing) and self.on_no_result is not None:
                self.on_no_result(*outcome)
        return [outcome for outcome in outcomes if isinstance(outcome, TrackedFrame)]

    def _complete(self, window: Window[View], pending: PendingWindow, volume: Volume) -> _Completed:
        """Complete a window, and begin with the surfaces of its new frames."""
        clock = StageClock()
        try:
            field = self._reconstructor.complete(pending, clock)
        except InputError as error:  # its frames were accepted one by one: it is nothing that is wrong with the last
            raise RuntimeError(f"a window cannot be completed: {error}") from error
        shapes = [
            self._workers.submit(self._shape, field, index, view, volume) for index, view in enumerate(window.fresh)
        ]
        return _Completed(field, volume, shapes, clock.share(window.new))

    def _follow_all(self, window: Window[View], completing: Future[_Completed]) -> None:
        """Follow the new frames of a window; where that fails, those without an outcome by then have none."""
        left = [view.frame.stamp_ns for view in window.fresh]
        try:
            self._follow_each(window, completing.result(), left)
        except Exception as error:
            failure = InputError("failure", f"its window failed: {type(error).__name__}: {error}")
            self._results.extend(_Nothing(stamp_ns, failure) for stamp_ns in left)
            raise

    def _follow_each(self, window: Window[View], completed: _Completed, left: list[int]) -> None:
        """Follow the frames one by one, while surfaces of later ones are made; those handed on are ``left`` no more."""
        field, volume, shapes, shared = completed
        last: TrackedFrame | None = None
        for index, (view, shape) in enumerate(zip(window.fresh, shapes, strict=True)):
            try:
                result = self._follow(view.frame, PlacedFrame(field.first, volume, index), shape.result())
            except InputError as error:
                _LOG.warning("no result for stamp %.3f s: %s", view.frame.stamp_ns / 1e9, error)
                self._hand_on(_Nothing(view.frame.stamp_ns, error), left)
                continue
            if last is not None:  # how its patches move is known with the next frame
                assert result.previous_patches is not None
                self._hand_on(replace(last, patches=result.previous_patches), left)
            last = replace(result, timings=shared | result.timings)
        if last is not None:
            self._hand_on(last, left)

    def _hand_on(self, result: TrackedFrame | _Nothing, left: list[int]) -> None:
        self._results.append(result)
        left.remove(result.stamp_ns)
        if (ready := self._ready) is not None:
            ready()

    def _place_volume(self, window: Window[View]) -> Volume:
        """The cube of a window, fitted to all that its frames saw of the subject."""
        cloud = np.concatenate([view.cloud for view in window.items])
        if self._volume is None:
            self._volume = fit_volume(cloud, self.config.volume)
        else:
            self._volume = follow(self._volume, cloud, self.config.volume)
        return self._volume

    def _shape(self, field: AveragedField, index: int, view: View, volume: Volume) -> _Shape:
        """Reconstruct frame ``index`` of a field on its own."""
        clock = StageClock()
        with clock("mesh"):
            surface = self._reconstructor.surface(field, index, view, volume)
        with clock("patches"):
            patching = self.config.deformation
            graph = build_patches(surface.vertices, surface.faces, patching.patches, patching.hierarchy)
        return _Shape(surface, graph, clock)

    def _follow(self, frame: DepthFrame, placed: PlacedFrame, shape: _Shape) -> TrackedFrame:
        """Bring the tracks onto the surface of a frame."""
        surface, graph, clock = shape
        stamp, pose, last, arrived = frame.stamp_ns, frame.pose, self._last, None
        if last is None:
            with clock("tracks"):
                tracks = self._tracks.start(surface, stamp)
        else:
            if self._adapter is not None and last.frame.volume.coincides_with(placed.volume):
                with clock("adapt"):
                    pair = (last.frame, last.surface, last.graph), (placed, surface, graph)
                    self._adapter.adapt([_patched(*one) for one in pair])
            change = change_of_view(last.pose, pose)
            cues = network_cues(
                self.config.deformation, self._decoder, (last.frame, last.graph), last.surface, (placed, graph), change
            )
            with clock("tracks"):
                self._tracks.moved_camera(change)
                tracks = self._tracks.advance(surface, stamp, cues)
                arrived = self._tracks.patches(last.surface, last.graph)
        with clock("tracks"):
            # As the first camera would have seen it: a moving camera is no motion of the subject, and the origin of the
            # fixed frame may be so far away that single precision tells nothing of it.
            here = fixed_frame(pose)
            if self._to_first is None:
                self._to_first = here.inverse()
            fixed = self._to_first.after(here)
            places, speeds = fixed.points(tracks.positions), fixed.vectors(tracks.velocities)
            self._estimator.observe(tracks.ids, places.astype(np.float32), stamp, speeds.astype(np.float32))
            velocities = fixed.inverse().vectors(self._estimator.velocities)
            tracks = replace(tracks, velocities=velocities.astype(np.float32))
        with clock("trace"):
            canonical, previous = self._tracks.trace(surface)
        self._last = _Step(placed, surface, graph, pose)
        return TrackedFrame(
            stamp_ns=stamp,
            surface=surface,
            patches=graph.at_rest(),
            tracks=tracks,
            canonical=canonical,
            previous=previous,
            timings=clock.seconds,
            previous_patches=arrived,
            pose=frame.pose,
            nodes=self._tracks.nodes(),
        )


def _patched(frame: PlacedFrame, surface: Surface, graph: PatchGraph) -> PatchedFrame:
    return PatchedFrame.of(frame.field, frame.index, surface, graph, frame.volume)
