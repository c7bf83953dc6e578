"""Which characters and motions are kept from training: by character *and* by motion.

Validation and test characters never appear in training, nor do validation and test motions, whoever performs them.
Most glTF people, held-out ones among them, are other clothes over the same few bodies; docs/data.md says how much is
shared. Bodies drawn at random are told apart by their numbers: the split is part of the seed.
"""

from __future__ import annotations

import re
import zlib
from typing import Literal, get_args

Split = Literal["train", "val", "test"]
SPLITS: tuple[str, ...] = get_args(Split)

_CHARACTERS: dict[str, frozenset[str]] = {
    "val": frozenset({"female_dress", "male_suit", "fox", "alpaca", "triceratops"}),
    "test": frozenset({"male_casual", "zombie", "stag", "shibainu", "trex"}),
}
_MOTIONS: dict[str, frozenset[str]] = {
    "val": frozenset({"runningjump", "gallop_jump", "jump", "dance_b", "spinkick", "131_03", "02_05"}),
    "test": frozenset(
        {"swordslash", "attack_kick", "attack_headbutt", "dance_a", "cartwheel", "kick", "01_01", "03_01"}
    )
    | frozenset({"zombiebite", "zombiecrawl", "zombieidle", "zombierun", "zombiewalk"}),
}
_REPEATING = frozenset({"jump_toidle"})
"""Motions that hold a held-out one under another name (the gallop jump): nobody performs them."""
_CLOTHES: dict[str, frozenset[str]] = {
    "val": frozenset({"male_casualsuit05", "female_casualsuit02"}),
    "test": frozenset({"male_casualsuit06", "female_elegantsuit01"}),
}


def character_name(file_stem: str) -> str:
    """One name for all versions of a character: smooth or not, white or brown."""
    name = file_stem.lower()
    return re.sub(r"^smooth_|_smooth$|smooth$|_white$", "", name)


def motion_name(clip: str) -> str:
    """One name for all performances of a motion: ``Man_Jump``, ``AnimalArmature|Jump`` and ``Jump`` are ``jump``."""
    name = clip.lower().rsplit("|", 1)[-1]
    return re.sub(
        r"^(man|female|male|humanoid3d|armature|[a-z]+saurus|[a-z]+lophus|trex|[a-z]+ceratops|[a-z]+raptor)_", "", name
    )


def split_of_character(file_stem: str) -> Split:
    """The split of a character by the name of its file."""
    return _lookup(_CHARACTERS, character_name(file_stem))


def split_of_motion(clip: str) -> Split | None:
    """The split of a motion by its name; None for one that is in no split, as it repeats a held-out one."""
    name = motion_name(clip)
    return None if name in _REPEATING else _lookup(_MOTIONS, name)


def split_of_clothes(item: str) -> Split:
    """The split of a piece of clothing by its name."""
    return _lookup(_CLOTHES, item.lower())


def body_seed(split: Split, family: str, number: int) -> list[int]:
    """Seed of the ``number``-th random body of a family; never shared by two splits."""
    return [SPLITS.index(split), zlib.crc32(family.encode()), number]


def _lookup(held_out: dict[str, frozenset[str]], name: str) -> Split:
    for split, names in held_out.items():
        if name in names:
            return split  # type: ignore[return-value]
    return "train"
