"""Depth recordings as rosbag2 (mcap or sqlite3), read and written without ROS.

    recording = open_recording("recording")
    for frame in recording.frames():      # DepthFrame
        ...

A recording of a SEQUENCE written by :func:`write_bag` gives back the very same frames, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rosbags.interfaces import Connection
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from nr_tracking.atomic import written_folder
from nr_tracking.ros.compressed import TRANSPORT, is_lossless, raw_image
from nr_tracking.ros.conversions import DEPTH_ENCODINGS, MASK_ENCODINGS, depth_frame, is_rectified
from nr_tracking.ros.messages import MESSAGE_TYPES, DepthEncoding, Kind, frame_messages, image_message
from nr_tracking.ros.pairing import FramePairing, Outcome
from nr_tracking.ros.storage import METADATA, Storage, is_bag_file, open_storage
from nr_tracking.ros.streams import Stream
from nr_tracking.types import DepthFrame, InputError

TYPES = get_typestore(Stores.ROS2_KILTED)
_IMAGE, _CAMERA_INFO = MESSAGE_TYPES["depth"], MESSAGE_TYPES["camera_info"]
_COMPRESSED = "sensor_msgs/msg/CompressedImage"
_STORAGE = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}
_TRIES = 20  # messages of a topic that may be damaged before its encoding counts as unknown


@dataclass(frozen=True)
class Topics:
    """Names of the topics that make up a depth recording."""

    depth: str
    camera_info: str
    mask: str | None = None


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
    _count: int

    def __len__(self) -> int:
        """Number of recorded depth images."""
        return self._count

    @property
    def depth_type(self) -> str:
        """The type of the depth messages: sensor_msgs/msg/Image, or CompressedImage."""
        return _COMPRESSED if self.compressed else _IMAGE

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
        rectified = is_rectified(self.topics.depth)
        pairing = FramePairing(expects_mask=self.topics.mask is not None, rectified=rectified)
        take: dict[Kind, Callable[[Any], list[Outcome]]] = {
            "depth": pairing.image,
            "camera_info": pairing.info,
            "mask": pairing.mask,
        }
        types = {**MESSAGE_TYPES, "depth": self.depth_type}
        for message in self.messages(on_damage):
            try:
                decoded = _decode(self.path, message.data, types[message.kind])
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
    return sorted(path for path in Path(folder).iterdir() if is_bag(path))


def open_recording(
    path: str | Path,
    depth_topic: str | None = None,
    camera_info_topic: str | None = None,
    mask_topic: str | None = None,
    depth_unit_m: float = 0.001,
) -> Recording:
    """Open a rosbag2 folder (or a single .mcap or .db3 file) and find its depth stream.

    Topics that are not named are found by type: the image topic with a depth encoding (with several of them 16UC1 and
    32FC1 before mono16, which infrared images have too, then the one with most messages, raw before compressed, then
    the first by name), the CameraInfo beside it, and a mask beside it whose name is ``mask``. ``depth_unit_m`` is the
    unit of integer depth.

    Raises:
        InputError: ``no_such_path``, ``corrupt_bag``, ``empty_bag``, ``no_depth_topic`` (lists what the recording
            holds) or ``no_camera_info``.
    """
    path = Path(path)
    contents = _read_contents(path)
    depth = _depth_stream(path, contents, depth_topic)
    info = _camera_info_topic(path, contents, depth.topic, camera_info_topic)
    mask = _mask_topic(path, contents.encodings, depth.topic, mask_topic)
    return _recording(path, contents, depth, Topics(depth.topic, info, mask), depth_unit_m)


def open_cameras(path: str | Path, depth_unit_m: float = 0.001) -> list[Recording]:
    """Open every camera of a recording: one for each CameraInfo that has depth images beside it, by topic.

    Raises:
        InputError: as :func:`open_recording`.
    """
    path = Path(path)
    contents = _read_contents(path)
    by_camera: dict[str, Recording] = {}
    streams = _by_preference(_depth_streams(contents, None), contents)
    certain = [stream for stream in streams if not _may_be_infrared(stream, contents)]
    for depth in certain or streams:
        try:
            info = _camera_info_topic(path, contents, depth.topic, None)
        except InputError:
            continue  # where no camera has one, open_recording says so
        if info not in by_camera:
            topics = Topics(depth.topic, info, _mask_topic(path, contents.encodings, depth.topic, None))
            by_camera[info] = _recording(path, contents, depth, topics, depth_unit_m)
    if not by_camera:
        return [open_recording(path, depth_unit_m=depth_unit_m)]
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


def encode(kind: Kind, message: Any) -> bytes:
    """A message as CDR bytes."""
    return bytes(TYPES.serialize_cdr(message, MESSAGE_TYPES[kind]))


def unpacked(data: bytes) -> bytes:
    """A CompressedImage of lossless depth as an Image, both as CDR bytes; faults are :class:`InputError`."""
    raw = raw_image(_decode(Path("the recording"), data, _COMPRESSED))
    return encode("depth", image_message(raw.header, raw.data.view("<u2").reshape(raw.height, raw.width), raw.encoding))


def without_lens(data: bytes) -> bytes:
    """The CameraInfo of rectified images as one of a camera that takes such images, both as CDR bytes."""
    info = _decode(Path("the recording"), data, _CAMERA_INFO)
    p = np.asarray(info.p, np.float64)
    k = p[[0, 1, 2, 4, 5, 6, 8, 9, 10]] if p[0] and p[5] else info.k
    return encode("camera_info", replace(info, k=k, d=np.zeros(0), distortion_model=""))


@dataclass(frozen=True)
class _Contents:
    """What is in a recording: topics with messages; encodings of its image topics, frames of these and of cameras."""

    streams: list[Stream]
    encodings: dict[str, str]
    frame_ids: dict[str, str]
    damages: tuple[str, ...]


def _read_contents(path: Path) -> _Contents:
    if not path.exists():
        raise InputError("no_such_path", f"there is no file or folder {path}")
    storage = open_storage(path)
    streams = [stream for stream in storage.streams() if stream.count]
    if not streams:
        why = "".join(f"; {damage}" for damage in storage.damages)
        raise InputError("empty_bag", f"{path} holds no message: was the recording interrupted at once?{why}")
    damages = tuple(storage.damages)
    encodings, frame_ids = _first_images(path, storage, streams)
    return _Contents(streams, encodings, frame_ids, damages)


def _first_images(path: Path, storage: Storage, streams: list[Stream]) -> tuple[dict[str, str], dict[str, str]]:
    """Encodings of the image topics and frames of all, from the first message of each that can be decoded."""
    known = (_IMAGE, _COMPRESSED, _CAMERA_INFO)
    types = {stream.topic: stream.message_type for stream in streams if stream.message_type in known}
    encodings: dict[str, str] = {}
    frame_ids: dict[str, str] = {}
    tries = dict.fromkeys(types, _TRIES)
    for topic, _, data in storage.messages(types, lambda _: None) if types else ():
        if tries[topic] <= 0:
            continue
        try:
            message = _decode(path, data, types[topic])
            if types[topic] != _CAMERA_INFO:
                encodings[topic] = str(message.encoding if types[topic] == _IMAGE else message.format)
            frame_ids[topic] = str(message.header.frame_id)
            tries[topic] = 0
        except InputError:
            tries[topic] -= 1
        if not any(left > 0 for left in tries.values()):
            break
    return encodings, frame_ids


def _recording(path: Path, contents: _Contents, depth: Stream, topics: Topics, depth_unit_m: float) -> Recording:
    compressed = depth.message_type == _COMPRESSED
    frame_id = contents.frame_ids[depth.topic]
    return Recording(path, topics, frame_id, depth_unit_m, contents.damages, compressed, depth.count)


def _damaged(path: Path, what: str) -> InputError:
    return InputError("damaged_bag", f"{path} is damaged, and what is left of it is used: {what}")


def _hand_over(damages: list[InputError], to: Callable[[InputError], None]) -> None:
    while damages:
        to(damages.pop(0))


def _decode(path: Path, data: bytes, message_type: str) -> Any:
    try:
        return TYPES.deserialize_cdr(data, message_type)
    except Exception as error:
        raise InputError("corrupt_bag", f"{path}: a {message_type} cannot be decoded ({error})") from error


def _depth_streams(contents: _Contents, wanted: str | None) -> list[Stream]:
    def is_depth(stream: Stream) -> bool:
        encoding = contents.encodings.get(stream.topic, "")
        return encoding in DEPTH_ENCODINGS if stream.message_type == _IMAGE else is_lossless(encoding)

    return [stream for stream in contents.streams if wanted in (None, stream.topic) and is_depth(stream)]


def _may_be_infrared(stream: Stream, contents: _Contents) -> bool:
    """Whether its images are of an encoding in which cameras send brightness as well as depth."""
    return contents.encodings[stream.topic].startswith("mono16")


def _by_preference(streams: list[Stream], contents: _Contents) -> list[Stream]:
    """Depth streams, that first which is taken where none is named."""
    compressed = {stream.topic: stream.message_type == _COMPRESSED for stream in streams}
    return sorted(
        streams,
        key=lambda each: (_may_be_infrared(each, contents), -each.count, compressed[each.topic], each.topic),
    )


def _depth_stream(path: Path, contents: _Contents, wanted: str | None) -> Stream:
    found = _depth_streams(contents, wanted)
    if not found:
        what = "no depth images" if wanted is None else f"no depth images on {wanted}"
        held = ", ".join(_described(stream, contents.encodings) for stream in contents.streams)
        raise InputError("no_depth_topic", f"{path} has {what}; it holds {held}")
    return _by_preference(found, contents)[0]


def _camera_info_topic(path: Path, contents: _Contents, depth: str, wanted: str | None) -> str:
    """The camera info beside the images; if there is none, the only one there is, unless it is another camera's."""
    infos = sorted(stream.topic for stream in contents.streams if stream.message_type == _CAMERA_INFO)
    beside = _beside(depth, "camera_info")
    frames = {contents.frame_ids.get(topic, "") for topic in (depth, *infos)} - {""}
    for choice in [wanted] if wanted else [beside, *(infos if len(infos) == 1 and len(frames) < 2 else [])]:
        if choice in infos:
            return choice
    raise InputError(
        "no_camera_info",
        f"{path} has no camera info for {depth} (looked for {wanted or beside}); "
        + (f"name one of {', '.join(infos)}" if infos else "record it together with the images"),
    )


def _mask_topic(path: Path, encodings: dict[str, str], depth: str, wanted: str | None) -> str | None:
    choice = wanted or _beside(depth, "mask")
    if encodings.get(choice) in MASK_ENCODINGS:
        return choice
    if wanted:
        raise InputError("no_mask", f"{path} has no mono8 images on {wanted}")
    return None


def _beside(depth: str, name: str) -> str:
    """The topic ``name`` of the camera that publishes ``depth``."""
    return f"{depth.removesuffix(f'/{TRANSPORT}').rsplit('/', 1)[0]}/{name}"


def _described(stream: Stream, encodings: dict[str, str]) -> str:
    encoding = f" {encodings[stream.topic]}" if stream.topic in encodings else ""
    return f"{stream.topic} ({stream.message_type}{encoding}, {stream.count})"


def _raise(error: InputError) -> None:
    raise error
