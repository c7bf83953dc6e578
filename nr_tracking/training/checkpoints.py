"""Checkpoints that are whole or absent: a run that was killed at any moment goes on as if nothing had happened.

A checkpoint is one folder, ``state.json`` beside safetensors shards of at most 16 MiB; it replaces the one before by a
single rename.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import Optimizer

from nr_tracking.atomic import written_folder
from nr_tracking.types import InputError

SHARD_BYTES = 16 * 2**20 - 2**16  # room for the header of the file
_STATE = "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """``tensors`` by name, and ``state``: whatever else the run needs, as JSON values."""

    tensors: dict[str, Tensor]
    state: dict[str, Any]

    def part(self, name: str) -> dict[str, Tensor]:
        """Return the tensors whose name starts with ``name.``, without that prefix."""
        return {key[len(name) + 1 :]: value for key, value in self.tensors.items() if key.startswith(f"{name}.")}


def save_checkpoint(folder: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Replace the checkpoint in ``folder`` by one rename; an interrupted call leaves the old one as it was."""
    for stale in folder.parent.glob(f".{folder.name}.writing-*"):  # left by a process that was killed here
        shutil.rmtree(stale, ignore_errors=True)
    with written_folder(folder, recognised_by=_STATE) as partial:
        names = []
        for number, shard in enumerate(_shards(tensors)):
            names.append(f"tensors-{number:05d}.safetensors")
            save_file({key: tensors[key].detach().cpu().clone().contiguous() for key in shard}, partial / names[-1])
        (partial / _STATE).write_text(json.dumps({**state, "shards": names}, indent=1, sort_keys=True))


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """Read the checkpoint in ``folder``; None where a run has not written one yet.

    Raises:
        InputError: ``damaged_checkpoint`` where files are missing or cannot be read.
    """
    if not folder.exists():
        return None
    try:
        state = json.loads((folder / _STATE).read_text())
        tensors: dict[str, Tensor] = {}
        for name in state.pop("shards"):
            tensors |= load_file(folder / name)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise InputError(
            "damaged_checkpoint", f"{folder} cannot be read ({error}): remove it to start over, or bring a copy"
        ) from None
    return Checkpoint(tensors, state)


def check_shards(tensors: Mapping[str, Tensor]) -> None:
    """Raise :class:`InputError` (``too_large``) for a tensor that no shard holds, before a run has anything to lose."""
    for name, value in tensors.items():
        if value.nbytes > SHARD_BYTES:
            raise InputError(
                "too_large",
                f"{name} has {value.nbytes / 2**20:.0f} MiB, and checkpoints are written in files of at most 16: "
                "choose a narrower network",
            )


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """Return the moments and step counts of an optimiser, named ``<parameter number>.<quantity>``."""
    state = optimizer.state_dict()["state"]
    return {f"{number}.{key}": value for number, entry in state.items() for key, value in entry.items()}


def restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what :func:`optimizer_tensors` returned; learning rates and the like stay the optimiser's own."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        number, key = name.split(".", 1)
        state.setdefault(int(number), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    for parameter, moments in optimizer.state.items():
        for key, value in moments.items():
            if value.shape == parameter.shape:  # a fused step goes through memory, whatever the order of the axes
                moments[key] = torch.empty_like(parameter, requires_grad=False).copy_(value)


def _shards(tensors: Mapping[str, Tensor]) -> Iterable[list[str]]:
    """Split names, in order, into groups of at most :data:`SHARD_BYTES`."""
    shard: list[str] = []
    size = 0
    for name, value in tensors.items():
        if value.nbytes > SHARD_BYTES:
            raise ValueError(f"{name} has {value.nbytes} bytes, more than one shard holds ({SHARD_BYTES})")
        if shard and size + value.nbytes > SHARD_BYTES:
            yield shard
            shard, size = [], 0
        shard.append(name)
        size += value.nbytes
    yield shard
