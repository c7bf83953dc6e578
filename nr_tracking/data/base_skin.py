"""The skin of MakeHuman's base mesh without cavities that no camera sees into, and with hands that can be wrapped.

The inside of the mouth and the sockets of the eyes are as wide as the cells of a wrapped surface, which would be torn
open there: the skin is cut along lips and lids, and a lid is put on. Fingers are as thick as a cell: they are made a
little thicker, so that they come out whole and as thick as they were.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from nr_tracking.normals import vertex_normals

# Each in order along the edges of the base mesh.
LIPS = (
    *(7236, 7242, 7243, 494, 488, 487, 481, 482, 476, 502, 503, 3705, 501, 428, 3733, 430, 418, 419, 469, 5362, 470),
    *(471, 472, 473, 474, 7229, 7228, 7227, 7226, 11964, 7225, 7179, 7178, 7190, 10401, 7188, 7250, 10373, 7252, 7251),
    *(7231, 7237),
)
LEFT_LIDS = (
    *(11489, 6856, 6853, 13361, 13360, 7770, 7769, 13363, 7768, 13364, 7772, 13369, 7767, 7766, 7792, 7765, 7791),
    *(7774, 7773, 7749, 13357, 7750, 13356, 13355, 13354, 6805, 6808, 6811, 11693, 13379, 13366, 7757, 7758, 7759),
    *(7785, 7786, 7787, 7788, 7763, 11717, 13378, 6837),
)
RIGHT_LIDS = (
    *(6767, 1077, 1078, 6764, 6765, 69, 72, 4871, 53, 6782, 5102, 1071, 1096, 1095, 1094, 1093, 1067, 1066, 1065),
    *(6770, 6783, 5078, 27, 24, 21, 6758, 6759, 6760, 1058, 6761, 1057, 1081, 1082, 1099, 1073, 1100, 1074, 1075),
    *(6773, 1080, 6768, 1076),
)
RIMS = tuple(np.array(rim) for rim in (LIPS, LEFT_LIDS, RIGHT_LIDS))


def lidded(faces: np.ndarray, count: int) -> np.ndarray:
    """Faces (F, 3) of the skin over ``count`` vertices, cut along the rims, each closed by a fan.

    The fans meet in three more vertices, numbered ``count`` and up: the means of their rims.
    """
    edges = np.concatenate([np.stack([rim, np.roll(rim, -1)], 1) for rim in RIMS])
    outside = _largest_piece(faces, edges)
    directed = {(int(a), int(b)) for a, b in outside[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)}
    fans = []
    for number, rim in enumerate(RIMS):
        along = np.stack([rim, np.roll(rim, -1)], 1)
        along = np.array([(b, a) if (int(a), int(b)) in directed else (a, b) for a, b in along])
        fans.append(np.column_stack([along, np.full(len(along), count + number)]))
    return np.vstack([outside, *fans])


def with_lids(values: np.ndarray) -> np.ndarray:
    """Values (V, C) of the base vertices, and those of the three lids' middles."""
    return np.vstack([values, *[values[rim].mean(0)[None] for rim in RIMS]])


def thickened(vertices: np.ndarray, faces: np.ndarray, share: np.ndarray, much: float) -> np.ndarray:
    """Vertices (V, 3) moved outwards by ``much`` where ``share`` (V,) is one half or more, by less where it is less."""
    return vertices + vertex_normals(vertices, faces) * (much * np.clip(2 * share, 0, 1))[:, None]


def _largest_piece(faces: np.ndarray, cut: np.ndarray) -> np.ndarray:
    """The largest piece of ``faces`` (F, 3) that hangs together by edges other than those of ``cut`` (E, 2)."""
    count = int(faces.max()) + 1
    directed = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), 1)
    key, face = directed @ [count, 1], np.repeat(np.arange(len(faces)), 3)
    kept = ~np.isin(key, np.sort(cut, 1) @ [count, 1])
    _, edge = np.unique(key[kept], return_inverse=True)
    meets = coo_matrix((np.ones(kept.sum()), (face[kept], edge)), shape=(len(faces), edge.max() + 1)).tocsr()
    piece = connected_components(meets @ meets.T, directed=False)[1]
    return faces[piece == np.bincount(piece).argmax()]
