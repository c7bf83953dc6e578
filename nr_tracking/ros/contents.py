"""What a recording holds, and which of its topics are the depth images, the camera and the mask."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nr_tracking.ros.compressed import TRANSPORT, is_lossless
from nr_tracking.ros.conversions import MASK_ENCODINGS
from nr_tracking.ros.messages import MESSAGE_TYPES
from nr_tracking.ros.storage import Storage, open_storage
from nr_tracking.ros.streams import Stream
from nr_tracking.ros.typestore import COMPRESSED, decode
from nr_tracking.sensing.camera import DEPTH_ENCODINGS
from nr_tracking.types import InputError

_IMAGE, _CAMERA_INFO = MESSAGE_TYPES["depth"], MESSAGE_TYPES["camera_info"]
_TRIES = 20  # messages of a topic that may be damaged before its encoding counts as unknown


@dataclass(frozen=True)
class Topics:
    """Names of the topics that make up a depth recording."""

    depth: str
    camera_info: str
    mask: str | None = None


@dataclass(frozen=True)
class Contents:
    """Topics with messages; encodings of the image topics, and frames of these and of the cameras, by topic.

    ``damages`` tells what was found missing, in words.
    """

    path: Path
    streams: list[Stream]
    encodings: dict[str, str]
    frame_ids: dict[str, str]
    damages: tuple[str, ...]

    def topics(self, depth: Stream, camera_info: str | None = None, mask: str | None = None) -> Topics:
        """A depth stream, and what goes with it; what is not named is looked for beside it.

        Raises:
            InputError: ``no_camera_info``; ``no_mask`` where there is none on the topic that is named.
        """
        return Topics(depth.topic, self._camera_info(depth.topic, camera_info), self._mask(depth.topic, mask))

    def depth_stream(self, wanted: str | None) -> Stream:
        """The depth images on a topic, or those that are taken where none is named; or ``no_depth_topic``."""
        found = [stream for stream in self.depth_streams() if wanted in (None, stream.topic)]
        if not found:
            what = "no depth images" if wanted is None else f"no depth images on {wanted}"
            held = ", ".join(self._described(stream) for stream in self.streams)
            raise InputError("no_depth_topic", f"{self.path} has {what}; it holds {held}")
        return found[0]

    def depth_streams(self) -> list[Stream]:
        """All that may be depth images, that first which is taken where none is named."""
        return sorted(
            filter(self._is_depth, self.streams),
            key=lambda each: (
                self.may_be_infrared(each),
                _beside(each.topic, "camera_info") not in self._cameras,
                -each.count,
                each.message_type == COMPRESSED,
                each.topic,
            ),
        )

    def may_be_infrared(self, stream: Stream) -> bool:
        """Whether its images are of an encoding in which cameras send brightness as well as depth."""
        return self.encodings[stream.topic].startswith("mono16")

    @property
    def _cameras(self) -> list[str]:
        """Topics of camera infos, by name."""
        return sorted(stream.topic for stream in self.streams if stream.message_type == _CAMERA_INFO)

    def _is_depth(self, stream: Stream) -> bool:
        encoding = self.encodings.get(stream.topic, "")
        return encoding in DEPTH_ENCODINGS if stream.message_type == _IMAGE else is_lossless(encoding)

    def _camera_info(self, depth: str, wanted: str | None) -> str:
        """The camera info beside the images; if there is none, the only one there is, unless it is another camera's."""
        infos = self._cameras
        beside = _beside(depth, "camera_info")
        frames = {self.frame_ids.get(topic, "") for topic in (depth, *infos)} - {""}
        for choice in [wanted] if wanted else [beside, *(infos if len(infos) == 1 and len(frames) < 2 else [])]:
            if choice in infos:
                return choice
        raise InputError(
            "no_camera_info",
            f"{self.path} has no camera info for {depth} (looked for {wanted or beside}); "
            + (f"name one of {', '.join(infos)}" if infos else "record it together with the images"),
        )

    def _mask(self, depth: str, wanted: str | None) -> str | None:
        choice = wanted or _beside(depth, "mask")
        if self.encodings.get(choice) in MASK_ENCODINGS:
            return choice
        if wanted:
            raise InputError("no_mask", f"{self.path} has no mono8 images on {wanted}")
        return None

    def _described(self, stream: Stream) -> str:
        encoding = f" {self.encodings[stream.topic]}" if stream.topic in self.encodings else ""
        return f"{stream.topic} ({stream.message_type}{encoding}, {stream.count})"


def read_contents(path: Path) -> Contents:
    """Look into a recording as far as that takes; ``no_such_path``, ``corrupt_bag`` or ``empty_bag``."""
    if not path.exists():
        raise InputError("no_such_path", f"there is no file or folder {path}")
    storage = open_storage(path)
    streams = [stream for stream in storage.streams() if stream.count]
    if not streams:
        why = "".join(f"; {damage}" for damage in storage.damages)
        raise InputError("empty_bag", f"{path} holds no message: was the recording interrupted at once?{why}")
    damages = tuple(storage.damages)
    encodings, frame_ids = _first_messages(path, storage, streams)
    return Contents(path, streams, encodings, frame_ids, damages)


def _first_messages(path: Path, storage: Storage, streams: list[Stream]) -> tuple[dict[str, str], dict[str, str]]:
    """Encodings of the image topics and frames of all, from the first message of each that can be decoded."""
    known = (_IMAGE, COMPRESSED, _CAMERA_INFO)
    types = {stream.topic: stream.message_type for stream in streams if stream.message_type in known}
    encodings: dict[str, str] = {}
    frame_ids: dict[str, str] = {}
    tries = dict.fromkeys(types, _TRIES)
    for topic, _, data in storage.messages(types, lambda _: None) if types else ():
        if tries[topic] <= 0:
            continue
        try:
            message = decode(path, data, types[topic])
            if types[topic] != _CAMERA_INFO:
                encodings[topic] = str(message.encoding if types[topic] == _IMAGE else message.format)
            frame_ids[topic] = str(message.header.frame_id)
            tries[topic] = 0
        except InputError:
            tries[topic] -= 1
        if not any(left > 0 for left in tries.values()):
            break
    return encodings, frame_ids


def _beside(depth: str, name: str) -> str:
    """The topic ``name`` of the camera that publishes ``depth``."""
    return f"{depth.removesuffix(f'/{TRANSPORT}').rsplit('/', 1)[0]}/{name}"
