"""The completion network: the TSDF windows of a camera that sees one side, in; complete distance fields, out.

    TSDF at R --sparse encoder--> R/2 --> R/4 --dense encoder--> latent --attention across frames--> latent
    latent --dense decoder--> field at R/4 --filter--> field at R/2 --filter--> field at R

With ``model.rays`` a network on the image plane completes along the camera's rays before (:mod:`.rays`); its distances
are an input on every scale, and half of the field: two opinions, one formed on the image and one in space.

After Merrouche, Wuhrer, Boyer 2024, Combining Neural Fields and Deformation Models for Non-Rigid 3D Motion
Reconstruction from Partial Data, with three scales of the field where the paper has two.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from nr_tracking.config import ConfigError, ModelConfig
from nr_tracking.fields.decoder import (
    DenseDecoder,
    FineDecoder,
    MiddleDecoder,
    distances_of_children,
    distances_of_coarse,
    near_surface_of_coarse,
    near_surface_of_middle,
    read_skip,
    united,
)
from nr_tracking.fields.encoder import DenseEncoder, SparseEncoder, informative_cells
from nr_tracking.fields.field import DistanceMLP, EmbeddingHead, FieldWindow, KnownDistances
from nr_tracking.fields.fusion import FrameCodes, FrameFusion
from nr_tracking.fields.pointwise import Linear
from nr_tracking.fields.ray_prior import RayPrior
from nr_tracking.fields.rays import RayField, RayNetwork
from nr_tracking.fields.sparse import DownConv, SparseGrid, SubmanifoldConv, UpConv, linear_keys
from nr_tracking.sensing.tensors import cpu_has_bfloat16, cuda_has_bfloat16
from nr_tracking.types import InputError

if TYPE_CHECKING:
    from nr_tracking.sensing.ray_images import RayImages
    from nr_tracking.sensing.tsdf import TsdfWindow

_MULTIPLIES = (nn.Linear, nn.Conv2d, nn.Conv3d, nn.ConvTranspose3d, SubmanifoldConv, DownConv, UpConv)
OBSERVED = 0.5  # TSDF voxels with a smaller magnitude are refined whatever the coarser field says


class EncodedFrames(NamedTuple):
    """What the encoder makes of frames, each on its own, and the decoder reads.

    ``codes`` are those of all frames that attend to each other. Besides, of those to be completed: voxels at R with
    their ``values`` (M, 1), features of the sparse levels, those of the dense ones, and what the rays say.
    """

    codes: FrameCodes
    grid: SparseGrid
    values: Tensor
    skips: list[tuple[SparseGrid, Tensor]]
    dense_skips: list[Tensor]
    prior: RayPrior | None


class CompletionNetwork(nn.Module):
    """TSDF windows -> :class:`FieldWindow`.

    Convolutions run in bfloat16 where ``mixed_precision`` is set and the hardware has it, on a GPU attention too; the
    distance MLP and everything that reads the field stay in float32. Raises :class:`ConfigError` where resolution,
    latent grid and heads do not fit together.
    """

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        octaves = _octaves(model)
        if model.latent_channels % model.attention_heads:
            raise ConfigError(
                f"model.latent_channels: {model.latent_channels} must be a multiple of model.attention_heads, "
                f"{model.attention_heads}"
            )
        self.model = model
        self.mixed_precision = True
        fine, middle, coarse = model.sparse_channels
        shape = (model.ray_channels, model.ray_blocks, model.ray_steps, model.ray_share)
        self.rays = RayNetwork(*shape) if model.rays else None
        hints = 1 if model.rays else 0  # what the rays say about a voxel
        self.sparse_encoder = SparseEncoder(model.sparse_channels, model.convolutions)
        inputs = coarse + 2 + 8 * hints  # of these, features of what was seen are in few cells
        self.dense_encoder = DenseEncoder(inputs, model.latent_channels, octaves, model.dense_blocks, scattered=coarse)
        self.fusion = FrameFusion(
            model.latent_channels, model.attention_layers, model.attention_heads, model.attention_mode
        )
        self.dense_decoder = DenseDecoder(
            model.latent_channels, model.dense_channels, self.dense_encoder.skip_channels, model.dense_blocks
        )
        self.middle_decoder = MiddleDecoder(
            model.dense_channels[1], middle + hints, model.refine_channels[0], model.convolutions
        )
        self.fine_decoder = FineDecoder(
            model.refine_channels[0], fine + hints, model.refine_channels[1], model.convolutions
        )
        self.to_field = nn.ModuleList(
            Linear(width, model.field_channels) for width in (model.dense_channels[1], *model.refine_channels)
        )
        start = 0.0 if model.rays else DistanceMLP.OUTSIDE
        self.distance = DistanceMLP(
            model.field_channels, model.mlp_width, model.mlp_layers, 4 / model.resolution, start
        )
        self.embedding = EmbeddingHead(model.field_channels, model.embedding_channels)
        for module in (self.dense_encoder, self.dense_decoder):
            module.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def forward(
        self,
        window: TsdfWindow,
        teacher: dict[int, Tensor] | None = None,
        rays: RayField | None = None,
        earlier: FrameCodes | None = None,
    ) -> FieldWindow:
        """Complete every frame of one or more windows of equal length.

        ``window``: ``coords`` (M, 4) int32 [frame, x, y, z], ``values`` (M, 1) in (-1, 1), ``seen`` (N, 2, r, r, r)
        with r = R / 4, frames of one window next to each other. ``teacher`` (training only): for resolutions R / 2
        and R the voxels (K, 4) int32 that must be refined, united with those that the network itself finds near its
        surface. ``rays``: what :meth:`complete_rays` says of the window's frames, where that is known already.
        ``earlier``: the codes of frames that come before these in the same, single window; these attend to them, and
        they are not completed anew. Raises :class:`InputError` for a window of another resolution or a malformed one.
        """
        encoded = self.encode(window, rays)
        codes, before = encoded.codes, 0
        if earlier is not None:
            if window.length != len(codes.keep):
                raise InputError("window_length", "earlier frames belong to one window: give no batch of them")
            codes, before = FrameCodes.joined([earlier, codes]), len(earlier.keep)
        latent = self._fused(codes, before + window.length, before)
        return self.decode(encoded._replace(codes=codes), latent, teacher)

    def encode(self, window: TsdfWindow, rays: RayField | None = None) -> EncodedFrames:
        """The half of :meth:`forward` before frames attend to each other: no frame depends on another one."""
        grid, values = self._input(window)
        prior = self._prior(window, rays)
        with self._autocast(grid.device):
            skips, encoded, coarse_grid = self.sparse_encoder(values, grid)
            inputs = [encoded, window.seen.to(encoded.dtype) * self.model.seen_empty]
            if prior is not None:
                inputs.append(prior.blocks.to(encoded.dtype))
            # Joined with the channels last, as the convolutions want them.
            joined = torch.cat([part.permute(0, 2, 3, 4, 1) for part in inputs], dim=-1).permute(0, 4, 1, 2, 3)
            latent, dense_skips = self.dense_encoder(joined)
        codes = FrameCodes(latent, self._kept(window.seen, coarse_grid))
        return EncodedFrames(codes, grid, values, skips, dense_skips, prior)

    def decode(self, encoded: EncodedFrames, latent: Tensor, teacher: dict[int, Tensor] | None = None) -> FieldWindow:
        """The half of :meth:`forward` after frames have attended to each other: ``latent`` (N, L, l, l, l) -> fields.

        ``teacher`` as in :meth:`forward`.
        """
        grid, prior, skips, resolution = encoded.grid, encoded.prior, encoded.skips, self.model.resolution
        frames = grid.frames
        with self._autocast(grid.device):
            dense = self.dense_decoder(latent, encoded.dense_skips).permute(0, 2, 3, 4, 1)  # (N, r, r, r, D)
        coarse = self._to_field(0, dense)

        required = [teacher[resolution]] if teacher and resolution in teacher else []
        required.append(grid.coords[encoded.values.detach()[:, 0].abs() < OBSERVED])
        tau, cap = self._filter(resolution // 2)
        distances = distances_of_coarse(coarse, self.distance)
        if prior is not None:
            distances = prior.mixed_with(distances)
        found = near_surface_of_coarse(distances, resolution // 2, tau, cap)
        taught = [teacher[resolution // 2]] if teacher and resolution // 2 in teacher else []
        above = [torch.cat([part[:, :1], part[:, 1:] // 2], dim=1) for part in required]
        middle_grid = united([found, *taught, *above], resolution // 2, frames)
        with self._autocast(grid.device):
            refined = self.middle_decoder(dense, middle_grid, _hinted(skips[1], middle_grid, prior))
        middle = self._to_field(1, refined)

        tau, cap = self._filter(resolution)
        children = distances_of_children(middle_grid, middle, self.distance)
        if prior is not None:
            children = prior.mixed_at_children(middle_grid, children)
        found = near_surface_of_middle(middle_grid, children, tau, cap)
        fine_grid = united([found, *required], resolution, frames)
        with self._autocast(grid.device):
            finest = self.fine_decoder((middle_grid, refined), fine_grid, _hinted(skips[0], fine_grid, prior))
        fine = self._to_field(2, finest)
        known = KnownDistances(distances, children)
        along = prior.field if prior is not None else None
        return FieldWindow(
            coarse, (middle_grid, middle), (fine_grid, fine), known, self.distance, self.embedding, along, encoded.codes
        )

    def _fused(self, codes: FrameCodes, length: int, before: int) -> Tensor:
        """Latent grids (N, L, l, l, l) of frames that have attended to each other and to the ``before`` first ones.

        In full precision on a CPU, in training too: how many cells take part changes from frame to frame, and each
        number is a size for which oneDNN would compile products in bfloat16, in more time than they take.
        """
        latent = codes.latent
        if latent.device.type == "cpu":
            exact = latent.to(self.fusion.last.weight.dtype)
            return self.fusion(exact, length, codes.keep, before).to(latent.dtype)  # type: ignore[no-any-return]
        with self._autocast(latent.device):
            return self.fusion(latent, length, codes.keep, before)  # type: ignore[no-any-return]

    def complete_rays(self, images: RayImages) -> RayField:
        """What is known along the rays of single frames: the half of the network that needs no window."""
        if self.rays is None:
            raise InputError("no_rays", "this network does not complete along rays: set model.rays")
        with self._autocast(images.channels.device):
            return self.rays(images)

    def _prior(self, window: TsdfWindow, rays: RayField | None) -> RayPrior | None:
        """What the rays say about the window; None for a network without them."""
        if not self.model.rays:
            return None
        if rays is None:
            if window.rays is None:
                raise InputError("no_rays", "this network completes along rays: build the window with model.rays")
            rays = self.complete_rays(window.rays)
        return RayPrior(rays, self.model.resolution // 2)

    def _input(self, window: TsdfWindow) -> tuple[SparseGrid, Tensor]:
        """The window's voxels in the order that the layers want, with their values (M, 1); checks both."""
        resolution, frames = self.model.resolution, window.seen.shape[0]
        if window.resolution != resolution:
            raise InputError(
                "resolution",
                f"a TSDF window of resolution {window.resolution} meets a network for {resolution}; "
                "build the window with model.resolution",
            )
        if frames == 0 or frames % window.length:
            raise InputError("window_length", f"{frames} frames are not a whole number of windows of {window.length}")
        if window.seen.shape[1:] != (2,) + (resolution // 4,) * 3:
            raise InputError(
                "seen_shape", f"seen is {tuple(window.seen.shape)}; it must be (N, 2, r, r, r), r = {resolution // 4}"
            )
        keys, order = torch.sort(linear_keys(window.coords, resolution))
        if len(keys) > 1 and bool((keys[1:] == keys[:-1]).any()):
            raise InputError("duplicate_voxels", "a TSDF window holds the same voxel twice; make its coords unique")
        dtype = self.distance.last.weight.dtype
        return SparseGrid(window.coords[order].int(), resolution, frames), window.values[order].to(dtype)

    def _kept(self, seen: Tensor, observed: SparseGrid) -> Tensor:
        """Latent cells (N, l, l, l) bool that take part in attention."""
        cells = self.model.latent_cells
        if self.model.drop_empty_tokens:
            return informative_cells(seen, observed, cells)
        return torch.ones((seen.shape[0], cells, cells, cells), dtype=torch.bool, device=seen.device)

    def _to_field(self, scale: int, features: Tensor) -> Tensor:
        """The features of a scale in the C channels that the distance MLP reads, in full precision."""
        layer = self.to_field[scale]
        return layer(features.to(layer.weight.dtype))  # type: ignore[arg-type]

    def _filter(self, resolution: int) -> tuple[float, int]:
        """Half-width in box sides of the band to be refined at ``resolution``, and the most voxels of a frame in it."""
        index = 0 if resolution < self.model.resolution else 1
        return self.model.filter_voxels[index] / resolution, int(self.model.active_cap * resolution**2)

    @torch.no_grad()
    def hold_bfloat16(self, device: torch.device) -> None:
        """Keep the weights that are multiplied in bfloat16 as such, where they are; for networks that learn no more.

        They would be cast anew for every window, which takes as long as a good part of the multiplications.
        """
        if self.uses_bfloat16(device):
            for module in self.multiplied_in_bfloat16(device):
                module.weight.data = module.weight.data.bfloat16()  # type: ignore[operator, union-attr]

    def multiplied_in_bfloat16(self, device: torch.device) -> Iterator[nn.Module]:
        """The layers whose ``weight`` is multiplied in bfloat16 on such a device, where the hardware has it."""
        parts: tuple[nn.Module | None, ...] = (
            self.sparse_encoder,
            self.dense_encoder,
            None if device.type == "cpu" else self.fusion,
            self.dense_decoder,
            self.middle_decoder,
            self.fine_decoder,
            self.rays,
        )
        for part in filter(None, parts):
            yield from (module for module in part.modules() if isinstance(module, _MULTIPLIES))

    def _autocast(self, device: torch.device) -> torch.autocast:
        return torch.autocast(device.type, torch.bfloat16, enabled=self.uses_bfloat16(device))

    def uses_bfloat16(self, device: torch.device) -> bool:
        """Whether convolutions run in bfloat16 here."""
        if not self.mixed_precision or self.distance.last.weight.dtype != torch.float32:
            return False
        return cpu_has_bfloat16() if device.type == "cpu" else device.type != "cuda" or cuda_has_bfloat16(device)


def _hinted(skip: tuple[SparseGrid, Tensor], grid: SparseGrid, prior: RayPrior | None) -> Tensor:
    """The encoder's features (M, C) at the voxels of ``grid``, and what the rays say there, where there are any."""
    features = read_skip(skip, grid)
    return features if prior is None else torch.cat([features, prior.hint(grid).to(features.dtype)], dim=1)


def _octaves(model: ModelConfig) -> int:
    """Strided levels between R / 4 and the latent grid."""
    ratio = model.resolution / 4 / model.latent_cells
    octaves = round(math.log2(ratio)) if ratio >= 1 else -1
    if model.resolution % 4 or octaves < 0 or 2**octaves != ratio:
        raise ConfigError(
            f"model.latent_cells: {model.latent_cells} does not fit model.resolution {model.resolution}: "
            "resolution / 4 / latent_cells must be a power of two (1, 2, 4, ...)"
        )
    return octaves
