"""The exact nearest place on triangles: what projections are held against."""

import numpy as np


def nearest_on_triangles(points, corners):
    """Nearest place (Q, 3) on triangle ``corners`` (Q, 3, 3) to each of ``points`` (Q, 3), and its shares (Q, 3)."""
    a = corners[:, 0]
    ab, ac, ap = corners[:, 1] - a, corners[:, 2] - a, points - a
    d00, d01, d11 = _dot(ab, ab), _dot(ab, ac), _dot(ac, ac)
    d20, d21 = _dot(ap, ab), _dot(ap, ac)
    area = d00 * d11 - d01 * d01
    safe = np.where(area > 0, area, 1.0)
    v, w = (d11 * d20 - d01 * d21) / safe, (d00 * d21 - d01 * d20) / safe
    outside = np.flatnonzero((v < 0) | (w < 0) | (v + w > 1) | (area <= 0))

    # Outside, the nearest place is on one of the three edges: clamp to each and take the best.
    o00, o01, o11, o20, o21 = (value[outside] for value in (d00, d01, d11, d20, d21))
    along_ab, along_ac = _clamped(o20, o00), _clamped(o21, o11)
    along_bc = _clamped(o21 - o20 - o01 + o00, o00 - 2 * o01 + o11)
    zero = np.zeros_like(along_ab)
    v_edge = np.stack((along_ab, zero, 1 - along_bc))
    w_edge = np.stack((zero, along_ac, along_bc))
    # Squared distance to a + v ab + w ac, up to the same |ap|^2 for all.
    cost = v_edge**2 * o00 + 2 * v_edge * w_edge * o01 + w_edge**2 * o11 - 2 * (v_edge * o20 + w_edge * o21)
    best = cost.argmin(axis=0), np.arange(len(outside))
    v[outside], w[outside] = v_edge[best], w_edge[best]
    return a + v[:, None] * ab + w[:, None] * ac, np.stack((1 - v - w, v, w), axis=1)


def _dot(first, second):
    return np.einsum("qi,qi->q", first, second)


def _clamped(above, below):
    return np.clip(above / np.where(below > 0, below, 1.0), 0.0, 1.0)
