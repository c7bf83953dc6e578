"""Where frames are to each other, by TF, and results seen from another frame."""

from __future__ import annotations

import importlib
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.time import Time
from scipy.spatial.transform import Rotation

from nr_tracking.types import Float64, InputError, Patches, TrackedFrame


class Transforms:
    """Looks transforms up with tf2_ros; without that package every look-up is an InputError that says so.

    They are remembered for ``kept_s`` of their own time. A clock that goes back begins a memory of its own, since the
    one before would refuse what is older; that one serves whatever is still under way, until :meth:`caught_up`.

    TF is heard from :meth:`listen` on, or from the first look-up: everything that anybody tells goes through Python.
    """

    def __init__(self, node: Node, timeout_s: float, kept_s: float = 10.0) -> None:
        self._node = node
        self._listening = threading.Lock()
        self._destroyed = False
        self._timeout, self._kept = Duration(seconds=timeout_s), Duration(seconds=kept_s)
        self._listener: Any = None
        self._buffer: Any = None
        self._earlier: deque[Any] = deque()  # buffers of before the clock went back, oldest first
        self._fixed: dict[str, tuple[Any, str]] = {}  # what never changes is told once, and holds in every buffer
        try:
            self._tf2 = importlib.import_module("tf2_ros")
        except ImportError:  # the wheels of ROS from pip do not include it
            return
        self._buffer = self._tf2.Buffer(cache_time=self._kept)

    def listen(self) -> None:
        """Hear what TF tells from now on; nothing where it is heard already, or cannot be."""
        with self._listening:
            if self._listener is None and self._buffer is not None and not self._destroyed:
                self._listener = self._tf2.TransformListener(self, self._node)

    def set_transform(self, transform: Any, authority: str) -> None:
        """Take what the listener heard, as a buffer would."""
        self._buffer.set_transform(transform, authority)

    def set_transform_static(self, transform: Any, authority: str) -> None:
        """Take what the listener heard of frames that do not move to each other, as a buffer would."""
        self._fixed[transform.child_frame_id] = transform, authority
        self._buffer.set_transform_static(transform, authority)

    def look_up(self, target: str, source: str, stamp_ns: int, *, newest: bool = False) -> Float64:
        """The transform (4, 4) that takes points of frame ``source`` at a time to frame ``target``.

        With ``newest`` by what was heard since the clock went back for the last time.

        Raises:
            InputError: ``no_transform``, with what TF says.
        """
        if target == source:
            return np.eye(4)
        if self._buffer is None:
            raise InputError("no_transform", f"{target} cannot be looked up: the package tf2_ros is not installed")
        self.listen()
        buffer = self._buffer if newest or not self._earlier else self._earlier[0]
        try:
            found = buffer.lookup_transform(target, source, Time(nanoseconds=stamp_ns), self._timeout)
        except Exception as error:  # tf2 has half a dozen kinds without a base of their own
            raise InputError("no_transform", f"no transform from {source!r} to {target!r}: {error}") from None
        return matrix(found.transform)

    def clock_jumped_back(self) -> None:
        """Begin anew with what is heard from now on."""
        if self._buffer is None:
            return
        buffer = self._tf2.Buffer(cache_time=self._kept)
        for transform, authority in list(self._fixed.values()):
            buffer.set_transform_static(transform, authority)
        self._earlier.append(self._buffer)
        self._buffer = buffer

    def caught_up(self) -> None:
        """Forget what was heard before the clock went back, the oldest such time of several."""
        if self._earlier:
            self._earlier.popleft()

    def destroy(self) -> None:
        """Take the subscriptions to TF away."""
        with self._listening:
            self._destroyed = True
            if self._listener is not None:
                self._listener.unregister()
                self._listener = None


class Located:
    """Puts results into a target frame; ``on_failure`` hears, once in a row, of those that cannot be put there."""

    def __init__(self, transforms: Transforms, target: str, on_failure: Callable[[str], None]) -> None:
        self._transforms = transforms
        self._target = target
        self._on_failure = on_failure
        self._failing = False
        self._before: Float64 | None = None  # camera -> target of the result before; None where it is not known

    def __call__(self, frame: TrackedFrame, frame_id: str) -> tuple[TrackedFrame, str] | None:
        """The result and the frame that it is in; None where TF does not know: nothing is told in a wrong frame."""
        if not self._target:
            return frame, frame_id
        try:
            to = self._transforms.look_up(self._target, frame_id, frame.stamp_ns)
        except InputError as error:
            self._before = None
            if not self._failing:
                self._on_failure(f"{error.reason}: nothing is published in ros.target_frame: {error}")
            self._failing = True
            return None
        self._failing = False
        before, self._before = self._before, to
        return transformed(frame, to, before), self._target


def matrix(transform: Any) -> Float64:
    """A geometry_msgs/Transform as (4, 4)."""
    turn, shift = transform.rotation, transform.translation
    result = np.eye(4)
    result[:3, :3] = Rotation.from_quat([turn.x, turn.y, turn.z, turn.w]).as_matrix()
    result[:3, 3] = shift.x, shift.y, shift.z
    return result


def transformed(frame: TrackedFrame, to: Float64, before: Float64 | None) -> TrackedFrame:
    """A result seen from another frame: ``to`` (4, 4) takes camera points there. Its colours stay.

    ``before`` did so for the result before, which patches come from: a camera that turned meanwhile is no motion of
    theirs. Where it is None, that motion is left out. Motions to the next result are as of a camera at rest.
    """

    def points(values: Any, to: Float64 = to) -> Any:
        return (values @ to[:3, :3].T + to[:3, 3]).astype(values.dtype)

    def patches(values: Patches, source: Float64) -> Patches:
        return replace(
            values,
            centres=points(values.centres, source),
            rotations=(to[:3, :3] @ values.rotations @ source[:3, :3].T).astype(values.rotations.dtype),
            translations=points(values.translations),
        )

    arrived = frame.previous_patches
    tracks, nodes = frame.tracks, frame.nodes
    if nodes is not None:
        turned = (to[:3, :3] @ nodes.rotations).astype(nodes.rotations.dtype)
        nodes = replace(nodes, positions=points(nodes.positions), rotations=turned)
    return replace(
        frame,
        surface=replace(frame.surface, vertices=points(frame.surface.vertices)),
        tracks=replace(
            tracks,
            positions=points(tracks.positions),
            velocities=(tracks.velocities @ to[:3, :3].T).astype(tracks.velocities.dtype),
        ),
        patches=patches(frame.patches, to),
        previous=points(frame.previous),
        previous_patches=None if arrived is None or before is None else patches(arrived, before),
        nodes=nodes,
    )
