"""What sets the presets apart: values laid over the defaults of :mod:`nr_tracking.config`.

``test`` is for unit tests. ``lite`` (4.0 M parameters, of which 3.6 M complete along rays) spares what time it can: its
surfaces are those along rays, frame by frame, and its network in the cube runs only if the network's guess of motions
is switched on. ``base`` (15.7 M) takes the mean of both, at 64 voxels a side. It is much wider where voxels or pixels
are large, which costs little: the seen surface needs resolution, and the unseen one knowledge of bodies. ``full``, 128
voxels a side, is for training and running on a GPU.
"""

from __future__ import annotations

from typing import Any, Final

DEFAULT_PRESET: Final = "base"
"""Where none is named: the best that has weights."""

PRESET_MEANING: Final = (
    "network, its weights and the defaults that go with them; weights are shipped for lite and base, but not for test "
    "(for unit tests) and full (for a GPU), which must be trained first"
)
"""Of the setting, and wherever else a preset is chosen."""

PRESET_VALUES: dict[str, dict[str, Any]] = {
    "test": {
        "model": {
            "resolution": 32,
            "sparse_channels": (4, 8, 16),
            "latent_cells": 4,
            "latent_channels": 16,
            "attention_layers": 1,
            "attention_heads": 2,
            "dense_channels": (8, 8),
            "refine_channels": (8, 8),
            "field_channels": 8,
            "mlp_width": 16,
            "embedding_channels": 8,
            "deformation_width": 16,
        },
        "deformation": {"patches": 60, "hierarchy": (20, 8)},
    },
    "lite": {
        "model": {"rays": True, "ray_share": 1.0, "ray_channels": (24, 48, 96, 160, 192)},
        "deformation": {"backend": "none"},
        "refinement": {"nodes": 220},
        "window": {"stride": 1},
    },
    "base": {
        "model": {
            "sparse_channels": (16, 32, 64),
            "latent_cells": 4,
            "latent_channels": 192,
            "attention_heads": 6,
            "dense_channels": (128, 64),
            "dense_blocks": 1,
            "refine_channels": (24, 16),
            "mlp_width": 64,
            "rays": True,
            "ray_channels": (48, 96, 160, 224, 256),
            "ray_blocks": (1, 1, 3, 4, 3),
        },
        "refinement": {"nodes": 300, "samples": 2000},
        "window": {"length": 2, "stride": 1},
    },
    "full": {
        "model": {
            "resolution": 128,
            "sparse_channels": (32, 64, 128),
            "convolutions": 2,
            "latent_cells": 16,
            "latent_channels": 256,
            "attention_layers": 6,
            "attention_heads": 8,
            "attention_mode": "temporal",
            "dense_channels": (128, 64),
            "refine_channels": (64, 32),
            "field_channels": 32,
            "mlp_width": 128,
            "mlp_layers": 3,
            "deformation_width": 128,
        },
        "deformation": {"patches": 400, "hierarchy": (130, 45)},
        "refinement": {"nodes": 300, "samples": 2000},
    },
}
