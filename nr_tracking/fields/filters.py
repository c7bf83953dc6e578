"""What layers make of their weights before anything is multiplied with them: kept until they are other ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from torch import Tensor, nn


class Filters:
    """What is computed from one tensor of weights; ``kept`` unless they are being learnt.

    PyTorch does not count all changes: neither those of a fused optimiser nor those of ``weight.data`` in place, which
    are seen when a layer is told ``train()`` or ``eval()``. Copies begin anew.
    """

    def __init__(self, kept: bool) -> None:
        self._kept = kept
        self._made: dict[str, tuple[Tensor, int, Tensor]] = {}

    def __reduce__(self) -> tuple[type[Filters], tuple[bool]]:
        return Filters, (self._kept,)

    def of(self, kind: str, weight: Tensor, made_of: Callable[[Tensor], Tensor]) -> Tensor:
        """``made_of(weight)``, which is another one for each ``kind``; which is wanted may depend on what is asked.

        Of weights of inference mode, which count no changes, nothing is kept.
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
