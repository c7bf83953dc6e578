"""Whether compiled loops can do what PyTorch is asked for, and how they read its tensors."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from nr_tracking.loops import compiled_loops

FEW_THREADS = 4  # with more of them PyTorch's own gradients and products are sooner than a loop, which has one


def loops_for(name: str, *tensors: Tensor) -> Any | None:
    """The compiled loops ``name`` where they can read ``tensors``, None where PyTorch has to.

    They know single precision alone, in the processor's own memory, and no gradients.
    """
    plain = all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in tensors)
    return compiled_loops(name) if plain and not recorded(*tensors) else None


def loops_with_gradients(name: str, grid: Tensor, *others: Tensor) -> Any | None:
    """The compiled loops ``name`` where they can read ``grid``, single precision or bfloat16, and ``others``, single.

    These know gradients too, but are asked for them in bfloat16 alone, for which PyTorch is slow.
    """
    plain = all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in others)
    if not plain or grid.device.type != "cpu" or grid.dtype not in (torch.float32, torch.bfloat16):
        return None
    if recorded(grid, *others) and (grid.dtype == torch.float32 or torch.get_num_threads() > FEW_THREADS):
        return None
    return compiled_loops(name)


def as_array(tensor: Tensor) -> NDArray[Any]:
    """A tensor as loops read it: bfloat16 as its bits, uint16."""
    tensor = tensor.detach() if tensor.requires_grad else tensor
    return tensor.view(torch.uint16).numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()


@cache
def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware; without, it is slower than float32."""
    check = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(check and check())


@cache
def cuda_has_bfloat16(device: torch.device) -> bool:
    """Whether this CUDA device multiplies bfloat16 in hardware, from compute capability 8 on; older ones imitate it."""
    return torch.cuda.is_available() and torch.cuda.get_device_capability(device)[0] >= 8


def recorded(*tensors: Tensor) -> bool:
    """Whether gradients by any of ``tensors`` will be asked for."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
