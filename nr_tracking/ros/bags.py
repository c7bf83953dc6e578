"""Depth recordings as rosbag2 (mcap or sqlite3), read and written without ROS.

    recording = open_recording("recording")
    for frame in recording.frames():      # DepthFrame
        ...

A recording of a SEQUENCE written by :func:`write_bag` gives back the very same frames, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rosbags.interfaces import Connection
from rosbags.rosbag2 import StoragePlugin, Writer

from nr_tracking.atomic import finished, written_folder
from nr_tracking.ros.contents import Contents, Topics, read_contents
from nr_tracking.ros.conversions import Rectified, depth_frame, is_rectified
from nr_tracking.ros.messages import MESSAGE_TYPES, DepthEncoding, Kind, frame_messages
from nr_tracking.ros.pairing import FramePairing, Outcome
from nr_tracking.ros.storage import METADATA, is_bag_file, open_storage
from nr_tracking.ros.streams import Stream
from nr_tracking.ros.typestore import COMPRESSED, TYPES, decode, encode
from nr_tracking.types import DepthFrame, InputError

_WAITING = 10_000  # images, whose masks another program may have added far behind them
_WAITING_BYTES = 1 << 29  # of such images, and as much of masks
_STORAGE = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}


@dataclass(frozen=True)
class RecordedMessage:
    """One message as it was recorded: ``stamp_ns`` is when, ``data`` its CDR bytes."""

    kind: Kind
    stamp_ns: int
    data: bytes


@dataclass(frozen=True)
class Recording:
    """A rosbag2 with a depth stream, opened and checked; messages are read when they are asked for.

    ``damages`` tells what was found missing on opening, in words; more may come to light when it is read.
    """

    path: Path
    topics: Topics
    frame_id: str
    depth_unit_m: float
    damages: tuple[str, ...]
    compressed: bool
    rectified: bool
    _count: int

    def __len__(self) -> int:
        """Number of recorded depth images."""
        return self._count

    @property
    def depth_type(self) -> str:
        """The type of the depth messages: sensor_msgs/msg/Image, or CompressedImage."""
        return COMPRESSED if self.compressed else MESSAGE_TYPES["depth"]

    def messages(self, on_damage: Callable[[InputError], None] | None = None) -> Iterator[RecordedMessage]:
        """Depth images, camera infos and masks in the order of their recording.

        Whatever is missing is handed to ``on_damage`` as an InputError ``damaged_bag``; without it that is raised, at
        the end of what could be read.
        """
        kinds: dict[str, Kind] = {self.topics.depth: "depth", self.topics.camera_info: "camera_info"}
        if self.topics.mask:
            kinds[self.topics.mask] = "mask"
        damages: list[InputError] = []
        told = on_damage or damages.append
        storage = open_storage(self.path)
        for what in self.damages:
            told(_damaged(self.path, what))

        def found(what: str) -> None:
            if what not in self.damages:
                told(_damaged(self.path, what))

        for topic, stamp, data in storage.messages(kinds, found):
            yield RecordedMessage(kinds[topic], stamp, data)
        if damages:
            raise damages[0]

    def frames(
        self,
        start: int = 0,
        count: int | None = None,
        on_drop: Callable[[InputError], None] | None = None,
        on_damage: Callable[[InputError], None] | None = None,
    ) -> Iterator[DepthFrame]:
        """Decode ``count`` frames from ``start`` (None: to the end).

        A frame that cannot be used is handed to ``on_drop`` and left out. Word of any damage that the recording took
        and that is no frame's own (``damaged_bag``) goes to ``on_damage``, by default the same. Without ``on_drop`` the
        error is raised.
        """
        drop = on_drop or _raise
        told = on_damage or on_drop
        index = 0
        damages: list[InputError] = []
        for outcome in self._outcomes(damages.append):
            if damages and told is not None and index >= start:
                _hand_over(damages, told)
            index += 1
            if index <= start:
                continue
            try:
                if isinstance(outcome, InputError):
                    raise outcome
                yield depth_frame(outcome.image, outcome.info, outcome.mask, self.depth_unit_m, outcome.rectified)
            except InputError as error:
                drop(error)
            if count is not None and index == start + count:
                return
        _hand_over(damages, told or drop)

    def _outcomes(self, on_damage: Callable[[InputError], None]) -> Iterator[Outcome]:
        """What becomes of every image, in order."""
        pairing = FramePairing(
            expects_mask=self.topics.mask is not None,
            rectified=self.rectified,
            capacity=_WAITING,
            memory=_WAITING_BYTES,
        )
        take: dict[Kind, Callable[[Any], list[Outcome]]] = {
            "depth": pairing.image,
            "camera_info": pairing.info,
            "mask": pairing.mask,
        }
        types = {**MESSAGE_TYPES, "depth": self.depth_type}
        for message in self.messages(on_damage):
            try:
                decoded = decode(self.path, message.data, types[message.kind])
            except InputError as error:
                if message.kind == "depth":
                    yield error
                else:
                    on_damage(error)
                continue
            yield from take[message.kind](decoded)
        yield from pairing.flush()


def is_bag(path: str | Path) -> bool:
    """Whether ``path`` looks like a rosbag2: one of its files, or a folder with metadata.yaml or such files."""
    path = Path(path)
    if not path.is_dir():
        return is_bag_file(path)
    files = [child for child in path.iterdir() if is_bag_file(child)]
    # Without metadata, files named after the folder are one recording that was cut off; others are one each.
    return (path / METADATA).is_file() or any(file.name.startswith(f"{path.name}_") for file in files)


def find_bags(folder: str | Path) -> list[Path]:
    """The rosbag2 recordings directly below a folder, sorted by name."""
    return list(filter(is_bag, finished(Path(folder))))


def open_recording(
    path: str | Path,
    depth_topic: str | None = None,
    camera_info_topic: str | None = None,
    mask_topic: str | None = None,
    depth_unit_m: float = 0.001,
    rectified: Rectified = "auto",
) -> Recording:
    """Open a rosbag2 folder (or a single .mcap or .db3 file) and find its depth stream.

    Topics that are not named are found by type: the image topic with a depth encoding, the CameraInfo beside it, and a
    mask beside it whose name is ``mask``. Of several with depth encodings, 16UC1 and 32FC1 come before mono16, which
    infrared images have too; then one with a CameraInfo beside it, as maps of confidence do not have, the one with most
    messages, raw before compressed, the first by name. ``depth_unit_m`` is the unit of integer depth, and ``rectified``
    whether images are free of the lens.

    Raises:
        InputError: ``no_such_path``, ``corrupt_bag``, ``empty_bag``, ``no_depth_topic`` (lists what the recording
            holds) or ``no_camera_info``.
    """
    contents = read_contents(Path(path))
    depth = contents.depth_stream(depth_topic)
    return _recording(contents, depth, contents.topics(depth, camera_info_topic, mask_topic), depth_unit_m, rectified)


def open_cameras(path: str | Path, depth_unit_m: float = 0.001, rectified: Rectified = "auto") -> list[Recording]:
    """Open every camera of a recording: one for each CameraInfo that has depth images beside it, by topic.

    Raises:
        InputError: as :func:`open_recording`.
    """
    contents = read_contents(Path(path))
    by_camera: dict[str, Recording] = {}
    streams = contents.depth_streams()
    certain = [stream for stream in streams if not contents.may_be_infrared(stream)]
    for depth in certain or streams:
        try:
            topics = contents.topics(depth)
        except InputError:
            continue  # where no camera has one, open_recording says so
        if topics.camera_info not in by_camera:
            by_camera[topics.camera_info] = _recording(contents, depth, topics, depth_unit_m, rectified)
    if not by_camera:
        return [open_recording(path, depth_unit_m=depth_unit_m, rectified=rectified)]
    return sorted(by_camera.values(), key=lambda camera: camera.topics.depth)


def write_bag(
    path: str | Path,
    frames: Iterable[DepthFrame],
    storage: Literal["mcap", "sqlite3"] = "mcap",
    encoding: DepthEncoding | None = None,
    *,
    frame_id: str = "camera_depth_optical_frame",
    namespace: str = "/camera",
) -> Path:
    """Write frames as a rosbag2 folder, whole or not at all; an existing rosbag2 of that name is replaced.

    Topics are ``depth/image_raw``, ``depth/camera_info`` and, for frames with a mask, ``depth/mask`` below
    ``namespace``. ``encoding`` None takes 16UC1 for depth in whole millimetres and 32FC1 for any other, so that
    nothing is lost. Poses are not written: a moving camera belongs on TF.
    """
    path = Path(path)
    with written_folder(path, recognised_by=METADATA) as folder:
        inner = folder / path.name  # the writer insists on making its own folder
        with Writer(inner, version=9, storage_plugin=_STORAGE[storage]) as writer:
            connections: dict[Kind, Connection] = {}
            for frame in frames:
                for kind, message in frame_messages(frame, frame_id, encoding).items():
                    if kind not in connections:
                        topic = f"{namespace}/depth/{'image_raw' if kind == 'depth' else kind}"
                        connections[kind] = writer.add_connection(topic, MESSAGE_TYPES[kind], typestore=TYPES)
                    writer.write(connections[kind], frame.stamp_ns, encode(kind, message))
        if not connections:
            raise InputError("no_frames", f"{path}: there is no frame to write")
        for file in inner.iterdir():
            file.rename(folder / file.name)
        inner.rmdir()
    return path


def _recording(
    contents: Contents, depth: Stream, topics: Topics, depth_unit_m: float, rectified: Rectified
) -> Recording:
    return Recording(
        contents.path,
        topics,
        contents.frame_ids[depth.topic],
        depth_unit_m,
        contents.damages,
        depth.message_type == COMPRESSED,
        is_rectified(depth.topic, rectified),
        depth.count,
    )


def _damaged(path: Path, what: str) -> InputError:
    return InputError("damaged_bag", f"{path} is damaged, and what is left of it is used: {what}")


def _hand_over(damages: list[InputError], to: Callable[[InputError], None]) -> None:
    while damages:
        to(damages.pop(0))


def _raise(error: InputError) -> None:
    raise error
