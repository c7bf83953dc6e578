"""From the sparse TSDF of each frame to a small dense latent grid: two sparse levels above one or more dense ones."""

from __future__ import annotations

from torch import Tensor, nn

from nr_tracking.fields.convolution import DenseConv3d
from nr_tracking.fields.normalisation import norm_relu
from nr_tracking.fields.pointwise import Pointwise3d
from nr_tracking.fields.sparse import DownConv, SparseGrid, SubmanifoldConv


class SparseResidual(nn.Module):
    """x + conv(relu(conv(relu(norm(x))))) on the active voxels.

    Normalisation is per voxel, over its channels: it depends neither on the batch nor on which other voxels are active.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.first = SubmanifoldConv(channels, channels)
        self.second = SubmanifoldConv(channels, channels)
        nn.init.zeros_(self.second.weight)  # a block starts as the identity

    def forward(self, features: Tensor, grid: SparseGrid) -> Tensor:
        """(M, C) -> (M, C)."""
        return features + self.second(self.first(self.norm(features).relu(), grid).relu(), grid)


class SparseEncoder(nn.Module):
    """TSDF voxels at R -> features at R and R / 2, kept as skips, and a dense grid at R / 4."""

    def __init__(self, channels: tuple[int, int, int], convolutions: int) -> None:
        super().__init__()
        self.entry = SubmanifoldConv(1, channels[0])
        self.fine = nn.ModuleList(SparseResidual(channels[0]) for _ in range(convolutions))
        self.to_middle = DownConv(channels[0], channels[1])
        self.middle = nn.ModuleList(SparseResidual(channels[1]) for _ in range(convolutions))
        self.to_coarse = DownConv(channels[1], channels[2])

    def forward(self, values: Tensor, grid: SparseGrid) -> tuple[list[tuple[SparseGrid, Tensor]], Tensor, SparseGrid]:
        """Encode ``values`` (M, 1) in (-1, 1) on ``grid``.

        Returns the skips [(grid R, (M, C0)), (grid R/2, (M', C1))], a dense (N, C2, r, r, r) with r = R / 4, and the
        grid that it was scattered from.
        """
        fine = self.entry(values, grid)
        for block in self.fine:
            fine = block(fine, grid)
        middle_grid = grid.parents()
        middle = self.to_middle(fine, grid, middle_grid)
        for block in self.middle:
            middle = block(middle, middle_grid)
        coarse_grid = middle_grid.parents()
        coarse = self.to_coarse(middle, middle_grid, coarse_grid)
        return [(grid, fine), (middle_grid, middle)], coarse_grid.dense(coarse), coarse_grid


class DenseResidual(nn.Module):
    """x + conv(relu(norm(conv(relu(norm(x)))))) on a whole grid."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Sequential(*norm_relu(channels), DenseConv3d(channels, channels, kernel_size=3, padding=1))
        last = DenseConv3d(channels, channels, kernel_size=3, padding=1)
        nn.init.zeros_(last.weight)  # a block starts as the identity, up to a shift
        self.second = nn.Sequential(*norm_relu(channels), last)

    def forward(self, grid: Tensor) -> Tensor:
        """(N, C, l, l, l) -> (N, C, l, l, l)."""
        return grid + self.second(self.first(grid))


class DenseEncoder(nn.Module):
    """Features at r = R / 4 -> latent grid, by as many strided convolutions as there are octaves between them.

    ``blocks`` residual blocks follow each of them, where a convolution spans much of the body and costs little. The
    first ``scattered`` inputs are zero in most cells.
    """

    def __init__(self, inputs: int, latent: int, octaves: int, blocks: int, scattered: int = 0) -> None:
        super().__init__()
        widths = [inputs] + [min(latent, 64 << i) for i in range(octaves)]
        self.levels = nn.ModuleList(
            nn.Sequential(
                DenseConv3d(
                    widths[i], widths[i + 1], kernel_size=4, stride=2, padding=1, scattered=0 if i else scattered
                ),
                *norm_relu(widths[i + 1]),
                *(DenseResidual(widths[i + 1]) for _ in range(blocks)),
            )
            for i in range(octaves)
        )
        self.last = Pointwise3d(widths[-1], latent)
        self.skip_channels = widths[:-1]

    def forward(self, grid: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(N, I, r, r, r) -> latent (N, L, l, l, l), and the input of each level, finest first."""
        skips = []
        for level in self.levels:
            skips.append(grid)
            grid = level(grid)
        return self.last(grid), skips


def informative_cells(seen: Tensor, observed: SparseGrid, cells: int) -> Tensor:
    """Latent cells that take part in attention: (N, l, l, l) bool.

    A cell is left out where no TSDF voxel lies in it (``observed`` at r) and the camera either saw all of it to be
    empty or had no return along its rays (``seen`` (N, 2, r, r, r), the shares of both).
    """
    frames, _, side = seen.shape[:3]
    blocked = seen.sum(1) < 0.999
    blocked[tuple(observed.coords.long().unbind(1))] = True
    step = side // cells
    return blocked.view(frames, cells, step, cells, step, cells, step).any(6).any(4).any(2)
