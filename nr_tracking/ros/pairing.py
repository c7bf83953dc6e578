"""Brings together what a camera publishes on separate topics: depth image, camera info, mask.

The node and the reader of recordings use this very class, so a recording played over the network and one read from
disk give the same frames.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Any, TypeVar

from nr_tracking.ros.compressed import CompressedImage
from nr_tracking.ros.conversions import CameraInfo, Image, stamp_ns
from nr_tracking.sensing.stamps import StampOrder
from nr_tracking.types import InputError

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class PairedFrame:
    """Messages that belong together, not yet decoded, and when the image arrived (steady clock, seconds).

    ``rectified``: the image is free of the lens.
    """

    stamp_ns: int
    image: Image | CompressedImage
    info: CameraInfo
    mask: Image | None
    arrived: float = 0.0
    rectified: bool = False


Outcome = PairedFrame | InputError


class FramePairing:
    """Pairs messages by stamp, in the order of the images.

    A camera info of the image's own stamp is preferred. Where a driver sends one only now and then, or latches it, the
    last one serves, and no image waits for it. Images wait for the very first camera info, for a mask where masks are
    expected, and for a camera info that is on its way; never more than ``capacity`` of them. An image without a mask is
    given up when that of a later image comes.

    Stamps that jump back, by a second or with the clock, are a recording that begins again: what is kept of its end
    says nothing about its beginning.

    Every method returns, in the order of the images, the frames that are complete now, and an :class:`InputError` for
    each image that is given up.
    """

    def __init__(
        self, *, expects_mask: bool = False, rectified: bool = False, capacity: int = 64, patience: int = 4
    ) -> None:
        self.expects_mask = expects_mask
        self._rectified = rectified
        self._capacity = capacity
        self._patience = patience
        self._images: deque[tuple[int, Image | CompressedImage, float]] = deque()  # stamp, image, arrival
        self._infos: OrderedDict[int, CameraInfo] = OrderedDict()
        self._masks: OrderedDict[int, Image] = OrderedDict()
        self._last_info: CameraInfo | None = None
        self._own_infos = False  # whether the last image had a camera info of its own stamp
        self._newest: int | None = None  # stamp of the image that came last
        self._jump_ns = StampOrder.LOOP_NS  # an image this far back begins anew

    def image(self, message: Image | CompressedImage, arrived: float = 0.0) -> list[Outcome]:
        """Take a depth image, which arrived at ``arrived``; that of a recording read from disk says nothing."""
        stamp = stamp_ns(message)
        self._images.append((stamp, message, arrived))
        self._forget_after(stamp)
        outcomes = self._ready()
        while len(self._images) > self._capacity:
            outcomes.append(self._give_up())
            outcomes += self._ready()
        return outcomes

    def info(self, message: CameraInfo) -> list[Outcome]:
        """Take a camera info."""
        self._last_info = message
        _remember(self._infos, stamp_ns(message), message, self._capacity)
        return self._ready()

    def mask(self, message: Image) -> list[Outcome]:
        """Take a mask, after which every image needs one."""
        self.expects_mask = True
        _remember(self._masks, stamp_ns(message), message, self._capacity)
        return self._ready()

    def clock_jumped_back(self) -> None:
        """Expect a recording to begin again: the next earlier image is its first one, however short it is."""
        self._jump_ns = 1

    def flush(self) -> list[Outcome]:
        """End of the recording: no image waits any longer."""
        outcomes = self._ready(ending=True)
        while self._images:
            outcomes.append(self._give_up())
            outcomes += self._ready(ending=True)
        return outcomes

    def _ready(self, *, ending: bool = False) -> list[Outcome]:
        outcomes: list[Outcome] = []
        while self._images:
            stamp, image, arrived = self._images[0]
            info = self._infos.get(stamp)
            on_its_way = self._own_infos and len(self._images) <= self._patience and not ending
            if self._last_info is None or (info is None and on_its_way):
                break
            mask = self._masks.get(stamp)
            if self.expects_mask and mask is None:
                if not self._left_without_mask(stamp):
                    break
                outcomes.append(self._give_up())
                continue
            self._images.popleft()
            self._masks.pop(stamp, None)  # what is left has no image so far
            self._own_infos = info is not None
            outcomes.append(PairedFrame(stamp, image, info or self._last_info, mask, arrived, self._rectified))
        return outcomes

    def _left_without_mask(self, stamp: int) -> bool:
        """Whether a mask of an image after the first one, which has this stamp, has come."""
        assert self._newest is not None
        end = self._newest + StampOrder.LOOP_NS  # beyond it are late masks of a recording that has begun again
        later = any(stamp < other < end for other in self._masks)
        return later or any(other < stamp and other in self._masks for other, *_ in self._images)

    def _forget_after(self, stamp: int) -> None:
        """Take notice of an image: forget what was kept of a time before the clock, or the recording, jumped back."""
        jumped = self._newest is not None and stamp <= self._newest - self._jump_ns
        self._newest = stamp
        if jumped:
            self._jump_ns = StampOrder.LOOP_NS
        last = stamp if jumped else stamp + StampOrder.LOOP_NS - 1
        waiting = {other for other, *_ in self._images}
        kept: tuple[OrderedDict[int, Any], ...] = (self._masks, self._infos)
        for messages in kept:
            for other in [other for other in messages if other > last and other not in waiting]:
                del messages[other]

    def _give_up(self) -> InputError:
        """Take the first image out; returns why it cannot be used."""
        stamp, *_ = self._images.popleft()
        if self._last_info is None:
            return InputError(
                "no_camera_info",
                f"no camera info has come for the depth image of {stamp / 1e9:.3f} s: "
                "remap depth/camera_info to the topic of the same camera",
            )
        return InputError(
            "no_mask",
            f"no mask has the stamp {stamp / 1e9:.3f} s of the depth image: "
            "the mask must carry the stamp of the image that it was made from",
        )


def _remember(messages: OrderedDict[int, T], stamp: int, message: T, capacity: int) -> None:
    messages[stamp] = message
    while len(messages) > capacity:
        messages.popitem(last=False)
