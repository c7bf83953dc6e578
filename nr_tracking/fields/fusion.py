"""Attention across the frames of a window: what one frame shows helps where another one sees nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

_TRAINED = 5  # frames of a window in training


class FrameCodes(NamedTuple):
    """What frames show each other: ``latent`` (N, L, l, l, l), and ``keep`` (N, l, l, l) bool, cells that take part."""

    latent: Tensor
    keep: Tensor

    @staticmethod
    def joined(parts: Sequence[FrameCodes]) -> FrameCodes:
        """Codes of frames one after another."""
        return FrameCodes(torch.cat([part.latent for part in parts]), torch.cat([part.keep for part in parts]))

    def of(self, frame: int) -> FrameCodes:
        """Those of one frame."""
        return FrameCodes(self.latent[frame : frame + 1], self.keep[frame : frame + 1])


class AttentionLayer(nn.Module):
    """Pre-norm transformer layer: self-attention, then a two-layer network of twice the width."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(channels)
        self.to_qkv = nn.Linear(channels, 3 * channels)
        self.from_heads = nn.Linear(channels, channels)
        self.norm_network = nn.LayerNorm(channels)
        self.network = nn.Sequential(nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels))

    def forward(self, tokens: Tensor, wanted: int | None = None, shown: Tensor | None = None) -> Tensor:
        """(B, T, C) -> (B, T, C), or (B, W, C) of the last ``wanted`` tokens alone.

        ``shown`` (B, T) bool, at least one of each row: the tokens that are attended to, all by default.
        """
        channels = tokens.shape[2]
        normed = self.norm_attention(tokens)
        first = 0 if wanted is None else tokens.shape[1] - wanted
        weight, bias = self.to_qkv.weight, self.to_qkv.bias
        query = self._by_head(functional.linear(normed[:, first:], weight[:channels], bias[:channels]))
        key, value = functional.linear(normed, weight[channels:], bias[channels:]).chunk(2, dim=2)
        mask = None if shown is None else shown[:, None, None]
        mixed = functional.scaled_dot_product_attention(query, self._by_head(key), self._by_head(value), mask)
        tokens = tokens[:, first:] + self.from_heads(mixed.transpose(1, 2).flatten(2))
        return tokens + self.network(self.norm_network(tokens))

    def _by_head(self, tokens: Tensor) -> Tensor:
        """(B, T, C) -> (B, heads, T, C / heads)."""
        return tokens.unflatten(2, (self.heads, -1)).transpose(1, 2)


class FrameFusion(nn.Module):
    """Latent grids of a window -> latent grids of a window, of the same shape.

    ``mode`` joint: the kept cells of all frames attend to each other; temporal: each kept cell attends to itself at the
    times at which it is kept. Cells that are not kept are not seen and pass unchanged, as everything does before
    training: the last layer starts at 0.
    """

    def __init__(self, channels: int, layers: int, heads: int, mode: Literal["joint", "temporal"]) -> None:
        super().__init__()
        self.mode = mode
        self.layers = nn.ModuleList(AttentionLayer(channels, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(channels)
        self.last = nn.Linear(channels, channels)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, latent: Tensor, length: int, keep: Tensor, earlier: int = 0) -> Tensor:
        """``latent`` (N, L, l, l, l) of N / ``length`` windows, ``keep`` (N, l, l, l) bool -> (N, L, l, l, l).

        Of a single window, all but the ``earlier`` frames at its beginning, to which the others only attend.
        """
        if len(self.layers) == 0:
            return latent[earlier:]
        frames, channels, side = latent.shape[:3]
        tokens = latent.permute(0, 2, 3, 4, 1)  # (N, l, l, l, L)
        places = sinusoidal_places(length, side, channels, latent.device).to(latent.dtype)
        placed = (tokens.reshape(-1, *places.shape) + places).reshape(frames // length, length, side**3, channels)
        keep = keep.reshape(frames // length, length, side**3)
        parts, rows = [], []
        for window, (cells, mask) in enumerate(zip(placed, keep, strict=True)):
            shown = None  # all of the batch
            if self.mode == "joint":
                chosen = mask.reshape(-1).nonzero()[:, 0]
                batch = cells.reshape(-1, channels).index_select(0, chosen)[None]
                chosen = chosen[chosen >= earlier * side**3]
                wanted = len(chosen)
            else:
                cell = mask.any(0).nonzero()[:, 0]
                batch = cells.index_select(1, cell).transpose(0, 1)  # (cells, length, L)
                shown = mask[:, cell].t()
                times = torch.arange(earlier, length, device=cell.device)
                chosen = (cell[:, None] + times * side**3)[shown[:, earlier:]]
                wanted = length - earlier
            if chosen.numel() == 0:
                continue
            for layer in self.layers[:-1]:
                batch = layer(batch, shown=shown)
            batch = self.layers[-1](batch, wanted, shown)
            if shown is not None:
                batch = batch[shown[:, earlier:]]
            parts.append(self.last(self.norm(batch)).reshape(-1, channels))
            rows.append(chosen + window * length * side**3)
        if not parts:
            return latent[earlier:]
        flat = tokens.reshape(-1, channels)
        flat = flat.index_add(0, torch.cat(rows), torch.cat(parts).to(flat.dtype))
        return flat.view(tokens.shape).permute(0, 4, 1, 2, 3)[earlier:]


def sinusoidal_places(length: int, side: int, channels: int, device: torch.device) -> Tensor:
    """Sines and cosines of (t, x, y, z), a quarter of the channels each: (length, side, side, side, channels).

    Wavelengths grow geometrically from 2 to 8 times the largest of ``length``, ``side`` and the windows of training, so
    that shorter windows have their encodings; channels beyond a multiple of eight stay 0.
    """
    pairs = channels // 8
    count = max(length, side, _TRAINED)
    wavelengths = 2.0 * (4.0 * count) ** (torch.arange(pairs, device=device) / max(pairs - 1, 1))
    angles = torch.arange(count, device=device)[:, None] * (2 * math.pi / wavelengths)
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # (count, 2 pairs)
    places = torch.zeros(length, side, side, side, channels, device=device)
    for axis, extent in enumerate((length, side, side, side)):
        shape = [1, 1, 1, 1, 2 * pairs]
        shape[axis] = extent
        places[..., axis * 2 * pairs : (axis + 1) * 2 * pairs] = waves[:extent].view(shape)
    return places
