"""``nr_tracking synthesize``: windows to train on, clips, recordings of characters or of published datasets."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from nr_tracking.commands.datasets import add_dataset_options, synthesize_dataset
from nr_tracking.data.cache import SHARD_WINDOWS
from nr_tracking.data.splits import SPLITS
from nr_tracking.types import InputError
from nr_tracking.wording import counted

WINDOWS = 2000

_OWN_OPTIONS = {
    "windows": ("windows", "processes", "families"),
    "--clips": ("clips", "families"),
    "--recordings": ("recordings", "noisy", "occluded", "cluttered", "families"),
    "--dataset": ("dataset", "root", "listed", "fits", "frames", "noisy"),
}
"""What can be made, and the options that it takes beside --split and --seed."""


def add_synthesize_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``synthesize``."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="where to; a folder of the same settings is completed")
    parser.add_argument(
        "--windows",
        type=int,
        metavar="N",
        help=f"training windows to make, rounded up to shards of {SHARD_WINDOWS} (default {WINDOWS})",
    )
    parser.add_argument("--processes", type=int, metavar="N", help="processes that make windows (default 1)")
    parser.add_argument("--clips", type=int, metavar="N", help="write N moving characters to the file DIR instead")
    parser.add_argument("--recordings", action="store_true", help="make SEQUENCE folders with ground truth instead")
    parser.add_argument("--noisy", action="store_true", help="recordings through a depth sensor's noise")
    parser.add_argument("--cluttered", action="store_true", help="recordings in a room with boxes, without masks")
    parser.add_argument("--occluded", action="store_true", help="recordings from near, with something in the way")
    parser.add_argument("--split", help="which characters: train, val or test (train; recordings: val)")
    parser.add_argument("--families", metavar="NAME=N,...", help="share, or number, of each kind of character")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random (default 0)")
    add_dataset_options(parser)
    parser.set_defaults(run=run_synthesize)


def run_synthesize(options: argparse.Namespace) -> int:
    """Make what the options ask for; :class:`InputError` for those that would do nothing."""
    made = _what(options)
    if made == "--dataset":
        return synthesize_dataset(options)
    if options.split not in (None, *SPLITS):
        raise InputError("unknown_split", f"--split {options.split}: characters are divided into train, val and test")
    if options.seed < 0:
        raise InputError("bad_request", f"--seed {options.seed}: seeds are 0 or more")
    families = _families(options.families)
    if made == "--recordings":
        return _recordings(options, families)
    return _clips(options, families) if made == "--clips" else _windows(options, families)


def _what(options: argparse.Namespace) -> str:
    """What is to be made, of :data:`_OWN_OPTIONS`; every option that was given has to be one of its own."""
    chosen = [name for name in _OWN_OPTIONS if _given(options, name.lstrip("-"))]
    if len(chosen) > 1:
        raise InputError("bad_request", f"{' and '.join(_spelt(name) for name in chosen)} exclude each other")
    made = chosen[0] if chosen else "windows"
    for name in dict.fromkeys(name for names in _OWN_OPTIONS.values() for name in names):
        if name not in _OWN_OPTIONS[made] and _given(options, name):
            where = " or ".join(_spelt(other) for other, names in _OWN_OPTIONS.items() if name in names)
            raise InputError("bad_request", f"{_spelt(name)} does nothing here: it belongs to {where}")
    return made


def _given(options: argparse.Namespace, name: str) -> bool:
    value = getattr(options, name)
    return value is not None and value is not False


def _spelt(name: str) -> str:
    return {"listed": "--list"}.get(name, f"--{name.lstrip('-')}")


def _recordings(options: argparse.Namespace, families: dict[str, float] | None) -> int:
    from nr_tracking.data.recordings import make_recordings

    if families and any(number != int(number) for number in families.values()):
        raise InputError("bad_request", f"--families {options.families}: recordings are counted in whole numbers")
    made = make_recordings(
        options.folder,
        split=options.split or "val",
        counts=None if families is None else {name: int(number) for name, number in families.items()},
        seed=options.seed,
        noisy=options.noisy,
        occluded=options.occluded,
        cluttered=options.cluttered,
    )
    print(f"{counted(len(made), 'recording')} in {options.folder}")
    return 0


def _clips(options: argparse.Namespace, families: dict[str, float] | None) -> int:
    from nr_tracking.data.synthesize import synthesize_clips

    file = synthesize_clips(
        options.folder, clips=options.clips, seed=options.seed, families=families, split=options.split or "train"
    )
    print(f"{counted(options.clips, 'clip')} in {file}")
    return 0


def _windows(options: argparse.Namespace, families: dict[str, float] | None) -> int:
    from nr_tracking.data.synthesize import synthesize

    processes = 1 if options.processes is None else options.processes
    if processes < 1:
        raise InputError("bad_request", f"--processes {processes}: it takes one at least")
    folder = synthesize(
        options.folder,
        windows=WINDOWS if options.windows is None else options.windows,
        seed=options.seed,
        processes=processes,
        families=families,
        split=options.split or "train",
    )
    print(f"training windows in {folder}")
    return 0


def _families(text: str | None) -> dict[str, float] | None:
    """``animal=1,person=2`` by name."""
    if text is None:
        return None
    families = {}
    for part in text.split(","):
        name, _, number = part.partition("=")
        try:
            families[name] = float(number)
        except ValueError:
            raise InputError("bad_request", f"--families {text}: expected name=number, not {part!r}") from None
        if not 0 <= families[name] < math.inf:
            raise InputError("bad_request", f"--families {text}: {part!r} is no number of 0 or more")
    return families
