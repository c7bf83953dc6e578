"""A deeper ray network out of a shallower one, which says the same to begin with.

A residual block begins as the identity, so blocks that are added behind those that have learnt change nothing until
they learn themselves (Chen et al. 2016, *Net2Net*): what a smaller network took hours for is not learnt again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from nr_tracking.config import Config
from nr_tracking.fields.completion import CompletionNetwork
from nr_tracking.fields.weights import load_weights, read_weights


def load_grown(path: Path | str, parts: Mapping[str, nn.Module], config: Config) -> None:
    """Fill ``parts`` like :func:`load_weights`, from weights that may have fewer ``model.ray_blocks`` as well.

    Raises :class:`~nr_tracking.types.InputError` as that one does.
    """
    blocks, ours = read_weights(path).model.ray_blocks, config.model.ray_blocks
    if "completion" not in parts or blocks == ours or any(a > b for a, b in zip(blocks, ours, strict=True)):
        load_weights(path, parts, preset=config.preset, model=config.model)
        return
    model = config.model.model_copy(update={"ray_blocks": blocks})
    shallow = CompletionNetwork(model)
    load_weights(path, {**parts, "completion": shallow}, preset=config.preset, model=model)
    parts["completion"].load_state_dict(shallow.state_dict(), strict=False)  # added blocks come last on their levels
