"""Brings together what a camera publishes on separate topics: depth image, camera info, mask.

The node and the reader of recordings use this very class, so a recording played over the network and one read from
disk give the same frames.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from nr_tracking.ros.conversions import CameraInfo, Image, stamp_ns
from nr_tracking.types import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class PairedFrame:
    """Messages that belong together, not yet decoded."""

    stamp_ns: int
    image: Image
    info: CameraInfo
    mask: Image | None


class FramePairing:
    """Pairs messages by stamp, in the order of the images.

    A camera info of the image's own stamp is preferred. Where a driver sends one only now and then, or latches it, the
    last one serves, and no image waits for it. Images wait for the very first camera info, for a mask where masks are
    expected, and for a camera info that is on its way; never more than ``capacity`` of them.

    ``on_drop`` hears of every image that is given up, with the reason.
    """

    def __init__(
        self,
        on_drop: Callable[[InputError], None],
        *,
        expects_mask: bool = False,
        capacity: int = 64,
        patience: int = 4,
    ) -> None:
        self.expects_mask = expects_mask
        self._on_drop = on_drop
        self._capacity = capacity
        self._patience = patience
        self._images: deque[tuple[int, Image]] = deque()
        self._infos: OrderedDict[int, CameraInfo] = OrderedDict()
        self._masks: OrderedDict[int, Image] = OrderedDict()
        self._last_info: CameraInfo | None = None
        self._own_infos = False  # whether the last image had a camera info of its own stamp

    def image(self, message: Image) -> list[PairedFrame]:
        """Take a depth image; returns the frames that are complete now."""
        self._images.append((stamp_ns(message), message))
        ready = self._ready()
        while len(self._images) > self._capacity:
            stamp, _ = self._images.popleft()
            self._give_up(stamp)
            ready += self._ready()
        return ready

    def info(self, message: CameraInfo) -> list[PairedFrame]:
        """Take a camera info; returns the frames that are complete now."""
        self._last_info = message
        _remember(self._infos, stamp_ns(message), message, self._capacity)
        return self._ready()

    def mask(self, message: Image) -> list[PairedFrame]:
        """Take a mask, after which every image needs one; returns the frames that are complete now."""
        self.expects_mask = True
        _remember(self._masks, stamp_ns(message), message, self._capacity)
        return self._ready()

    def flush(self) -> list[PairedFrame]:
        """End of the recording: no image waits any longer."""
        ready = self._ready(ending=True)
        while self._images:
            self._give_up(self._images.popleft()[0])
            ready += self._ready(ending=True)
        return ready

    def _ready(self, *, ending: bool = False) -> list[PairedFrame]:
        frames = []
        while self._images:
            stamp, image = self._images[0]
            info = self._infos.get(stamp)
            on_its_way = self._own_infos and len(self._images) <= self._patience and not ending
            if self._last_info is None or (info is None and on_its_way):
                break
            mask = self._masks.get(stamp)
            if self.expects_mask and mask is None:
                if not any(other > stamp for other in self._masks):
                    break
                self._images.popleft()
                self._give_up(stamp)
                continue
            self._images.popleft()
            self._own_infos = info is not None
            frames.append(PairedFrame(stamp, image, info or self._last_info, mask))
        return frames

    def _give_up(self, stamp: int) -> None:
        if self._last_info is None:
            error = InputError(
                "no_camera_info",
                f"no camera info has come for the depth image of {stamp / 1e9:.3f} s: "
                "remap depth/camera_info to the topic of the same camera",
            )
        else:
            error = InputError(
                "no_mask",
                f"no mask has the stamp {stamp / 1e9:.3f} s of the depth image: "
                "the mask must carry the stamp of the image that it was made from",
            )
        self._on_drop(error)


def _remember(messages: OrderedDict[int, T], stamp: int, message: T, capacity: int) -> None:
    messages[stamp] = message
    while len(messages) > capacity:
        messages.popitem(last=False)
