"""The datasets by name."""

from __future__ import annotations

from pathlib import Path

from nr_tracking.data.adapters.cape import Cape
from nr_tracking.data.adapters.dataset import Dataset
from nr_tracking.data.adapters.deforming_things import DeformingThings
from nr_tracking.data.adapters.dfaust import DynamicFaust
from nr_tracking.data.adapters.human_outfit import HumanOutfit
from nr_tracking.types import InputError

NAMES = ("dfaust", "cape", "4dhumanoutfit", "dt4d")


def open_dataset(name: str, root: Path, fits: Path | None = None) -> Dataset:
    """A dataset of :data:`NAMES` at ``root``; ``fits`` are the posed bodies that 4DHumanOutfit needs beside it."""
    if not root.is_dir():
        raise InputError("missing_data", f"{root} is no folder; --root is where the data set lies")
    if name == "4dhumanoutfit":
        return HumanOutfit(root, fits)
    if fits is not None:
        raise InputError("bad_request", f"{name} corresponds over time by itself and takes no --fits")
    datasets: dict[str, type[DynamicFaust] | type[Cape] | type[DeformingThings]] = {
        "dfaust": DynamicFaust,
        "cape": Cape,
        "dt4d": DeformingThings,
    }
    if name not in datasets:
        raise InputError("unknown_dataset", f"dataset {name!r} is none of {', '.join(NAMES)}")
    return datasets[name](root)
