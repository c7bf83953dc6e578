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


def transplanted(rays: Weights, weights: Weights, preset: str) -> dict[str, dict[str, Tensor]]:
    """The parts of a weights file for ``preset``.

    Raises:
        InputError: ``wrong_weights`` where the files do not fit the preset, with what does not.
    """
    model = load_config(preset).model
    own, along = weights.part("completion"), rays.part("completion")
    network = CompletionNetwork(model)
    told, halved = _told(network), _halved(network)
    completion = {}
    for name, wanted in network.state_dict().items():
        found = (along if name.startswith(_RAYS) else own).get(name)
        if found is not None and name in told:
            found = _with_more_inputs(found, wanted.shape[1])
        found = _checked(name, found, wanted, preset)
        completion[name] = found.bfloat16() if name in halved else found
    deformation = weights.part("deformation")
    for name, parameter in DeformationDecoder(model).state_dict().items():
        _checked(name, deformation.get(name), parameter, preset)
    return {"completion": completion, "deformation": deformation}


def _told(network: CompletionNetwork) -> set[str]:
    """Weights of the layers that are told what is known along rays: to and from the latent grid, and above it."""
    last = len(network.dense_decoder.skips) - 1
    layers = ("dense_encoder.levels.0.0", f"dense_decoder.skips.{last}", "middle_decoder.entry", "fine_decoder.entry")
    return {f"{layer}.weight" for layer in layers}


def _halved(network: CompletionNetwork) -> set[str]:
    """Weights that are multiplied in bfloat16 wherever the hardware has it: not those of the attention."""
    layers = set(network.multiplied_in_bfloat16(torch.device("cpu")))
    return {f"{name}.weight" for name, module in network.named_modules() if module in layers}


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
    """Write the file that the docstring of the module describes."""
    parser = argparse.ArgumentParser(
        prog="python -m nr_tracking.training.transplant",
        description="Join the ray network of one weights file and all other networks of another one, and print the "
        "SHA-256 of the result.",
    )
    parser.add_argument("rays", type=Path, metavar="RAYS", help="weights file with the ray network")
    parser.add_argument("weights", type=Path, metavar="WEIGHTS", help="weights file with the other networks")
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="weights file to write")
    parser.add_argument("--preset", required=True, help="preset that the result is for, and whose sizes it must have")
    chosen = parser.parse_args(arguments)
    rays, weights = read_weights(chosen.rays), read_weights(chosen.weights)
    parts = transplanted(rays, weights, chosen.preset)
    notes = {**weights.notes, **{f"rays_{name}": value for name, value in rays.notes.items()}}
    model = load_config(chosen.preset).model
    print(save_weights(chosen.output, parts, preset=chosen.preset, model=model, notes=notes))


if __name__ == "__main__":
    main()
