"""The search for planes, point by point: twins of :mod:`nr_tracking.sensing.planes` and ``supports``.

A bent plane is a row of 22 numbers: its normal (3), its offset, two axes (3 each), where its middle lies along them
(2), and the ten coefficients of its cubic; how far it may depart from itself is a number beside them, in metres.
Points (N, 3) are in metres; how far they stand before a plane is in units of their ``tolerance`` (N,).
"""

from __future__ import annotations

import numpy as np

from nr_tracking.loops.compiler import clamped, compiled
from nr_tracking.loops.percentiles import percentiles
from nr_tracking.types import Bool, Float32, Float64, Int64

_BLOCK = 1024


@compiled
def heights_over(
    cloud: Float32, planes: Float32, most: Float32, near: float, noise_depth: float, limit: float
) -> Float32:
    """The least height (N,) of points over all ``planes`` (P, 22) that bend by ``most`` (P,) metres at most.

    The tolerance is ``near`` metres up to ``noise_depth``, and grows with the square of depth from there. A bend counts
    up to ``limit`` tolerances.
    """
    result = np.full(len(cloud), np.inf, np.float32)
    block = np.empty((4, _BLOCK), np.float32)  # coordinates apart from each other, for several points at a time
    one, scale, bend = np.float32(1), np.float32(1 / noise_depth), np.float32(limit)
    for begin in range(0, len(cloud), _BLOCK):
        count = min(_BLOCK, len(cloud) - begin)
        for i in range(count):
            x, y, z = cloud[begin + i, 0], cloud[begin + i, 1], cloud[begin + i, 2]
            share = z * scale
            block[0, i], block[1, i], block[2, i] = x, y, z
            block[3, i] = one / (np.float32(near) * max(one, share * share))
        for p in range(len(planes)):
            _lower(block, count, planes[p], most[p], bend, result[begin : begin + count])
    return result


@compiled
def next_plane(
    cloud: Float32,
    tolerance: Float32,
    left: Int64,
    triples: Int64,
    judges: Int64,
    finalists: int,
    steps: int,
    limit: float,
    ratio: float,
    ridge: float,
) -> tuple[Float32, float, Float32, int, Int64]:
    """The largest plane of those points (N, 3) that are ``left`` (L,), tried through ``triples`` (H, 3) of these.

    ``judges`` (2,) points judge all of them, and the ``finalists``; on the latter the plane is bent in so many
    ``steps``, by up to ``limit`` tolerances and a ``ratio`` of half its width. Returns its row (22,), what it bends by
    at most, the heights of all points (N,), how many of those left lie on it, and those that do not; none and no plane
    where all triples are in a line.
    """
    row, heights = np.zeros(22, np.float32), np.empty(len(cloud), np.float32)
    hypotheses = _hypotheses(cloud, left, triples)
    if len(hypotheses) == 0:
        return row, 0.0, heights, -1, left
    normal = hypotheses[_best(cloud, tolerance, left, hypotheses, judges, finalists)]
    width = _fit(cloud, tolerance, left, normal, row)
    most = ratio * width
    more = max(1, len(left) // judges[1])
    _bend(cloud, tolerance, left, more, row, np.float32(most), steps, np.float32(limit), ridge)
    block = np.empty((4, len(cloud)), np.float32)
    for i in range(len(cloud)):
        block[0, i], block[1, i], block[2, i] = cloud[i, 0], cloud[i, 1], cloud[i, 2]
        block[3, i] = np.float32(1) / tolerance[i]
        heights[i] = np.inf
    _lower(block, len(cloud), row, np.float32(most), np.float32(limit), heights)
    rest, kept = np.empty(len(left), np.int64), 0
    for i in range(len(left)):
        if not abs(heights[left[i]]) < 1:
            rest[kept] = left[i]
            kept += 1
    return row, most, heights, len(left) - kept, rest[:kept]


@compiled
def sides_left(pixels: Int64, heights: Float32, height: int, width: int, band: float, bins: int, least: float) -> int:
    """On how many sides of an image the ``pixels`` (N,) of heights (N,) within 1 cover a share of ``least``.

    A side is cut into ``bins``, and is ``band`` of the image's size wide.
    """
    seen = np.zeros((4, bins), np.bool_)
    for i in range(len(pixels)):
        if not abs(heights[i]) < 1:
            continue
        row, column = pixels[i] // width, pixels[i] % width
        across = int(clamped(column / width * bins, 0.0, bins - 1.0))
        down = int(clamped(row / height * bins, 0.0, bins - 1.0))
        seen[0, across] |= row < band * height
        seen[1, across] |= row >= (1 - band) * height
        seen[2, down] |= column < band * width
        seen[3, down] |= column >= (1 - band) * width
    sides = 0
    for side in range(4):
        filled = 0
        for k in range(bins):
            filled += seen[side, k]
        sides += filled >= least * bins
    return sides


@compiled
def layers(heights: Float32, rest: Bool) -> tuple[int, int, int, int]:
    """How many of the heights (N,) at ``rest`` (N,) lie within 1, within 3, below -3, and at 1 or above."""
    on, about, behind, before = 0, 0, 0, 0
    for i in range(len(heights)):
        if rest[i]:
            on += abs(heights[i]) < 1
            about += abs(heights[i]) < 3
            behind += heights[i] < -3
            before += heights[i] >= 1
    return on, about, behind, before


@compiled
def dwarfs(cloud: Float32, heights: Float32, rest: Bool, ratio: float, percents: Float64) -> bool:
    """Whether the points (N, 3) of heights (N,) within 1 reach ``ratio`` times as far as those before, on both axes.

    The latter are those at ``rest`` (N,) with heights of 1 or more; of the former, ``percents`` (2,) count.
    """
    on = np.empty(len(cloud), np.bool_)
    for i in range(len(cloud)):
        on[i] = abs(heights[i]) < 1
    centre, squares, count = _moments(cloud, on)
    if count == 0:
        return False
    axes = _axes(squares)
    along, kept = np.empty((2, count), np.float32), 0
    least, most = np.full(2, np.inf), np.full(2, -np.inf)
    for i in range(len(cloud)):
        for k in range(2):
            place = 0.0
            for axis in range(3):
                place += (cloud[i, axis] - centre[axis]) * axes[axis, k + 1]
            if on[i]:
                along[k, kept] = place
            elif rest[i] and heights[i] >= 1:
                least[k], most[k] = min(least[k], place), max(most[k], place)
        kept += on[i]
    if not most[0] >= least[0]:
        return False
    for k in range(2):
        ends = percentiles(along[k], percents)
        if not ends[1] - ends[0] >= ratio * (most[k] - least[k]):
            return False
    return True


@compiled
def _lower(block: Float32, count: int, row: Float32, most: np.float32, limit: np.float32, heights: Float32) -> None:
    """Lower ``heights`` (N,) to those over a plane, in place: of ``count`` points x, y, z, 1 / tolerance (4, N).

    What is far from the plane is not bent. Without branches, so that several points are done at once.
    """
    one, none, wide = np.float32(1), np.float32(0), limit + np.float32(3)
    nx, ny, nz, offset = row[0], row[1], row[2], row[3]
    ux, uy, uz, vx, vy, vz, um, vm = row[4], row[5], row[6], row[7], row[8], row[9], row[10], row[11]
    c, cu, cv, cuu, cuv, cvv = row[12], row[13], row[14], row[15], row[16], row[17]
    cuuu, cuuv, cuvv, cvvv = row[18], row[19], row[20], row[21]
    for i in range(count):
        x, y, z, scale = block[0, i], block[1, i], block[2, i], block[3, i]
        flat = (offset - (x * nx + y * ny + z * nz)) * scale
        u = min(max(x * ux + y * uy + z * uz - um, -one), one)
        v = min(max(x * vx + y * vy + z * vz - vm, -one), one)
        bend = (cuuu * u + (cuuv * v + cuu)) * u + ((cuvv * v + cuv) * v + cu)
        bend = bend * u + (((cvvv * v + cvv) * v + cv) * v + c)
        reach = min(limit, most * scale)
        bend = min(max(bend, -reach), reach)
        heights[i] = min(heights[i], flat - (bend if abs(flat) < wide else none))


@compiled
def _hypotheses(cloud: Float32, left: Int64, triples: Int64) -> Float32:
    """Normal and offset (H', 4) of the planes through triples of points that are not in a line."""
    found, result = 0, np.empty((len(triples), 4), np.float32)
    for h in range(len(triples)):
        a, b, c = left[triples[h, 0]], left[triples[h, 1]], left[triples[h, 2]]
        px, py, pz = cloud[b, 0] - cloud[a, 0], cloud[b, 1] - cloud[a, 1], cloud[b, 2] - cloud[a, 2]
        qx, qy, qz = cloud[c, 0] - cloud[a, 0], cloud[c, 1] - cloud[a, 1], cloud[c, 2] - cloud[a, 2]
        x, y, z = py * qz - pz * qy, pz * qx - px * qz, px * qy - py * qx
        length = np.sqrt(x * x + y * y + z * z)
        if length > 1e-9:
            x, y, z = x / length, y / length, z / length
            result[found, 0], result[found, 1], result[found, 2] = x, y, z
            result[found, 3] = x * cloud[a, 0] + y * cloud[a, 1] + z * cloud[a, 2]
            found += 1
    return result[:found]


@compiled
def _best(cloud: Float32, tolerance: Float32, left: Int64, planes: Float32, judges: Int64, finalists: int) -> int:
    """The plane of (H, 4) that most points lie on: of the ``finalists``, among which the first of equals counts."""
    every = np.arange(len(planes))
    votes = _votes(cloud, tolerance, left, max(1, len(left) // judges[0]), planes, every)
    chosen = _descending(votes, len(cloud))[:finalists]
    votes, best = _votes(cloud, tolerance, left, max(1, len(left) // judges[1]), planes, chosen), 0
    for k in range(len(chosen)):
        best = k if votes[k] > votes[best] else best
    return chosen[best]


@compiled
def _votes(cloud: Float32, tolerance: Float32, left: Int64, step: int, planes: Float32, chosen: Int64) -> Int64:
    """How many of each ``step``-th point left lie on the ``chosen`` (K,) of ``planes`` (H, 4)."""
    count = (len(left) + step - 1) // step
    x, y, z = np.empty(count, np.float32), np.empty(count, np.float32), np.empty(count, np.float32)
    reach = np.empty(count, np.float32)
    for i in range(count):
        point = left[i * step]
        x[i], y[i], z[i], reach[i] = cloud[point, 0], cloud[point, 1], cloud[point, 2], tolerance[point]
    votes = np.empty(len(chosen), np.int64)
    for k in range(len(chosen)):
        h = chosen[k]
        a, b, c, offset = planes[h, 0], planes[h, 1], planes[h, 2], planes[h, 3]
        inside = np.int32(0)
        for i in range(count):
            inside += np.int32(abs(a * x[i] + b * y[i] + c * z[i] - offset) < reach[i])
        votes[k] = inside
    return votes


@compiled
def _descending(counts: Int64, most: int) -> Int64:
    """Indices (K,) of ``counts`` (K,) up to ``most`` from the greatest to the least, equals in their order."""
    starts = np.zeros(most + 2, np.int64)
    for count in counts:
        starts[most - count + 1] += 1
    for k in range(most + 1):
        starts[k + 1] += starts[k]
    order = np.empty(len(counts), np.int64)
    for i in range(len(counts)):
        order[starts[most - counts[i]]] = i
        starts[most - counts[i]] += 1
    return order


@compiled
def _fit(cloud: Float32, tolerance: Float32, left: Int64, plane: Float32, row: Float32) -> float:
    """Fill the ``row`` (22,) with the flat plane through the points near another one (4,); half of its width."""
    near = np.zeros(len(cloud), np.bool_)
    for point in left:
        x, y, z = cloud[point, 0], cloud[point, 1], cloud[point, 2]
        near[point] = abs(x * plane[0] + y * plane[1] + z * plane[2] - plane[3]) < tolerance[point]
    centre, squares, _ = _moments(cloud, near)
    axes = _axes(squares)
    reach = np.full(2, 1e-6)
    for i in range(len(cloud)):
        if near[i]:
            for k in range(2):
                place = 0.0
                for axis in range(3):
                    place += (cloud[i, axis] - centre[axis]) * axes[axis, k + 1]
                reach[k] = max(reach[k], abs(place))
    offset = 0.0
    for axis in range(3):
        offset += axes[axis, 0] * centre[axis]
    row[3] = abs(offset)
    row[10] = row[11] = 0
    for axis in range(3):
        row[axis] = axes[axis, 0] if offset >= 0 else -axes[axis, 0]
        for k in range(2):
            row[4 + 3 * k + axis] = axes[axis, k + 1] / reach[k]
            row[10 + k] += centre[axis] * axes[axis, k + 1] / reach[k]
    return min(reach[0], reach[1])


@compiled
def _moments(cloud: Float32, taken: Bool) -> tuple[Float64, Float64, int]:
    """Mean (3,) of the points (N, 3) that are ``taken`` (N,), their squares (3, 3) about it, and their number."""
    centre, squares, count = np.zeros(3), np.zeros((3, 3)), 0
    for i in range(len(cloud)):
        if taken[i]:
            count += 1
            for a in range(3):
                centre[a] += cloud[i, a]
    for a in range(3):
        centre[a] /= max(count, 1)
    for i in range(len(cloud)):
        if taken[i]:
            x, y, z = cloud[i, 0] - centre[0], cloud[i, 1] - centre[1], cloud[i, 2] - centre[2]
            squares[0, 0] += x * x
            squares[0, 1] += x * y
            squares[0, 2] += x * z
            squares[1, 1] += y * y
            squares[1, 2] += y * z
            squares[2, 2] += z * z
    for a in range(3):
        for b in range(a):
            squares[a, b] = squares[b, a]
    return centre, squares, count


@compiled
def _axes(squares: Float64) -> Float64:
    """Eigenvectors, by columns, of a symmetric matrix (3, 3), that of the least eigenvalue first: by Jacobi's turns."""
    matrix, vectors = np.empty((3, 3)), np.zeros((3, 3))
    for a in range(3):
        vectors[a, a] = 1
        for b in range(3):
            matrix[a, b] = squares[a, b]
    for turn in range(24):  # eight sweeps; four are enough for double precision
        a, b = (turn % 3) & 1, min(turn % 3 + 1, 2)
        if matrix[a, b] == 0:
            continue
        ratio = (matrix[b, b] - matrix[a, a]) / (2 * matrix[a, b])
        tangent = (1.0 if ratio >= 0 else -1.0) / (abs(ratio) + np.sqrt(ratio * ratio + 1))
        cosine = 1 / np.sqrt(tangent * tangent + 1)
        sine = tangent * cosine
        for k in range(3):
            one, other = matrix[k, a], matrix[k, b]
            matrix[k, a], matrix[k, b] = cosine * one - sine * other, sine * one + cosine * other
        for k in range(3):
            one, other = matrix[a, k], matrix[b, k]
            matrix[a, k], matrix[b, k] = cosine * one - sine * other, sine * one + cosine * other
            one, other = vectors[k, a], vectors[k, b]
            vectors[k, a], vectors[k, b] = cosine * one - sine * other, sine * one + cosine * other
    first, last = 0, 0
    for k in range(1, 3):
        first = k if matrix[k, k] < matrix[first, first] else first
        last = k if matrix[k, k] >= matrix[last, last] else last
    if first == last:  # of what are no numbers
        first, last = 0, 2
    ordered = np.empty((3, 3))
    for k in range(3):
        ordered[k, 0] = vectors[k, first]
        ordered[k, 1] = vectors[k, 3 - first - last]
        ordered[k, 2] = vectors[k, last]
    return ordered


@compiled
def _bend(
    cloud: Float32,
    tolerance: Float32,
    left: Int64,
    step: int,
    row: Float32,
    most: np.float32,
    steps: int,
    limit: np.float32,
    ridge: float,
) -> None:
    """Bend the plane of a ``row`` (22,) to each ``step``-th of the points left that are near it, in so many steps.

    The normal equations are kept from one step to the next, in which but few points come to be near or cease to be.
    """
    count = (len(left) + step - 1) // step
    terms, flat, reach = np.empty((count, 10)), np.empty(count, np.float32), np.empty(count, np.float32)
    one = np.float32(1)
    for i in range(count):
        point = left[i * step]
        x, y, z = cloud[point, 0], cloud[point, 1], cloud[point, 2]
        flat[i] = (row[3] - (x * row[0] + y * row[1] + z * row[2])) / tolerance[point]
        reach[i] = min(limit, most / tolerance[point])
        u = min(max(x * row[4] + y * row[5] + z * row[6] - row[10], -one), one)
        v = min(max(x * row[7] + y * row[8] + z * row[9] - row[11], -one), one)
        uu, vv = u * u, v * v
        terms[i, 0], terms[i, 1], terms[i, 2], terms[i, 3], terms[i, 4] = one, u, v, uu, u * v
        terms[i, 5], terms[i, 6], terms[i, 7], terms[i, 8], terms[i, 9] = vv, uu * u, uu * v, u * vv, vv * v
    near, total = np.zeros(count, np.bool_), 0
    squares, right, bend = np.zeros((10, 10)), np.zeros(10), np.zeros(10, np.float32)
    for _ in range(steps):
        for i in range(count):
            departs = np.float32(0)
            for k in range(10):
                departs += np.float32(terms[i, k]) * bend[k]
            now = abs(flat[i] - min(max(departs, -reach[i]), reach[i])) < 2
            if now == near[i]:
                continue
            near[i] = now
            sign = 1.0 if now else -1.0
            total += 1 if now else -1
            for a in range(10):
                scaled = sign * terms[i, a]
                right[a] += scaled * flat[i]
                for b in range(a + 1):
                    squares[a, b] += scaled * terms[i, b]
        _solve(squares, right, ridge * max(total, 1), bend)
    for k in range(10):
        row[12 + k] = bend[k]


@compiled
def _solve(squares: Float64, right: Float64, ridge: float, solution: Float32) -> None:
    """``squares`` (K, K), whose lower half is there, with a ``ridge``, times ``solution`` (K,) = ``right`` (K,)."""
    size = len(right)
    lower, found = np.zeros((size, size)), np.empty(size)
    for a in range(size):
        for b in range(a + 1):
            value = squares[a, b]
            for k in range(b):
                value -= lower[a, k] * lower[b, k]
            lower[a, b] = np.sqrt(max(value + ridge, 1e-30)) if a == b else value / lower[b, b]
    for a in range(size):
        value = right[a]
        for k in range(a):
            value -= lower[a, k] * found[k]
        found[a] = value / lower[a, a]
    for back in range(size):
        a = size - 1 - back
        for k in range(a + 1, size):
            found[a] -= lower[k, a] * found[k]
        found[a] /= lower[a, a]
        solution[a] = found[a]
