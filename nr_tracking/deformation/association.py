"""Soft associations between the patches of two surfaces (Merrouche et al. 2024, eq. 9-10).

    forward = associate(features_i, features_j, scale)    # (P_i, P_j), rows sum to 1
    matched = forward @ centres_j                         # (P_i, 3)

The other direction (eq. 10) is ``associate(features_j, features_i, scale)``.
"""

from __future__ import annotations

import torch
from torch import Tensor


def associate(features_i: Tensor, features_j: Tensor, scale: float | Tensor) -> Tensor:
    """Softmax over the patches of j of ``scale`` times the cosine of features (eq. 9).

    ``features_i`` (..., P_i, C) and ``features_j`` (..., P_j, C), of any length; returns (..., P_i, P_j), each row a
    distribution. A small scale blurs every match towards the centroid, a large one starves all but the best of
    gradient.
    """
    unit_i = torch.nn.functional.normalize(features_i, dim=-1)
    unit_j = torch.nn.functional.normalize(features_j, dim=-1)
    return torch.softmax(scale * (unit_i @ unit_j.transpose(-1, -2)), dim=-1)
