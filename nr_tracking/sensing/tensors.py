"""Whether compiled loops can do what PyTorch is asked for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nr_tracking.loops import compiled_loops


def loops_for(name: str, *tensors: Tensor) -> Any | None:
    """The compiled loops ``name`` where they can read ``tensors``, None where PyTorch has to.

    They know single precision alone, in the processor's own memory, and no gradients.
    """
    recorded = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    plain = all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in tensors)
    return compiled_loops(name) if plain and not recorded else None
