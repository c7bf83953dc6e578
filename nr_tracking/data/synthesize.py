"""Make a cache of training windows: many processes, one shard after the other, resumed where it stopped."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nr_tracking.atomic import prepare_folder
from nr_tracking.data.cache import (
    FORMAT,
    SHARD_WINDOWS,
    WindowSample,
    read_manifest,
    shard_number,
    write_manifest,
    write_shard,
)
from nr_tracking.data.clip_cache import LENGTH, STRIDES, write_clips
from nr_tracking.data.clips import Clip
from nr_tracking.data.contact_sheet import write_contact_sheet
from nr_tracking.data.families import FAMILIES, FPS, Performer, available_families, check_amounts
from nr_tracking.data.splits import SPLITS, Split
from nr_tracking.data.windows import make_window
from nr_tracking.types import InputError

GENERATOR = 7
"""Counts the changes after which the same seed gives other windows; noted in the manifest."""
CLIP_FRAMES = 25
WINDOWS_PER_BODY = {"makehuman": 4}
"""Drawing a body costs as much as some windows; each is used this often (2 unless named), never alike."""
MIXTURE = {
    "makehuman": 0.36,
    "person": 0.18,
    "animal": 0.28,
    "procedural": 0.05,
    "object": 0.06,
    "cloth": 0.04,
    "hand": 0.03,
}

Report = Callable[[str], None]


def synthesize(
    output: str | Path,
    *,
    windows: int = 2000,
    seed: int = 0,
    processes: int = 1,
    families: dict[str, float] | None = None,
    split: Split = "train",
    nice: int = 5,
    report: Report = print,
) -> Path:
    """Fill the folder ``output`` with ``windows`` training windows, rounded up to whole shards, and return it.

    ``families`` weighs the families (default: :data:`MIXTURE`, those that are available). The result depends on
    ``seed``, ``split`` and ``families`` alone. A folder that holds shards of the same settings is completed, so a run
    may be stopped at any moment, and a shard that was deleted is made again in its place; :class:`InputError` where the
    folder was made with others. Writes shards, ``manifest.json`` and, at the end, ``contact_sheet.png``.
    """
    if split not in SPLITS:
        raise InputError("unknown_split", f"split {split!r} is none of {', '.join(SPLITS)}")
    if windows < 1:
        raise InputError("no_windows", f"windows = {windows}: ask for one at least")
    folder = Path(output)
    recipe = {"seed": seed, "split": split, "families": _weights(families), "length": LENGTH, "shard": SHARD_WINDOWS}
    prepare_folder(folder)
    manifest = _opened(folder, recipe)
    entries: dict[int, dict[str, Any]] = {shard_number(entry["file"]): entry for entry in manifest["shards"]}
    there = {number for number, entry in entries.items() if (folder / entry["file"]).is_file()}
    # A shard that is gone is made again however few are asked for, in its place: windows are known by their number.
    count = max([-(-windows // SHARD_WINDOWS), *(number + 1 for number in entries)])
    missing = [number for number in range(count) if number not in there]
    if windows % SHARD_WINDOWS:
        report(f"{count * SHARD_WINDOWS} windows: a shard holds {SHARD_WINDOWS}")
    started = time.monotonic()
    for finished, entry in enumerate(_made(folder, recipe, missing, processes, nice), 1):
        number = shard_number(entry["file"])
        entries[number] = entry
        there.add(number)
        manifest["shards"] = [entries[known] for known in sorted(entries)]
        write_manifest(folder, manifest)
        pace = (time.monotonic() - started) / finished
        total = sum(entries[known]["windows"] for known in there)
        left = pace * (len(missing) - finished)
        report(f"{entry['file']}: {total} of {count * SHARD_WINDOWS} windows, {left:.0f} s to go")
    write_contact_sheet(folder)
    return folder


def draw_windows(rng: np.random.Generator, families: dict[str, float], split: Split, count: int) -> list[WindowSample]:
    """``count`` windows of bodies drawn by the weights of ``families``."""
    samples: list[WindowSample] = []
    names = sorted(families)
    share = np.array([families[name] / WINDOWS_PER_BODY.get(name, 2) for name in names])
    while len(samples) < count:
        family = names[rng.choice(len(names), p=share / share.sum())]
        performer = FAMILIES[family](rng, split)
        uses = min(WINDOWS_PER_BODY.get(family, 2), count - len(samples))
        samples += [_draw_window(performer, rng) for _ in range(uses)]
    return samples


def synthesize_clips(
    path: str | Path,
    *,
    clips: int = 100,
    seed: int = 0,
    families: dict[str, float] | None = None,
    split: Split = "train",
    report: Report = print,
) -> Path:
    """Write a file of ``clips`` moving characters, from which windows are made wherever it is carried.

    A clip has :data:`CLIP_FRAMES` frames at 30 Hz; one of 12,000 vertices takes 2 MB.
    """
    if split not in SPLITS:
        raise InputError("unknown_split", f"split {split!r} is none of {', '.join(SPLITS)}")
    if clips < 1:
        raise InputError("no_clips", f"clips = {clips}: ask for one at least")
    weights = _weights(families)
    names = sorted(weights)
    share = np.array([weights[name] for name in names])

    def performed() -> Iterator[Clip]:
        for number in range(clips):
            rng = np.random.default_rng([seed, SPLITS.index(split), 1, number])
            family = names[rng.choice(len(names), p=share / share.sum())]
            clip = FAMILIES[family](rng, split)(rng, CLIP_FRAMES)
            report(f"clip {number + 1} of {clips}: {clip.identity}, {clip.name}")
            yield clip

    write_clips(path, performed())
    return Path(path)


def _draw_window(performer: Performer, rng: np.random.Generator) -> WindowSample:
    """One window; a camera that hardly sees the subject is drawn again."""
    for _ in range(8):
        stride = STRIDES[rng.integers(len(STRIDES))]
        clip = performer(rng, math.ceil((LENGTH - 1) * stride) + 1).resampled(FPS / stride, LENGTH)
        try:
            return make_window(clip, stride, rng)
        except InputError as error:
            last_fault = error
    raise last_fault


def _shard(task: tuple[str, dict[str, Any], int]) -> dict[str, Any]:
    folder, recipe, number = task
    import torch

    torch.set_num_threads(1)
    rng = np.random.default_rng([recipe["seed"], SPLITS.index(recipe["split"]), number])
    return write_shard(Path(folder), number, draw_windows(rng, recipe["families"], recipe["split"], recipe["shard"]))


def _made(
    folder: Path, recipe: dict[str, Any], numbers: list[int], processes: int, nice: int
) -> Iterator[dict[str, Any]]:
    """Entries of the shards, in their order."""
    tasks = [(str(folder), recipe, number) for number in numbers]
    if not tasks:
        return
    # libigl starts a thread for every core unless told otherwise, before it is loaded.
    os.environ.setdefault("IGL_NUM_THREADS", "1")
    context = multiprocessing.get_context("spawn")
    with context.Pool(max(1, min(processes, len(tasks))), initializer=os.nice, initargs=(nice,)) as pool:
        yield from pool.imap(_shard, tasks)  # in order, so that the manifest is one for any number of processes


def _weights(families: dict[str, float] | None) -> dict[str, float]:
    available = available_families()
    if families is None:
        return {name: share for name, share in MIXTURE.items() if name in available}
    check_amounts(families, "share", available)
    if not any(families.values()):
        raise InputError("no_families", "no family has a share above 0")
    return dict(families)


def _opened(folder: Path, recipe: dict[str, Any]) -> dict[str, Any]:
    """The manifest of a folder to be completed, or a new one."""
    if not (folder / "manifest.json").exists():
        versions = {"generator": GENERATOR, "python": platform.python_version(), "numpy": np.__version__}
        return {"format": FORMAT, "recipe": recipe, "versions": versions, "shards": []}
    manifest = read_manifest(folder)
    if differing := differences(manifest.get("recipe"), json.loads(json.dumps(recipe))):
        raise InputError(
            "other_recipe",
            f"{folder} was made with {'; '.join(differing)}: choose another folder or delete it",
        )
    made_by = manifest.get("versions", {}).get("generator")
    if made_by != GENERATOR:
        raise InputError(
            "other_recipe",
            f"{folder} was made by version {made_by} of the generator, this is {GENERATOR}: choose another folder or "
            "delete it",
        )
    return manifest


def differences(made: Any, asked: dict[str, Any]) -> list[str]:
    """What a folder was made with and what is asked for, where they differ: "seed 0, not 3"."""
    made = made if isinstance(made, dict) else {}
    differing = []
    for name in dict.fromkeys([*asked, *made]):
        before, now = made.get(name), asked.get(name)
        if name == "families" and isinstance(before, dict) and isinstance(now, dict):
            differing += differences(before, now)  # by kind of character
        elif before != now:
            differing.append(f"{name} {_value(before)}, not {_value(now)}")
    return differing


def _value(value: Any) -> str:
    return "none" if value is None else str(value)
