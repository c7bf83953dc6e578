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
from nr_tracking.fields.completion import CompletionNetwork
from nr_tracking.fields.weights import Weights, read_weights, save_weights
from nr_tracking.types import InputError

_RAYS = "rays."


def transplanted(rays: Weights, weights: Weights, preset: str) -> dict[str, dict[str, Tensor]]:
    """The parts of a weights file for ``preset``.

    Raises:
        InputError: ``wrong_weights`` where the files do not fit the preset, with what does not.
    """
    wanted = CompletionNetwork(load_config(preset).model).state_dict()
    own, along = weights.part("completion"), rays.part("completion")
    completion = {}
    for name, parameter in wanted.items():
        of_rays = name.startswith(_RAYS)
        found = (along if of_rays else own).get(name)
        if found is None:
            raise InputError("wrong_weights", f"there is no {name}, which preset {preset!r} needs")
        if not of_rays:
            found = _with_more_inputs(found, parameter.shape)
        if found.shape != parameter.shape:
            raise InputError(
                "wrong_weights", f"{name} is {tuple(found.shape)}, preset {preset!r} needs {tuple(parameter.shape)}"
            )
        completion[name] = found.bfloat16() if of_rays and found.dim() == 4 else found
    return {"completion": completion, "deformation": weights.part("deformation")}


def _with_more_inputs(weight: Tensor, shape: torch.Size) -> Tensor:
    """A weight, and nothing for inputs that it does not have yet, which come last."""
    if weight.dim() != len(shape) or any(have > want for have, want in zip(weight.shape, shape, strict=True)):
        return weight
    wider = weight.new_zeros(shape)
    wider[tuple(slice(size) for size in weight.shape)] = weight
    return wider


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
