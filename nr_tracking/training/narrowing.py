"""A smaller network out of a larger one: the channels that are read most, with the weights between them.

What a wide network has learnt is a better start for a narrow one than chance (Li et al. 2017, *Pruning Filters for
Efficient ConvNets*); what is lost with the other channels it learns again from its teacher, in far fewer steps.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from nr_tracking.fields.rays import ImageResidual, RayNetwork


@torch.no_grad()
def narrow_rays(teacher: RayNetwork, student: RayNetwork) -> None:
    """Give ``student`` the weights of ``teacher`` between the channels that it has room for.

    Both have the same blocks and depths. On each level one choice holds for all that blocks add up; inside of a block,
    another one. Raises ``ValueError`` where the student is wider somewhere, or has other blocks.
    """
    for level, (wide, narrow) in enumerate(zip(teacher.encoder, student.encoder, strict=True)):
        if len(wide) != len(narrow):  # type: ignore[arg-type]
            raise ValueError(f"on level {level} the student has other ray_blocks than its teacher")
    levels = [_kept(_stream_use(teacher, level), _width(student, level)) for level in range(len(teacher.encoder))]
    for level, (wide, narrow) in enumerate(zip(teacher.encoder, student.encoder, strict=True)):
        entry, norm = wide[0], wide[1]  # type: ignore[index]
        into, into_norm = narrow[0], narrow[1]  # type: ignore[index]
        from_above = torch.arange(entry.weight.shape[1]) if level == 0 else levels[level - 1]
        into.weight.copy_(_taken(entry.weight, levels[level], from_above))
        _take_norm(norm, into_norm, levels[level])
        for block, smaller in zip(wide[3:], narrow[3:], strict=True):  # type: ignore[index]
            _narrow_block(block, smaller, levels[level])
    for level, (block, smaller) in enumerate(zip(teacher.decoder, student.decoder, strict=True)):
        _narrow_block(block, smaller, levels[level])  # type: ignore[arg-type]
    for (above, below), wide, narrow in zip(pairwise(levels), teacher.narrow, student.narrow, strict=True):
        narrow.weight.copy_(_taken(wide.weight, above, below))  # type: ignore[operator, arg-type]
        narrow.bias.copy_(wide.bias[above])  # type: ignore[operator, index]
    student.last.weight.copy_(teacher.last.weight[:, levels[0]])
    student.last.bias.copy_(teacher.last.bias)  # type: ignore[union-attr, arg-type]


def _narrow_block(wide: ImageResidual, narrow: ImageResidual, stream: Tensor) -> None:
    inner = _kept(_read(wide.second.weight), narrow.first.weight.shape[0])
    narrow.first.weight.copy_(_taken(wide.first.weight, inner, stream))
    narrow.second.weight.copy_(_taken(wide.second.weight, stream, inner))
    _take_norm(wide.norm, narrow.norm, inner)
    _take_norm(wide.scale, narrow.scale, stream)


def _stream_use(network: RayNetwork, level: int) -> Tensor:
    """How much (C,) of what comes after reads each channel of a level."""
    blocks = [*network.encoder[level][3:], *network.decoder[level : level + 1]]  # type: ignore[index]
    readers = [block.first.weight for block in blocks]
    if level + 1 < len(network.encoder):
        readers.append(network.encoder[level + 1][0].weight)  # type: ignore[index]
    readers.append(network.narrow[level - 1].weight if level else network.last.weight)  # type: ignore[arg-type]
    return sum((_read(weight) for weight in readers), torch.zeros(readers[0].shape[1]))


def _read(weight: Tensor) -> Tensor:
    """The part (C_in,) of a convolution's weights that reads each channel, as a share of all of it."""
    size = weight.float().square().sum(dim=(0, 2, 3))
    return size / size.sum().clamp(min=1e-30)


def _kept(use: Tensor, count: int) -> Tensor:
    if count > len(use):
        raise ValueError(f"{count} channels cannot be chosen from {len(use)}")
    return use.topk(count).indices.sort().values


def _taken(weight: Tensor, outputs: Tensor, inputs: Tensor) -> Tensor:
    return weight[outputs][:, inputs]


def _take_norm(wide: nn.GroupNorm, narrow: nn.GroupNorm, kept: Tensor) -> None:
    narrow.weight.copy_(wide.weight[kept])
    narrow.bias.copy_(wide.bias[kept])


def _width(network: RayNetwork, level: int) -> int:
    return network.encoder[level][0].weight.shape[0]  # type: ignore[index, union-attr]
