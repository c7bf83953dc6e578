"""Settings of the networks; those of tracking are in :mod:`nr_tracking.config`, of which these are a section."""

from __future__ import annotations

from typing import Literal

from nr_tracking.section import Section, setting


class ModelConfig(Section):
    """The completion network; what a set of weights is made for."""

    resolution: int = setting(64, "voxels along one side of the cube, R", unit="voxel", ge=16, le=256)
    sparse_channels: tuple[int, int, int] = setting((8, 16, 32), "encoder channels at R, R/2 and R/4")
    convolutions: int = setting(1, "residual convolution pairs in a level", ge=1, le=4)
    latent_cells: int = setting(8, "latent grid cells along one side", ge=2, le=32)
    latent_channels: int = setting(64, "latent channels", ge=8, le=512)
    attention_layers: int = setting(2, "transformer layers across the window, 0 for none", ge=0, le=12)
    attention_heads: int = setting(4, "attention heads", ge=1, le=16)
    attention_mode: Literal["joint", "temporal"] = setting(
        "joint", "joint: all cells of all frames attend to each other; temporal: each cell across time"
    )
    drop_empty_tokens: bool = setting(True, "cells that the camera saw to be empty take no part in attention")
    dense_channels: tuple[int, int] = setting((32, 16), "dense decoder channels at the latent grid and at R/4")
    dense_blocks: int = setting(
        0, "residual blocks at each level below R/4, on either side of the latent grid", ge=0, le=8
    )
    refine_channels: tuple[int, int] = setting((16, 8), "sparse decoder channels at R/2 and R")
    field_channels: int = setting(16, "feature channels of the field, C, equal on all scales", ge=4, le=64)
    mlp_width: int = setting(32, "width of the distance MLP", ge=8, le=256)
    mlp_layers: int = setting(2, "hidden layers of the distance MLP", ge=1, le=6)
    seen_empty: bool = setting(True, "give the network what the camera saw to be empty, and where it got no return")
    filter_voxels: tuple[float, float] = setting(
        (2.0, 2.0), "refine where the coarser field is within this many voxels of R/2, then of R", unit="voxel"
    )
    active_cap: float = setting(
        8.0,
        "active voxels of a frame at most, over the squared resolution; those nearest to the surface stay",
        gt=0,
        le=64,
    )
    rays: bool = setting(False, "complete along the camera's rays too: the field is a mean of that and the cube's own")
    ray_share: float = setting(
        0.5,
        "weight of distances along rays in that mean; at 1 the network in the cube runs only for associations",
        ge=0,
        le=1,
    )
    ray_pixels: int = setting(
        128, "side of the image along rays; a multiple of 32", unit="pixel", ge=32, le=1024, multiple_of=32
    )
    ray_channels: tuple[int, int, int, int, int] = setting(
        (32, 64, 96, 128, 160), "channels of the ray network at a half to a 32nd of its image"
    )
    ray_blocks: tuple[int, int, int, int, int] = setting((1, 1, 2, 2, 2), "residual blocks at these levels")
    ray_steps: int = setting(48, "depths at which each ray's distance is given", ge=8, le=256)
    embedding_channels: int = setting(32, "channels of the association embedding", ge=4, le=128)
    deformation_width: int = setting(64, "width of the deformation decoder", ge=8, le=256)
    deformation_heads: int = setting(
        4, "weight matrices that edges of the deformation decoder choose among", ge=1, le=16
    )

    @property
    def rays_alone(self) -> bool:
        """Whether surfaces are known along rays alone: the network in the cube runs only where it is asked."""
        return self.rays and self.ray_share == 1
