"""Images into tiles whose 3 x 3 convolution is a product, and back: for :mod:`nr_tracking.fields.winograd`.

Tiles are 4 x 4 pixels of a result, for which 6 x 6 of the image are read. A tile is known by 36 numbers for each
channel, its values at as many points (Lavin and Gray 2016, *Fast Algorithms for Convolutional Neural Networks*).
"""

from __future__ import annotations

import numpy as np

from nr_tracking.loops.compiler import compiled, inlined
from nr_tracking.types import Float32

_TWO, _FOUR, _FIVE, _EIGHT = np.float32(2), np.float32(4), np.float32(5), np.float32(8)


@inlined
def _at_six_points(
    a: Float32, b: Float32, c: Float32, d: Float32, e: Float32, f: Float32,
    p: Float32, q: Float32, r: Float32, s: Float32, t: Float32, u: Float32,
) -> None:  # fmt: skip
    """Six numbers in a row, a to f, each for all channels (C,), into p to u: B^T of F(4, 3)."""
    for k in range(len(a)):
        a_k, b_k, c_k, d_k, e_k, f_k = a[k], b[k], c[k], d[k], e[k], f[k]  # all read before the first is written
        p[k] = _FOUR * a_k - _FIVE * c_k + e_k
        even, odd = e_k - _FOUR * c_k, d_k - _FOUR * b_k
        q[k] = even + odd
        r[k] = even - odd
        even, odd = e_k - c_k, _TWO * (d_k - b_k)
        s[k] = even + odd
        t[k] = even - odd
        u[k] = _FOUR * b_k - _FIVE * d_k + f_k


@inlined
def _of_six_points(
    a: Float32, b: Float32, c: Float32, d: Float32, e: Float32, f: Float32, shift: Float32,
    p: Float32, q: Float32, r: Float32, s: Float32,
) -> None:  # fmt: skip
    """Four results in a row, p to s, from products at six points, a to f, plus ``shift``: A^T of F(4, 3)."""
    for k in range(len(a)):
        sum_1, step_1, sum_2, step_2 = b[k] + c[k], b[k] - c[k], d[k] + e[k], d[k] - e[k]
        p[k] = a[k] + sum_1 + sum_2 + shift[k]
        q[k] = step_1 + _TWO * step_2 + shift[k]
        r[k] = sum_1 + _FOUR * sum_2 + shift[k]
        s[k] = step_1 + _EIGHT * step_2 + f[k] + shift[k]


@compiled
def into_tiles(images: Float32, tiles: Float32) -> None:
    """``images`` (N, H, W, C), sides multiples of 4, beside which all is zero, into ``tiles`` (36, N H W / 16, C)."""
    count, height, width, channels = images.shape
    across = width // 4
    of_image = height // 4 * across
    read, half = np.empty((6, 6, channels), np.float32), np.empty((6, 6, channels), np.float32)
    for tile in range(count * of_image):
        n, within = tile // of_image, tile % of_image
        top, left = within // across * 4 - 1, within % across * 4 - 1
        for i in range(6):
            for j in range(6):
                y, x, place = top + i, left + j, read[i, j]
                if 0 <= y < height and 0 <= x < width:
                    pixel = images[n, y, x]
                    for k in range(channels):
                        place[k] = pixel[k]
                else:
                    for k in range(channels):
                        place[k] = 0
        for i in range(6):
            a, b, c, d, e, f = read[i, 0], read[i, 1], read[i, 2], read[i, 3], read[i, 4], read[i, 5]
            p, q, r, s, t, u = half[i, 0], half[i, 1], half[i, 2], half[i, 3], half[i, 4], half[i, 5]
            _at_six_points(a, b, c, d, e, f, p, q, r, s, t, u)
        for j in range(6):
            a, b, c, d, e, f = half[0, j], half[1, j], half[2, j], half[3, j], half[4, j], half[5, j]
            p, q, r = tiles[j, tile], tiles[6 + j, tile], tiles[12 + j, tile]
            s, t, u = tiles[18 + j, tile], tiles[24 + j, tile], tiles[30 + j, tile]
            _at_six_points(a, b, c, d, e, f, p, q, r, s, t, u)


@compiled
def from_tiles(products: Float32, bias: Float32, images: Float32) -> None:
    """``products`` (36, N H W / 16, C), tiles as :func:`into_tiles` has them, and ``bias`` (C,), into ``images``."""
    count, height, width, channels = images.shape
    across = width // 4
    of_image = height // 4 * across
    half, nothing = np.empty((4, 6, channels), np.float32), np.zeros(channels, np.float32)
    for tile in range(count * of_image):
        n, within = tile // of_image, tile % of_image
        top, left = within // across * 4, within % across * 4
        for j in range(6):
            a, b, c = products[j, tile], products[6 + j, tile], products[12 + j, tile]
            d, e, f = products[18 + j, tile], products[24 + j, tile], products[30 + j, tile]
            _of_six_points(a, b, c, d, e, f, nothing, half[0, j], half[1, j], half[2, j], half[3, j])
        for i in range(4):
            a, b, c, d, e, f = half[i, 0], half[i, 1], half[i, 2], half[i, 3], half[i, 4], half[i, 5]
            p, q, r, s = (images[n, top + i, left], images[n, top + i, left + 1],
                          images[n, top + i, left + 2], images[n, top + i, left + 3])  # fmt: skip
            _of_six_points(a, b, c, d, e, f, bias, p, q, r, s)
