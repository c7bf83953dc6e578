"""Neighbours of voxels side by side: the twin of what :mod:`nr_tracking.fields.neighbours` gathers in PyTorch."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from nr_tracking.loops.compiler import compiled
from nr_tracking.types import Int32


@compiled
def gather(features: NDArray[Any], neighbours: Int32, block: NDArray[Any]) -> None:
    """Rows of ``features`` (M, C) at ``neighbours`` (K, 27) into ``block`` (B, 27 C), B >= K; zeros elsewhere.

    Neighbours that are no row, such as M, are absent. Whatever the type, bits are copied. Of three neighbours in a line
    along z, all of them active, the rows lie one after the other, and are copied at once.
    """
    voxels, channels = features.shape
    flat = features.reshape(-1)
    for row in range(len(block)):
        into = block[row]
        if row >= len(neighbours):
            into[:] = 0
            continue
        for line in range(9):
            at = 3 * line * channels
            below, here, above = neighbours[row, 3 * line], neighbours[row, 3 * line + 1], neighbours[row, 3 * line + 2]
            if below + 1 == here and here + 1 == above and below >= 0 and above < voxels:
                begin = below * channels
                for c in range(3 * channels):
                    into[at + c] = flat[begin + c]
                continue
            for place in (below, here, above):
                if 0 <= place < voxels:
                    begin = place * channels
                    for c in range(channels):
                        into[at + c] = flat[begin + c]
                else:
                    for c in range(channels):
                        into[at + c] = 0
                at += channels
