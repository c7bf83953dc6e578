"""Transformed weights of layers, such as Winograd filters, cached until the weights change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from torch import Tensor, nn


class Filters:
    """A cache of what is computed from one tensor of weights; nothing is ``kept`` while the weights are trained.

    PyTorch does not count all changes of a tensor: neither those of a fused optimiser nor those of ``weight.data`` in
    place. So ``train()`` and ``eval()`` of the layer empty the cache. Copies start with an empty one.
    """

    def __init__(self, kept: bool) -> None:
        self._kept = kept
        self._made: dict[str, tuple[Tensor, int, Tensor]] = {}

    def __reduce__(self) -> tuple[type[Filters], tuple[bool]]:
        return Filters, (self._kept,)

    def of(self, kind: str, weight: Tensor, made_of: Callable[[Tensor], Tensor]) -> Tensor:
        """``made_of(weight)``, cached by ``kind``: a layer may need several, depending on its input.

        Weights of inference mode do not count their changes, so nothing is cached for them.
        """
        if not self._kept or weight.is_inference():
            return made_of(weight.detach())
        made = self._made.get(kind)
        if made is None or made[0].data_ptr() != weight.data_ptr() or made[1] != weight._version:
            # Beside the weights themselves: while they are held, no others can come to lie where they lie.
            made = self._made[kind] = weight.detach(), weight._version, made_of(weight.detach())
        return made[2]


class KeepsFilters(nn.Module):
    """A layer with ``_filters`` of its weights, kept while it is not in training mode."""

    def __init__(self, *of: Any, **options: Any) -> None:
        super().__init__(*of, **options)
        self._filters = Filters(kept=not self.training)

    def train(self, mode: bool = True) -> Self:
        """As of any module; what was computed from the weights is forgotten."""
        self._filters = Filters(kept=not mode)
        return super().train(mode)
