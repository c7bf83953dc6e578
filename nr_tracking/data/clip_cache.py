"""Moving characters in one file, and training windows made from them on the fly.

The file is what a machine with a GPU carries: posed surfaces as 16-bit places in their frame's bounding box, in the
safetensors format. Windows are then made there in plain torch, another camera and another pace each time: no mesh
library, no character files, no cache of windows. On a CPU, libigl finds distances where it is installed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from nr_tracking.atomic import prepare_file, written_file
from nr_tracking.data.cache import WindowCache, WindowSample, pack_points, unpack_points
from nr_tracking.data.cameras import draw_camera, draw_close_up, with_subject_of
from nr_tracking.data.clips import Clip
from nr_tracking.data.windows import make_window
from nr_tracking.types import InputError

FORMAT = "nr_tracking clips 1"
LENGTH = 5
STRIDES = (0.5, 1, 1, 2, 2, 3, 4, 5, 6)
"""Frames of 30 Hz between the frames of a window: cameras of 5 to 60 Hz, or a slow and a fast subject."""
WINDOWS_PER_CLIP = 16
"""Windows of each clip in one epoch."""
CLOSE_UPS = 0.2
"""Share of windows that show a part of the subject."""
FRAME_POINTS = 1500
"""Points around the surface, and as many anywhere, of a window of one frame."""


def write_clips(path: str | Path, clips: Iterable[Clip]) -> int:
    """Write clips to one safetensors file, by rename, and return their number; they are asked for once it can be."""
    path = Path(path)
    prepare_file(path)
    tensors: dict[str, np.ndarray] = {}
    about = []
    for number, clip in enumerate(clips):
        steps, frame = pack_points(clip.vertices)
        tensors |= {f"{number:05d}.steps": steps, f"{number:05d}.frame": frame, f"{number:05d}.faces": clip.faces}
        about.append({"name": clip.name, "family": clip.family, "identity": clip.identity, "fps": clip.fps})
    if not about:
        raise InputError("no_clips", f"{path}: there is no clip to write")
    with written_file(path) as partial:
        save_file(
            {key: np.ascontiguousarray(value) for key, value in tensors.items()},
            partial,
            metadata={"format": FORMAT, "clips": json.dumps(about)},
        )
    return len(about)


class ClipCache:
    """The clips of a file by number: ``len(cache)``, ``cache[i] -> Clip``."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with self._opened() as file:
            metadata = file.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise InputError(
                "clip_format",
                f"{path} holds {metadata.get('format', 'something else')!r}, not {FORMAT!r}: make it again",
            )
        self.about = json.loads(metadata["clips"])

    def __len__(self) -> int:
        return len(self.about)

    def __getitem__(self, number: int) -> Clip:
        with self._opened() as file:
            steps, frame, faces = (file.get_tensor(f"{number:05d}.{key}") for key in ("steps", "frame", "faces"))
        return Clip(vertices=unpack_points(steps, frame), faces=faces, **self.about[number])

    def _opened(self) -> safe_open:
        try:
            return safe_open(self.path, framework="numpy")
        except (OSError, SafetensorError) as error:
            raise InputError(
                "no_clips", f"{self.path} cannot be read ({error}): make it with `nr_tracking synthesize --clips`"
            ) from None


class GeneratedWindows:
    """Training windows made from clips when asked for, on a device; the place of a :class:`WindowCache` in training.

    A window depends on its number, the epoch and ``seed`` alone. Images are made so coarse that the subject is at most
    ``pixels`` long in them: more than a network resolves costs time and teaches nothing. A window has ``frames``.
    """

    def __init__(
        self,
        path: str | Path,
        device: torch.device | str = "cpu",
        seed: int = 0,
        pixels: int = 1_000_000,
        frames: int = LENGTH,
    ) -> None:
        self.clips, self.device, self.seed, self.pixels = ClipCache(path), torch.device(device), seed, pixels
        self.frames = frames
        # libigl, whose trees make a CPU quicker, where it is installed; else plain torch on the device.
        with_libigl = self.device.type == "cpu" and importlib.util.find_spec("igl") is not None
        self._torch_device = None if with_libigl else self.device
        self.families = [about["family"] for about in self.clips.about for _ in range(WINDOWS_PER_CLIP)]

    def digest(self) -> str:
        """SHA-256 of which clips there are and of the size of their file."""
        about = json.dumps([self.clips.path.stat().st_size, self.clips.about], sort_keys=True)
        return hashlib.sha256(about.encode()).hexdigest()

    def __len__(self) -> int:
        return WINDOWS_PER_CLIP * len(self.clips)

    def refresh(self) -> int:
        """The number of windows; the file does not grow."""
        return len(self)

    def __getitem__(self, number: int) -> WindowSample:
        return self.drawn(number, 0)

    def drawn(self, number: int, epoch: int) -> WindowSample:
        """Make a window; a camera that hardly sees the subject is drawn again.

        One of a single frame has fewer samples: there is always another one.
        """
        length = self.frames
        points = {"near_points": FRAME_POINTS, "far_points": FRAME_POINTS} if length == 1 else {}
        rng = np.random.default_rng([self.seed, 3, epoch, number])
        clip = self.clips[number // WINDOWS_PER_CLIP]
        for attempt in range(8):
            fitting = [stride for stride in STRIDES if (length - 1) * stride < len(clip.vertices)]
            if not fitting:
                raise InputError("short_clip", f"{clip.identity}/{clip.name}: {len(clip.vertices)} frames are too few")
            stride = fitting[rng.integers(len(fitting))]
            start = int(rng.integers(len(clip.vertices) - int(np.ceil((length - 1) * stride))))
            moment = clip.every(1, start).resampled(clip.fps / stride, length)
            close_up = bool(rng.random() < CLOSE_UPS)
            camera = (draw_close_up if close_up else draw_camera)(moment.vertices, rng)
            camera = with_subject_of(self.pixels, moment.vertices, camera)
            try:
                return make_window(moment, stride, rng, camera, device=self._torch_device, close_up=close_up, **points)
            except InputError:
                if attempt == 7:
                    raise
        raise AssertionError("unreachable")


def open_windows(
    path: str | Path,
    device: torch.device | str = "cpu",
    seed: int = 0,
    pixels: int = 1_000_000,
    frames: int = LENGTH,
) -> WindowCache | GeneratedWindows:
    """The training windows of a cache folder, or those of so many ``frames`` made from a file of clips."""
    return GeneratedWindows(path, device, seed, pixels, frames) if Path(path).is_file() else WindowCache(path)
