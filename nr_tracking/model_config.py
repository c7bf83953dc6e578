"""Settings of the networks; those of tracking are in :mod:`nr_tracking.config`, of which these are a section."""

from __future__ import annotations

from typing import Literal

from nr_tracking.section import Section, setting


class ModelConfig(Section):
    """The completion network and the deformation decoder: the settings that a set of weights is made for."""

    resolution: int = setting(64, "voxels along one side of the cube, R", unit="voxel", ge=16, le=256)
    sparse_channels: tuple[int, int, int] = setting((8, 16, 32), "encoder channels at R, R/2 and R/4")
    convolutions: int = setting(1, "residual blocks of two sparse convolutions on each level", ge=1, le=4)
    latent_cells: int = setting(8, "cells of the latent grid along one side of the cube", ge=2, le=32)
    latent_channels: int = setting(64, "channels of the latent grid", ge=8, le=512)
    attention_layers: int = setting(2, "attention layers across the frames of a window; 0: none", ge=0, le=12)
    attention_heads: int = setting(4, "attention heads", ge=1, le=16)
    attention_mode: Literal["joint", "temporal"] = setting(
        "joint",
        "joint: all cells of all frames attend to each other; temporal: each cell attends to itself in other frames",
    )
    drop_empty_tokens: bool = setting(
        True, "leave cells that the camera saw to be empty, or where it got no return, out of the attention"
    )
    dense_channels: tuple[int, int] = setting((32, 16), "dense decoder channels at the latent grid and at R/4")
    dense_blocks: int = setting(
        0,
        "residual blocks on each level coarser than R/4, in the dense encoder and again in the dense decoder",
        ge=0,
        le=8,
    )
    refine_channels: tuple[int, int] = setting((16, 8), "sparse decoder channels at R/2 and R")
    field_channels: int = setting(16, "feature channels of the field, C, the same on all three scales", ge=4, le=64)
    mlp_width: int = setting(32, "width of the MLP that turns features into signed distances", ge=8, le=256)
    mlp_layers: int = setting(2, "hidden layers of that MLP", ge=1, le=6)
    seen_empty: bool = setting(
        True, "give the network two further inputs: which space the camera saw to be empty, and where it got no return"
    )
    filter_voxels: tuple[float, float] = setting(
        (2.0, 2.0),
        "half the width of the band around the coarser field's surface that is refined, in voxels of R/2 and of R",
        unit="voxel",
    )
    active_cap: float = setting(
        8.0,
        "most voxels of a frame refined at R/2 and at R beside the observed ones, over the squared resolution; "
        "those nearest to the surface stay",
        gt=0,
        le=64,
    )
    rays: bool = setting(
        False, "complete along the camera's rays as well; the field is a weighted mean of both networks' distances"
    )
    ray_share: float = setting(
        0.5,
        "weight of the distances along rays in that mean; at 1 the network in the cube runs only for the guess of a "
        "motion and for the embedding",
        ge=0,
        le=1,
    )
    ray_pixels: int = setting(
        128,
        "side of the image of rays through the cube; a multiple of 32",
        unit="pixel",
        ge=32,
        le=1024,
        multiple_of=32,
    )
    ray_channels: tuple[int, int, int, int, int] = setting(
        (32, 64, 96, 128, 160), "channels of the ray network on its five levels, from 1/2 to 1/32 of the image of rays"
    )
    ray_blocks: tuple[int, int, int, int, int] = setting(
        (1, 1, 2, 2, 2), "residual blocks of the ray network on these levels"
    )
    ray_steps: int = setting(48, "depths along each ray at which the signed distance is predicted", ge=8, le=256)
    embedding_channels: int = setting(32, "channels of the association embedding", ge=4, le=128)
    deformation_width: int = setting(64, "width of the deformation decoder", ge=8, le=256)
    deformation_heads: int = setting(
        4, "weight matrices of each graph convolution (FeaStNet) in the deformation decoder", ge=1, le=16
    )

    @property
    def rays_alone(self) -> bool:
        """Whether surfaces come from the ray network alone; the network in the cube then runs only on request."""
        return self.rays and self.ray_share == 1
