"""Brings together what a camera publishes on separate topics: depth image, camera info, mask.

The node and the reader of recordings use this very class, so a recording played over the network and one read from
disk give the same frames.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from nr_tracking.ros.compressed import CompressedImage
from nr_tracking.ros.conversions import CameraInfo, Image, stamp_ns
from nr_tracking.sensing.stamps import StampOrder
from nr_tracking.types import InputError

_SPARE = 64  # camera infos that are kept though no image waits for them


class Waiting(NamedTuple):
    """How many images wait to be paired, and what the first of them waits for."""

    images: int
    awaited: Literal["", "mask", "camera info"]


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
    expected, and for a camera info that is on its way; never more than ``capacity`` of them, nor more than ``memory``
    bytes, and before the first camera info the newest ``uninformed`` alone, where that is given. Masks that come before
    their images are bounded alike. An image without a mask is given up when that of a later image comes.

    Stamps that jump back, by a second or with the clock, are a recording that begins again: what is kept of its end
    says nothing about its beginning.

    Every method returns, in the order of the images, the frames that are complete now, and an :class:`InputError` for
    each image that is given up. ``waiting`` tells of those that are neither; it may be read from another thread.
    """

    def __init__(
        self,
        *,
        expects_mask: bool = False,
        rectified: bool = False,
        capacity: int = 64,
        uninformed: int | None = None,
        memory: int = 1 << 30,
        patience: int = 4,
    ) -> None:
        self.expects_mask = expects_mask
        self.waiting = Waiting(0, "")
        self._rectified = rectified
        self._capacity = capacity
        self._uninformed = capacity if uninformed is None else min(uninformed, capacity)
        self._memory = memory
        self._patience = patience
        self._images: deque[tuple[int, Image | CompressedImage, float]] = deque()  # stamp, image, arrival
        self._stamps: Counter[int] = Counter()  # of these images
        self._images_held = self._masks_held = 0  # bytes
        self._infos: OrderedDict[int, CameraInfo] = OrderedDict()
        self._masks: OrderedDict[int, Image] = OrderedDict()
        self._last_info: CameraInfo | None = None
        self._masked = False  # whether a mask ever came
        self._own_infos = False  # whether the last image had a camera info of its own stamp
        self._newest: int | None = None  # stamp of the image that came last
        self._jump_ns = StampOrder.LOOP_NS  # an image this far back begins anew

    def image(self, message: Image | CompressedImage, arrived: float = 0.0) -> list[Outcome]:
        """Take a depth image, which arrived at ``arrived``; that of a recording read from disk says nothing."""
        stamp = stamp_ns(message)
        self._images.append((stamp, message, arrived))
        self._stamps[stamp] += 1
        self._images_held += len(message.data)
        self._forget_after(stamp)
        outcomes = self._ready()
        most = self._capacity if self._last_info is not None else self._uninformed
        while len(self._images) > most or self._images_held > self._memory:
            outcomes.append(self._give_up())
            outcomes += self._ready()
        return outcomes

    def info(self, message: CameraInfo) -> list[Outcome]:
        """Take a camera info."""
        self._last_info = message
        self._infos[stamp_ns(message)] = message
        while len(self._infos) > len(self._images) + _SPARE:
            del self._infos[self._least_needed(self._infos)]
        return self._ready()

    def mask(self, message: Image) -> list[Outcome]:
        """Take a mask, after which every image needs one."""
        self.expects_mask = self._masked = True
        stamp = stamp_ns(message)
        self._forget_mask(stamp)
        self._masks[stamp] = message
        self._masks_held += len(message.data)
        while len(self._masks) > len(self._images) + self._capacity or self._masks_held > self._memory:
            self._forget_mask(self._least_needed(self._masks))
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
        awaited: Literal["", "mask", "camera info"] = ""
        while self._images:
            stamp, _, arrived = self._images[0]
            info = self._infos.get(stamp)
            on_its_way = self._own_infos and len(self._images) <= self._patience and not ending
            if self._last_info is None or (info is None and on_its_way):
                awaited = "camera info"
                break
            mask = self._masks.get(stamp)
            if self.expects_mask and mask is None:
                if not self._left_without_mask(stamp):
                    awaited = "mask"
                    break
                outcomes.append(self._give_up())
                continue
            image = self._next_image()
            self._forget_mask(stamp)  # what is left has no image so far
            self._own_infos = info is not None
            outcomes.append(PairedFrame(stamp, image, info or self._last_info, mask, arrived, self._rectified))
        self.waiting = Waiting(len(self._images), awaited)
        return outcomes

    def _next_image(self) -> Image | CompressedImage:
        """Take the first image out."""
        stamp, image, _ = self._images.popleft()
        self._stamps[stamp] -= 1
        if not self._stamps[stamp]:
            del self._stamps[stamp]
        self._images_held -= len(image.data)
        return image

    def _left_without_mask(self, stamp: int) -> bool:
        """Whether a mask of an image after the first one, which has this stamp, has come."""
        assert self._newest is not None
        end = self._newest + StampOrder.LOOP_NS  # beyond it are late masks of a recording that has begun again
        return any(stamp < other < end or (other < stamp and other in self._stamps) for other in self._masks)

    def _forget_mask(self, stamp: int) -> None:
        mask = self._masks.pop(stamp, None)
        self._masks_held -= 0 if mask is None else len(mask.data)

    def _least_needed(self, messages: OrderedDict[int, Any]) -> int:
        """Stamp of the oldest message that no image waits for; of the oldest, where images wait for them all."""
        return next((stamp for stamp in messages if stamp not in self._stamps), next(iter(messages)))

    def _forget_after(self, stamp: int) -> None:
        """Take notice of an image: forget what was kept of a time before the clock, or the recording, jumped back."""
        jumped = self._newest is not None and stamp <= self._newest - self._jump_ns
        self._newest = stamp
        if jumped:
            self._jump_ns = StampOrder.LOOP_NS
        last = stamp if jumped else stamp + StampOrder.LOOP_NS - 1
        for other in [other for other in self._masks if other > last and other not in self._stamps]:
            self._forget_mask(other)
        for other in [other for other in self._infos if other > last and other not in self._stamps]:
            del self._infos[other]

    def _give_up(self) -> InputError:
        """Take the first image out; returns why it cannot be used."""
        stamp, *_ = self._images[0]
        self._next_image()
        if self._last_info is None:
            return InputError(
                "no_camera_info",
                f"no camera info has come for the depth image of {stamp / 1e9:.3f} s: "
                "remap depth/camera_info to the topic of the same camera",
            )
        if not self._masked:
            return InputError(
                "no_mask",
                f"no mask has come at all, so none for the depth image of {stamp / 1e9:.3f} s: "
                "the type and the reliability of the mask's publisher must be those that are subscribed to",
            )
        return InputError(
            "no_mask",
            f"no mask has the stamp {stamp / 1e9:.3f} s of the depth image: "
            "the mask must carry the stamp of the image that it was made from",
        )
