"""Weights for a preset from two files: the network along rays of one, everything else of the other.

    python -m nr_tracking.training.transplant RAYS WEIGHTS OUTPUT --preset lite

RAYS are the weights of a run that trained along rays, or of its student. Where WEIGHTS come from a network without
rays, the inputs that say what is known along them are added with weights of zero: it does what it did before. Weights
that are multiplied in bfloat16 anyway are stored so.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from nr_tracking.config import load_config
from nr_tracking.deformation.decoder import DeformationDecoder
from nr_tracking.fields.completion import CompletionNetwork
from nr_tracking.fields.weights import Weights, read_weights, save_weights
from nr_tracking.types import InputError

_RAYS = "rays."
_TOLD = (  # the layers that are told what is known along rays
    "dense_encoder.levels.0.0.weight",
    "dense_decoder.skips.0.weight",
    "middle_decoder.entry.weight",
    "fine_decoder.entry.weight",
)


def transplanted(rays: Weights, weights: Weights, preset: str) -> dict[str, dict[str, Tensor]]:
    """The parts of a weights file for ``preset``.

    Raises:
        InputError: ``wrong_weights`` where the files do not fit the preset, with what does not.
    """
    model = load_config(preset).model
    own, along = weights.part("completion"), rays.part("completion")
    completion = {}
    for name, wanted in CompletionNetwork(model).state_dict().items():
        of_rays = name.startswith(_RAYS)
        found = (along if of_rays else own).get(name)
        if found is not None and name in _TOLD:
            found = _with_more_inputs(found, wanted.shape[1])
        found = _checked(name, found, wanted, preset)
        completion[name] = found.bfloat16() if of_rays and found.dim() == 4 else found
    deformation = weights.part("deformation")
    for name, parameter in DeformationDecoder(model).state_dict().items():
        _checked(name, deformation.get(name), parameter, preset)
    return {"completion": completion, "deformation": deformation}


def _checked(name: str, found: Tensor | None, wanted: Tensor, preset: str) -> Tensor:
    """The parameter; raises :class:`InputError` ``wrong_weights`` where it is missing or of another shape."""
    if found is None:
        raise InputError("wrong_weights", f"there is no {name}, which preset {preset!r} needs")
    if found.shape != wanted.shape:
        raise InputError(
            "wrong_weights", f"{name} is {tuple(found.shape)}, preset {preset!r} needs {tuple(wanted.shape)}"
        )
    return found


def _with_more_inputs(weight: Tensor, inputs: int) -> Tensor:
    """A weight (K, I, ...), and nothing for ``inputs`` that it does not have yet, which come last."""
    missing = max(inputs - weight.shape[1], 0)
    return torch.cat((weight, weight.new_zeros(len(weight), missing, *weight.shape[2:])), dim=1)


def main(arguments: list[str] | None = None) -> None:
    """Write the file; see the module's text."""
    parser = argparse.ArgumentParser(prog="python -m nr_tracking.training.transplant", description=__doc__)
    parser.add_argument("rays", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--preset", required=True)
    chosen = parser.parse_args(arguments)
    rays, weights = read_weights(chosen.rays), read_weights(chosen.weights)
    parts = transplanted(rays, weights, chosen.preset)
    notes = {**weights.notes, **{f"rays_{name}": value for name, value in rays.notes.items()}}
    model = load_config(chosen.preset).model
    print(save_weights(chosen.output, parts, preset=chosen.preset, model=model, notes=notes))


if __name__ == "__main__":
    main()
