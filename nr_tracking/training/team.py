"""Several processes that learn together, one on each GPU, of one machine or of many: what ``torchrun`` starts.

Every process runs the whole trainer on windows of its own; gradients are averaged before each step, so that the weights
stay equal. They are averaged here rather than by DistributedDataParallel: a window may turn out to show no subject, or
a field no surface, and then one process has no backward pass while the others wait for its gradients.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn

Item = TypeVar("Item")


class Team:
    """One process among all of them: number ``rank`` of ``size``. A process that stands alone talks to nobody."""

    def __init__(self, device: torch.device) -> None:
        self.rank, self.size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        self.device = device
        if self.size == 1:
            return
        if device.type == "cuda":
            self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
            torch.cuda.set_device(self.device)
        if not distributed.is_initialized():
            distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")

    @property
    def leads(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def agreed(self, value: Item) -> Item:
        """The first process's ``value``; all wait for each other."""
        if self.size == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def gathered(self, values: Sequence[Item]) -> list[Item]:
        """The items of all processes, in the order of their ranks."""
        if self.size == 1:
            return list(values)
        boxes: list[Sequence[Item]] = [[] for _ in range(self.size)]
        distributed.all_gather_object(boxes, list(values))
        return [value for box in boxes for value in box]

    def average_gradients(self, parameters: Sequence[nn.Parameter], windows: int) -> None:
        """Turn the sums of gradients of each process into the mean over all ``windows`` of all processes.

        A parameter that no window touched keeps no gradient.
        """
        if self.size > 1:
            touched = torch.tensor([float(p.grad is not None) for p in parameters], device=self.device)
            distributed.all_reduce(touched, distributed.ReduceOp.MAX)
            for parameter, any_touched in zip(parameters, touched.tolist(), strict=True):
                if any_touched and parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if self.size > 1 and gradients:
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            distributed.all_reduce(flat)
            _unpack(flat, gradients)
        if windows > 1:
            torch._foreach_div_(gradients, float(windows))


def _unpack(flat: Tensor, parts: Sequence[Tensor]) -> None:
    for values, part in zip(flat.split([part.numel() for part in parts]), parts, strict=True):
        part.copy_(values.view_as(part))
