"""INPUT of the commands: a SEQUENCE, a rosbag2, or a folder of bags, behind one face."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nr_tracking.atomic import finished
from nr_tracking.config import RosConfig
from nr_tracking.data.scans import read_scans
from nr_tracking.data.sequence import GroundTruth, Sequence, is_sequence, read_sequence
from nr_tracking.evaluation.metrics import Mesh
from nr_tracking.tracking.rows import NO_STAMP
from nr_tracking.types import DepthFrame, Float64, InputError, Intrinsics

if TYPE_CHECKING:
    from nr_tracking.ros.bags import Recording as Bag


@dataclass(frozen=True)
class Unusable:
    """An image that cannot be used; ``stamp_ns`` is -1 where not even that is known."""

    error: InputError
    stamp_ns: int = NO_STAMP


@dataclass(frozen=True)
class Recording:
    """A depth recording. ``read(start, count)`` yields its frames, or what is wrong with them, one by one.

    ``notices`` are what the latest ``read`` found to be damaged beside them, such as a gap in a file. What the
    recording knows of the truth: ``ground_truth(start, count)``; ``true_surfaces(start, count)``, one for
    each frame, where those do not correspond over time; ``intrinsics`` of the camera that saw it, and
    ``poses(start, count)`` (T, 4, 4) camera -> world, if it moved.
    """

    name: str
    length: int
    read: Callable[[int, int | None], Iterator[DepthFrame | Unusable]]
    ground_truth: Callable[[int, int | None], GroundTruth | None]
    notices: list[str] = field(default_factory=list)
    true_surfaces: Callable[[int, int | None], list[Mesh] | None] = lambda start, count: None
    intrinsics: Intrinsics | None = None
    poses: Callable[[int, int | None], Float64 | None] = lambda start, count: None

    def count(self, start: int, count: int | None) -> int:
        """How many frames ``read`` will yield; :class:`InputError` where ``start`` is not in the recording."""
        if not 0 <= start < self.length:
            raise InputError("start_out_of_range", f"start {start}: {self.name} has frames 0 to {self.length - 1}")
        if count is not None and count < 1:
            raise InputError("no_frames", f"frames {count}: ask for at least one")
        return self.length - start if count is None else min(count, self.length - start)


def open_recordings(
    path: Path,
    *,
    depth_topic: str | None = None,
    camera_info_topic: str | None = None,
    every_camera: bool = False,
    ros: RosConfig | None = None,
    on_fault: Callable[[Path, InputError], None] | None = None,
) -> list[Recording]:
    """Open a SEQUENCE or a bag (one recording), or a folder of bags (one for each, by name).

    With ``every_camera`` each camera of a bag is a recording, named after the bag and its topic. No two have the same
    name. ``ros`` tells of the images in bags what they do not: the unit of integer depth, and whether they are
    rectified. Of several bags, those that cannot be opened go to ``on_fault``; without it the error is raised.
    """
    if not path.exists():
        raise InputError("no_such_path", f"there is no file or folder {path}")
    if is_sequence(path):
        return [_open_sequence(path)]
    try:
        from nr_tracking.ros.bags import find_bags, is_bag
    except ModuleNotFoundError as error:
        raise InputError(
            "missing_package",
            f"{path} is no SEQUENCE, and reading bags needs {error.name}: pip install 'rosbags>=0.11'",
        ) from None
    bags = [path] if is_bag(path) or not path.is_dir() else find_bags(path)
    if not bags:
        held = ", ".join(sorted(child.name for child in path.iterdir())[:8]) or "nothing"
        hint = ": use `nr_tracking batch` for a folder of SEQUENCEs" if any(map(is_sequence, finished(path))) else ""
        raise InputError(
            "no_recording",
            f"{path} is neither a SEQUENCE (camera.json, depth/) nor a rosbag2 (metadata.yaml) nor a folder of bags; "
            f"it holds {held}{hint}",
        )
    settings = ros or RosConfig()
    recordings: list[Recording] = []
    for bag in bags:
        try:
            if every_camera:
                recordings += _open_cameras(bag, settings)
            else:
                recordings.append(_open_bag(bag, depth_topic, camera_info_topic, settings))
        except InputError as error:
            if on_fault is None or len(bags) == 1:
                raise
            on_fault(bag, error)
    return _told_apart(recordings)


def _told_apart(recordings: list[Recording]) -> list[Recording]:
    """The same recordings; where several have one name, all but the first are numbered: topics /a/b and /a_b, say."""
    own = {recording.name for recording in recordings}
    taken: set[str] = set()
    named = []
    for recording in recordings:
        name, number = recording.name, 2
        while name in taken or (name in own and name != recording.name):
            name, number = f"{recording.name}_{number}", number + 1
        taken.add(name)
        named.append(replace(recording, name=name))
    return named


def name_of(path: Path) -> str:
    """The name by which a path was given, and not that of what a link leads to: many may lead to a folder `bag`."""
    return Path(os.path.abspath(path)).name


def _open_sequence(path: Path) -> Recording:
    sequence = read_sequence(path)
    return Recording(
        name_of(path),
        len(sequence),
        lambda start, count: frames_of(sequence, start, count),
        sequence.ground_truth,
        list(sequence.notices),
        true_surfaces=lambda start, count: scans_of(sequence, sequence.span(start, count)),
        intrinsics=sequence.intrinsics,
        poses=lambda start, count: (
            None if sequence.poses is None else sequence.poses[list(sequence.span(start, count))]
        ),
    )


def frames_of(sequence: Sequence, start: int, count: int | None) -> Iterator[DepthFrame | Unusable]:
    """The frames of a SEQUENCE, or what is wrong with them, one by one."""
    for index in sequence.span(start, count):
        try:
            frame: DepthFrame | Unusable = sequence.frame(index)
        except InputError as error:
            frame = Unusable(error, int(sequence.stamps_ns[index]))
        yield frame


def scans_of(sequence: Sequence, frames: Iterable[int]) -> list[Mesh] | None:
    """The true surfaces of ``frames`` of a SEQUENCE, where they do not correspond over time; None where they do."""
    scans = read_scans(sequence.path, frames)
    return None if scans is None else [Mesh(*scan) for scan in scans]


def _open_bag(path: Path, depth_topic: str | None, camera_info_topic: str | None, ros: RosConfig) -> Recording:
    from nr_tracking.ros.bags import open_recording

    bag = open_recording(
        path, depth_topic, camera_info_topic, depth_unit_m=ros.depth_unit_m, rectified=ros.image_rectified
    )
    return _recording_of(bag, name_of(path))


def _open_cameras(path: Path, ros: RosConfig) -> list[Recording]:
    from nr_tracking.ros.bags import open_cameras

    cameras = open_cameras(path, ros.depth_unit_m, ros.image_rectified)
    name = name_of(path)
    if len(cameras) == 1:
        return [_recording_of(cameras[0], name)]
    return [_recording_of(camera, f"{name}{camera.topics.depth.replace('/', '_')}") for camera in cameras]


def _recording_of(bag: Bag, name: str) -> Recording:
    notices: list[str] = []

    def read(start: int, count: int | None) -> Iterator[DepthFrame | Unusable]:
        notices.clear()
        faults: list[InputError] = []
        damaged = lambda damage: notices.append(str(damage))  # noqa: E731
        for frame in bag.frames(start, count, on_drop=faults.append, on_damage=damaged):
            yield from map(Unusable, faults)
            faults.clear()
            yield frame
        yield from map(Unusable, faults)

    return Recording(name, len(bag), read, lambda start, count: None, notices)
