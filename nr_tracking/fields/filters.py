"""What layers make of their weights before anything is multiplied with them: kept until they are other ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from torch import Tensor, nn


class Filters:
    """What is computed from one tensor of weights.

    Changes that PyTorch does not count, of ``weight.data`` in place or by a fused optimiser, are not seen before
    ``train()`` is called. Copies begin anew.
    """

    def __init__(self) -> None:
        self._made: tuple[Tensor, int, Tensor] | None = None

    def __reduce__(self) -> tuple[type[Filters], tuple[()]]:
        return Filters, ()

    def of(self, weight: Tensor, made_of: Callable[[Tensor], Tensor]) -> Tensor:
        """``made_of(weight)``; a layer asks for one kind alone.

        Of weights of inference mode, which count no changes, nothing is kept.
        """
        if weight.is_inference():
            return made_of(weight)
        made = self._made
        if made is None or made[0].data_ptr() != weight.data_ptr() or made[1] != weight._version:
            # Beside the weights themselves: while they are held, no others can come to lie where they lie.
            made = self._made = weight.detach(), weight._version, made_of(weight.detach())
        return made[2]


class KeepsFilters(nn.Module):
    """A layer with ``_filters`` of its weights."""

    def __init__(self, *of: Any, **options: Any) -> None:
        super().__init__(*of, **options)
        self._filters = Filters()

    def train(self, mode: bool = True) -> Self:
        """As of any module; what was computed from the weights is forgotten."""
        self._filters = Filters()
        return super().train(mode)
