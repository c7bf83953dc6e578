"""Weights on disk: safetensors that know which network they are for, and refuse any other.

The header carries the preset, the model settings as JSON, a SHA-256 over names, shapes and values, and free notes
(steps trained, scores). Loading checks all of it before a single parameter is touched.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from nr_tracking.atomic import written_file
from nr_tracking.config import Config, ModelConfig
from nr_tracking.types import InputError

FORMAT = "nr_tracking weights 1"


@dataclass(frozen=True)
class Weights:
    """A weights file in memory; ``tensors`` are named ``<part>.<parameter>``, like ``completion.mlp.0.weight``."""

    preset: str
    model: ModelConfig
    sha256: str
    tensors: dict[str, Tensor]
    notes: dict[str, str]

    def part(self, name: str) -> dict[str, Tensor]:
        """Return the state of one part of the system, ``completion`` or ``deformation``; empty where it has none."""
        return {key[len(name) + 1 :]: value for key, value in self.tensors.items() if key.startswith(f"{name}.")}


def digest(tensors: Mapping[str, Tensor], preset: str, settings: str) -> str:
    """Return the SHA-256 of tensors (names, types, shapes, values) and of what they are for.

    ``settings`` are the model's as the file has them: a later version may know of more, and must read it all the same.
    """
    state = hashlib.sha256(f"{preset}\n{settings}\n".encode())
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        state.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        state.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return state.hexdigest()


def save_weights(
    path: Path | str,
    parts: Mapping[str, nn.Module | Mapping[str, Tensor]],
    *,
    preset: str,
    model: ModelConfig,
    notes: Mapping[str, str] | None = None,
) -> str:
    """Write the parts (modules or their states) by write-then-rename; returns the SHA-256 that identifies them."""
    path = Path(path)
    tensors: dict[str, Tensor] = {}
    for part, module in parts.items():
        state = module.state_dict() if isinstance(module, nn.Module) else module
        # A clone each: safetensors refuses tensors that share memory.
        tensors |= {f"{part}.{name}": value.detach().cpu().clone().contiguous() for name, value in state.items()}
    settings = _settings(model)
    identity = digest(tensors, preset, settings)
    header = {"format": FORMAT, "preset": preset, "model": settings, "sha256": identity}
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_file(path) as file:
        save_file(tensors, file, metadata={**header, "notes": json.dumps(dict(notes or {}), sort_keys=True)})
    return identity


def read_weights(path: Path | str) -> Weights:
    """Read and verify a weights file.

    Raises:
        InputError: ``no_weights`` where there is no such file, ``damaged_weights`` where it is not a weights file of
            this package or its values do not have the hash it was written with.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("no_weights", f"no weights at {path}; give weights: FILE, or a preset that ships with weights")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise InputError("damaged_weights", f"{path} is not a readable safetensors file: {error}") from None
    if header.get("format") != FORMAT:
        found = header.get("format", "none")
        raise InputError(
            "damaged_weights", f"{path} has format {found!r}, expected {FORMAT!r}: train or export it anew"
        )
    try:
        model = ModelConfig.model_validate_json(header["model"])
        preset, expected, notes = header["preset"], header["sha256"], json.loads(header.get("notes", "{}"))
    except (KeyError, ValueError) as error:
        raise InputError("damaged_weights", f"the header of {path} cannot be used: {error}") from None
    found = digest(tensors, preset, header["model"])
    if found != expected:
        raise InputError(
            "damaged_weights", f"{path} has hash {found[:12]}, its header says {expected[:12]}: fetch it anew"
        )
    return Weights(preset, model, expected, tensors, notes)


def load_weights(path: Path | str, parts: Mapping[str, nn.Module], *, preset: str, model: ModelConfig) -> Weights:
    """Fill modules, in place, with weights that were trained for exactly this preset and these model settings.

    Raises:
        InputError: what :func:`read_weights` raises; ``wrong_weights`` where the file is for another preset or other
            model settings, or lacks a part or has another version of one. All modules are then as they were.
    """
    weights = read_weights(path)
    if weights.preset != preset:
        raise InputError(
            "wrong_weights", f"{path} is for preset {weights.preset!r}, not {preset!r}: choose preset {weights.preset}"
        )
    theirs, ours = weights.model.model_dump(), model.model_dump()
    different = [
        f"model.{key} is {theirs[key]!r} there, {ours[key]!r} here" for key in ours if theirs[key] != ours[key]
    ]
    if different:
        raise InputError("wrong_weights", f"{path} does not fit the configuration: {'; '.join(different)}")
    states = {name: weights.part(name) for name in parts}
    for name, state in states.items():
        if not state:
            known = sorted({key.split(".", 1)[0] for key in weights.tensors})
            raise InputError("wrong_weights", f"{path} has no part {name!r}; it has {', '.join(known)}")
        if misfits := _misfits(state, parts[name].state_dict()):
            raise InputError("wrong_weights", f"{path} was made by another version of {name}: {'; '.join(misfits)}")
    for name, module in parts.items():
        module.load_state_dict(states[name])
    return weights


def weights_path(config: Config) -> Path:
    """Return where the weights of a configuration lie: its own file, or the one shipped with its preset.

    Raises:
        InputError: ``no_weights``, with the places that were searched.
    """
    if config.weights:
        path = Path(config.weights).expanduser()
        if not path.is_file():
            raise InputError("no_weights", f"weights: there is no file {path}")
        return path
    places = [folder / f"{config.preset}.safetensors" for folder in _shipped_folders()]
    for place in places:
        if place.is_file():
            return place
    searched = ", ".join(str(place) for place in places)
    raise InputError(
        "no_weights",
        f"preset {config.preset!r} has no weights (searched {searched}): give weights: FILE, or train them",
    )


def _shipped_folders() -> list[Path]:
    """List where an installation may keep ``models/``: a source tree, the Python prefix, ROS prefixes."""
    prefixes = [sys.prefix, *filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep))]
    source = Path(__file__).resolve().parents[2] / "models"
    return [source, *(Path(prefix) / "share" / "nr_tracking" / "models" for prefix in dict.fromkeys(prefixes))]


def _misfits(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """In what the tensors of a file differ from those of a module, by name and shape."""
    theirs, ours = ({name: tuple(value.shape) for name, value in each.items()} for each in (state, wanted))
    return [
        f"{name} is {theirs.get(name, 'missing')} there, {ours.get(name, 'missing')} here"
        for name in sorted(theirs.keys() | ours.keys())
        if theirs.get(name) != ours.get(name)
    ]


def _settings(model: ModelConfig) -> str:
    return json.dumps(model.model_dump(mode="json"), sort_keys=True)
