"""``nr_tracking synthesize --dataset``: recordings of published datasets, to reproduce published tables."""

from __future__ import annotations

import argparse
from pathlib import Path

from nr_tracking.types import InputError
from nr_tracking.wording import counted


def add_dataset_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``synthesize`` that turn a dataset into recordings instead; see docs/datasets.md."""
    group = parser.add_argument_group("published datasets (see docs/datasets.md)")
    group.add_argument("--dataset", choices=("dfaust", "cape", "4dhumanoutfit", "dt4d"), help="render this dataset")
    group.add_argument("--root", type=Path, metavar="PATH", help="where the dataset lies")
    group.add_argument("--list", type=Path, metavar="FILE", dest="listed", help="sequences to take, one name a line")
    group.add_argument("--fits", type=Path, metavar="PATH", help="posed bodies of 4DHumanOutfit (PATH/SEQUENCE.npz)")
    group.add_argument("--frames", type=int, metavar="N", help="at most so many frames of each sequence")


def synthesize_dataset(options: argparse.Namespace) -> int:
    """Write the recordings that the options ask for."""
    from nr_tracking.data.adapters.catalogue import open_dataset
    from nr_tracking.data.adapters.dataset import choose
    from nr_tracking.data.adapters.recordings import record_dataset

    if options.root is None:
        raise InputError("bad_request", f"--dataset {options.dataset} needs --root PATH, where the dataset lies")
    if options.frames is not None and options.frames < 1:
        raise InputError("bad_request", f"--frames {options.frames}: ask for at least one")
    dataset = open_dataset(options.dataset, options.root, options.fits)
    names = choose(dataset, options.split, options.listed)
    fold = options.split or (options.listed.stem if options.listed else "")
    made = record_dataset(
        dataset, names, options.folder, fold=fold, frames=options.frames, noisy=options.noisy, seed=options.seed
    )
    print(f"{counted(len(made), 'recording')} in {options.folder}")
    return 0
