"""Depth recordings as rosbag2 (mcap or sqlite3), read and written without ROS.

    recording = open_recording("recording")
    for frame in recording.frames():      # DepthFrame
        ...

A recording of a SEQUENCE written by :func:`write_bag` gives back the very same frames, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from nr_tracking.atomic import written_folder
from nr_tracking.ros.conversions import DEPTH_ENCODINGS, MASK_ENCODINGS, depth_frame
from nr_tracking.ros.messages import MESSAGE_TYPES, DepthEncoding, Kind, frame_messages
from nr_tracking.ros.pairing import FramePairing, Outcome
from nr_tracking.types import DepthFrame, InputError

TYPES = get_typestore(Stores.ROS2_KILTED)
_IMAGE, _CAMERA_INFO = MESSAGE_TYPES["depth"], MESSAGE_TYPES["camera_info"]
_STORAGE = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}
_BAG_FILES = (".mcap", ".db3")
_METADATA = "metadata.yaml"


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
    """A rosbag2 with a depth stream, opened and checked; messages are read when they are asked for."""

    path: Path
    topics: Topics
    frame_id: str
    depth_unit_m: float
    _count: int

    def __len__(self) -> int:
        """Number of recorded depth images."""
        return self._count

    def messages(self) -> Iterator[RecordedMessage]:
        """Depth images, camera infos and masks in the order of their recording."""
        kinds: dict[str, Kind] = {self.topics.depth: "depth", self.topics.camera_info: "camera_info"}
        if self.topics.mask:
            kinds[self.topics.mask] = "mask"
        with _reading(self.path) as reader:
            wanted = [c for c in reader.connections if c.topic in kinds]
            for connection, recorded_ns, data in reader.messages(wanted):
                yield RecordedMessage(kinds[connection.topic], recorded_ns, bytes(data))

    def frames(
        self, start: int = 0, count: int | None = None, on_drop: Callable[[InputError], None] | None = None
    ) -> Iterator[DepthFrame]:
        """Decode ``count`` frames from ``start`` (None: to the end).

        A frame that cannot be used is handed to ``on_drop`` and left out; without ``on_drop`` its error is raised.
        """
        drop = on_drop or _raise
        for outcome in islice(self._outcomes(), start, None if count is None else start + count):
            try:
                if isinstance(outcome, InputError):
                    raise outcome
                yield depth_frame(outcome.image, outcome.info, outcome.mask, self.depth_unit_m)
            except InputError as error:
                drop(error)

    def _outcomes(self) -> Iterator[Outcome]:
        """What becomes of every image, in order."""
        pairing = FramePairing(expects_mask=self.topics.mask is not None)
        take: dict[Kind, Callable[[Any], list[Outcome]]] = {
            "depth": pairing.image,
            "camera_info": pairing.info,
            "mask": pairing.mask,
        }
        for message in self.messages():
            yield from take[message.kind](_decode(self.path, message.data, MESSAGE_TYPES[message.kind]))
        yield from pairing.flush()


def is_bag(path: str | Path) -> bool:
    """Whether ``path`` looks like a rosbag2: a folder with metadata.yaml, or one of its files."""
    path = Path(path)
    return (path / _METADATA).is_file() or (path.is_file() and path.suffix in _BAG_FILES)


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

    Topics that are not named are found by type: the image topic with a depth encoding (with several of them the one
    with most messages, then the first by name), the CameraInfo beside it, and a mask beside it whose name is ``mask``.
    ``depth_unit_m`` is the unit of integer depth.

    Raises:
        InputError: ``no_such_path``, ``corrupt_bag``, ``empty_bag``, ``no_depth_topic`` (lists what the recording
            holds) or ``no_camera_info``.
    """
    path = Path(path)
    if not path.exists():
        raise InputError("no_such_path", f"there is no file or folder {path}")
    with _reading(path) as reader:
        connections = [c for c in reader.connections if c.msgcount]
        if not connections:
            raise InputError("empty_bag", f"{path} holds no message: was the recording interrupted at once?")
        encodings = {c.topic: _first(path, reader, c).encoding for c in connections if c.msgtype == _IMAGE}
        depth = _depth_topic(path, connections, encodings, depth_topic)
        info = _camera_info_topic(path, connections, depth.topic, camera_info_topic)
        mask = _mask_topic(path, encodings, depth.topic, mask_topic)
        first = _first(path, reader, depth)
    return Recording(path, Topics(depth.topic, info, mask), first.header.frame_id, depth_unit_m, depth.msgcount)


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
    with written_folder(path, recognised_by=_METADATA) as folder:
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


@contextmanager
def _reading(path: Path) -> Iterator[Reader]:
    """Open a recording; whatever the storage stumbles over becomes an InputError that names the recording."""
    try:
        with Reader(path) as reader:
            yield reader
    except (InputError, GeneratorExit, MemoryError):
        raise
    except Exception as error:  # readers of damaged files raise what their parsers do: there is no common base
        raise InputError(
            "corrupt_bag",
            f"{path} cannot be read as a rosbag2 ({type(error).__name__}: {error}): a recording is a folder with "
            "metadata.yaml and its .mcap or .db3 files; `ros2 bag reindex` repairs one that was interrupted",
        ) from error


def _decode(path: Path, data: bytes, message_type: str) -> Any:
    try:
        return TYPES.deserialize_cdr(data, message_type)
    except Exception as error:
        raise InputError("corrupt_bag", f"{path}: a {message_type} cannot be decoded ({error})") from error


def _first(path: Path, reader: Reader, connection: Connection) -> Any:
    for _, _, data in reader.messages([connection]):
        return _decode(path, bytes(data), connection.msgtype)
    raise InputError("corrupt_bag", f"{path}: {connection.topic} has no message, against its metadata")


def _depth_topic(
    path: Path, connections: list[Connection], encodings: dict[str, str], wanted: str | None
) -> Connection:
    found = [c for c in connections if encodings.get(c.topic) in DEPTH_ENCODINGS and wanted in (None, c.topic)]
    if not found:
        what = "no depth images" if wanted is None else f"no depth images on {wanted}"
        raise InputError("no_depth_topic", f"{path} has {what}; it holds {_contents(connections, encodings)}")
    return min(found, key=lambda c: (-c.msgcount, c.topic))


def _camera_info_topic(path: Path, connections: list[Connection], depth: str, wanted: str | None) -> str:
    infos = sorted(c.topic for c in connections if c.msgtype == _CAMERA_INFO)
    beside = f"{depth.rsplit('/', 1)[0]}/camera_info"
    for choice in [wanted] if wanted else [beside, *(infos if len(infos) == 1 else [])]:
        if choice in infos:
            return choice
    raise InputError(
        "no_camera_info",
        f"{path} has no camera info for {depth} (looked for {wanted or beside}); "
        + (f"name one of {', '.join(infos)}" if infos else "record it together with the images"),
    )


def _mask_topic(path: Path, encodings: dict[str, str], depth: str, wanted: str | None) -> str | None:
    choice = wanted or f"{depth.rsplit('/', 1)[0]}/mask"
    if encodings.get(choice) in MASK_ENCODINGS:
        return choice
    if wanted:
        raise InputError("no_mask", f"{path} has no mono8 images on {wanted}")
    return None


def _contents(connections: list[Connection], encodings: dict[str, str]) -> str:
    return ", ".join(
        f"{c.topic} ({c.msgtype}{' ' + encodings[c.topic] if c.topic in encodings else ''}, {c.msgcount})"
        for c in sorted(connections, key=lambda c: c.topic)
    )


def _raise(error: InputError) -> None:
    raise error
