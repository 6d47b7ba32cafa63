"""The compiled part of the procedural tissue.

Everything is computed in blocks that are aligned to absolute voxel coordinates, from hashes of
lattice points, with IEEE additions, products, quotients and square roots only. So a voxel depends
on nothing but its own coordinates and the seed, in every process and for every crop.
"""

from __future__ import annotations

import numpy as np

from lib.volumes.kernels import compiled

CELL_NM = 430.0  # pitch of the lattice that cells grow from
WARP_NM = 300.0  # wavelength of the bending of cell borders
BEND_NM = 95.0  # how far a border is bent
MOTTLE_NM = 700.0  # wavelength of uneven staining
VESICLE_NM = 62.0  # pitch of the lattice of vesicles
MAX_SEEDS = 512

# columns of the seed table of a block
_Z, _Y, _X, _BODY, _HAS, _MZ, _MY, _MX, _AZ, _AY, _AX, _LEN, _RAD = range(13)


@compiled
def _hash(z: int, y: int, x: int, seed: int) -> int:
    """Thirty-two well-mixed bits of three coordinates and a seed."""
    h = (z * 0x1F123BB5) ^ (y * 0x2545F491) ^ (x * 0x3C6EF372) ^ (seed * 0x5851F42D)
    h &= 0xFFFFFFFF
    h = ((h ^ (h >> 16)) * 0x45D9F3B) & 0xFFFFFFFF
    h = ((h ^ (h >> 15)) * 0x2C1B3C6D) & 0xFFFFFFFF
    return h ^ (h >> 16)


@compiled
def _smooth_noise(z: float, y: float, x: float, seed: int) -> float:
    """Value noise on the unit lattice, in -1..1."""
    iz, iy, ix = int(np.floor(z)), int(np.floor(y)), int(np.floor(x))
    fz, fy, fx = z - iz, y - iy, x - ix
    fz, fy, fx = fz * fz * (3 - 2 * fz), fy * fy * (3 - 2 * fy), fx * fx * (3 - 2 * fx)
    total = 0.0
    for dz in range(2):
        wz = fz if dz else 1 - fz
        for dy in range(2):
            wy = fy if dy else 1 - fy
            a = _hash(iz + dz, iy + dy, ix, seed)
            b = _hash(iz + dz, iy + dy, ix + 1, seed)
            total += wz * wy * (a * (1 - fx) + b * fx)
    return total / 2147483648.0 - 1.0


@compiled
def _corners(corner, voxel_nm, seed, first_zyx, block_zyx):  # type: ignore[no-untyped-def]
    """Bent position (nm) and staining of a block's eight corners; return their bounds."""
    low = np.empty(3)
    high = np.empty(3)
    for axis in range(3):
        low[axis] = 1e300
        high[axis] = -1e300
    for n in range(8):
        at = np.empty(3)
        for axis in range(3):
            step = block_zyx[axis] if (n >> (2 - axis)) & 1 else 0
            at[axis] = (first_zyx[axis] + step) * voxel_nm[axis]
        for axis in range(3):
            bend = _smooth_noise(at[0] / WARP_NM, at[1] / WARP_NM, at[2] / WARP_NM, seed + axis)
            corner[n, axis] = at[axis] + BEND_NM * bend
            low[axis] = min(low[axis], corner[n, axis])
            high[axis] = max(high[axis], corner[n, axis])
        z, y, x = at[0] / MOTTLE_NM, at[1] / MOTTLE_NM, at[2] / MOTTLE_NM
        corner[n, 3] = _smooth_noise(z, y, x, seed + 3)
    return low, high


@compiled
def _seed_row(row, iz, iy, ix, seed):  # type: ignore[no-untyped-def]
    """One lattice point: where its cell is, which body it belongs to, its mitochondrion."""
    h = _hash(iz, iy, ix, seed + 11)
    g = _hash(iz, iy, ix, seed + 12)
    row[_Z] = (iz + 0.08 + 0.84 * ((h & 1023) / 1023.0)) * CELL_NM
    row[_Y] = (iy + 0.08 + 0.84 * (((h >> 10) & 1023) / 1023.0)) * CELL_NM
    row[_X] = (ix + 0.08 + 0.84 * (((h >> 20) & 1023) / 1023.0)) * CELL_NM
    # two in five lattice points join a neighbour, so that bodies differ in size and are not convex
    join = g % 5
    way = (g >> 8) % 3
    step = 1 if join < 2 else 0
    oz, oy, ox = step * (way == 0), step * (way == 1), step * (way == 2)
    row[_BODY] = _hash(iz + oz, iy + oy, ix + ox, seed + 13) % 0xFFFFFFFE + 1
    m = _hash(iz, iy, ix, seed + 14)
    row[_HAS] = 1.0 if (m & 15) < 6 else 0.0
    row[_MZ] = row[_Z] + ((m >> 4) & 15) * 8.0 - 60.0
    row[_MY] = row[_Y] + ((m >> 8) & 15) * 8.0 - 60.0
    row[_MX] = row[_X] + ((m >> 12) & 15) * 8.0 - 60.0
    az, ay, ax = ((m >> 16) & 15) - 7.5, ((m >> 20) & 15) - 7.5, ((m >> 24) & 15) - 7.5
    norm = np.sqrt(az * az + ay * ay + ax * ax)
    row[_AZ], row[_AY], row[_AX] = az / norm, ay / norm, ax / norm
    row[_LEN] = 40.0 + ((g >> 12) & 15) * 9.0
    row[_RAD] = 62.0 + ((g >> 16) & 15) * 4.0


@compiled
def _bounds(row, low, high):  # type: ignore[no-untyped-def]
    """Smallest and largest squared distance from a seed to a box."""
    near, far = 0.0, 0.0
    for axis in range(3):
        below, above = low[axis] - row[axis], row[axis] - high[axis]
        gap = max(below, above, 0.0)
        reach = max(high[axis] - row[axis], row[axis] - low[axis])
        near += gap * gap
        far += reach * reach
    return near, far


@compiled
def _gather(table, gap, low, high, seed):  # type: ignore[no-untyped-def]
    """Seeds that can be the nearest of two bodies, or paint a mitochondrion, inside a box."""
    count = 0
    first = np.empty(3, np.int64)
    last = np.empty(3, np.int64)
    for axis in range(3):
        first[axis] = int(np.floor(low[axis] / CELL_NM)) - 2
        last[axis] = int(np.floor(high[axis] / CELL_NM)) + 2
    near = np.empty(MAX_SEEDS)
    far = np.empty(MAX_SEEDS)
    closest = 0
    for iz in range(first[0], last[0] + 1):
        for iy in range(first[1], last[1] + 1):
            for ix in range(first[2], last[2] + 1):
                if count == MAX_SEEDS:
                    break
                _seed_row(table[count], iz, iy, ix, seed)
                near[count], far[count] = _bounds(table[count], low, high)
                if far[count] < far[closest]:
                    closest = count
                count += 1
    limit = 1e300
    for n in range(count):
        if table[n, _BODY] != table[closest, _BODY]:
            limit = min(limit, far[n])
    limit = max(limit, far[closest])
    kept = 0
    for n in range(count):
        if near[n] <= limit:
            for column in range(table.shape[1]):  # an array assignment takes seconds to compile
                table[kept, column] = table[n, column]
            kept += 1
    for a in range(kept):
        for b in range(kept):
            dz, dy, dx = (
                table[a, _Z] - table[b, _Z],
                table[a, _Y] - table[b, _Y],
                table[a, _X] - table[b, _X],
            )
            gap[a, b] = 0.5 / np.sqrt(max(dz * dz + dy * dy + dx * dx, 1.0))
    return kept


@compiled
def _nearest(table, gap, count, width, points, best, least, border):  # type: ignore[no-untyped-def]
    """For a row of points: index of the nearest seed, distance (nm) to the border of its body.

    Seeds are the outer loop, so that the inner one runs over the row in vector registers.
    """
    for i in range(width):
        least[i] = 1e300
        border[i] = 1e9
    for n in range(count):
        z, y, x = table[n, _Z], table[n, _Y], table[n, _X]
        for i in range(width):
            dz, dy, dx = points[0, i] - z, points[1, i] - y, points[2, i] - x
            d = dz * dz + dy * dy + dx * dx
            if d < least[i]:
                least[i] = d
                best[i] = n
    for n in range(count):
        z, y, x, body = table[n, _Z], table[n, _Y], table[n, _X], table[n, _BODY]
        for i in range(width):
            dz, dy, dx = points[0, i] - z, points[1, i] - y, points[2, i] - x
            d = dz * dz + dy * dy + dx * dx
            if table[best[i], _BODY] != body:
                border[i] = min(border[i], (d - least[i]) * gap[n, best[i]])


@compiled
def _mitochondrion(row, border, rim, cristae, z, y, x):  # type: ignore[no-untyped-def]
    """Grey of a mitochondrion at a point, or -1 outside it."""
    rz, ry, rx = z - row[_MZ], y - row[_MY], x - row[_MX]
    square = rz * rz + ry * ry + rx * rx
    reach = row[_LEN] + row[_RAD]
    if square > reach * reach:
        return -1.0
    along = rz * row[_AZ] + ry * row[_AY] + rx * row[_AX]
    over = max(abs(along) - row[_LEN], 0.0)
    depth = row[_RAD] - np.sqrt(max(square - along * along, 0.0) + over * over)
    depth = min(depth, border - 2.2 * rim)
    if depth <= 0.0:
        return -1.0
    edge = max(0.0, 1.0 - abs(depth - 0.5 * rim) / rim)
    across = rz * row[_AY] - ry * row[_AZ] + 0.6 * rx
    phase = (along + 0.35 * abs(across)) / cristae
    wave = abs(phase - np.floor(phase) - 0.5) * 2.0
    fold = max(0.0, 1.0 - wave * 2.4) if depth > 1.6 * rim else 0.0
    return 118.0 - 62.0 * max(edge, 0.75 * fold)


@compiled
def _vesicle(seed, z, y, x):  # type: ignore[no-untyped-def]
    """How dark a vesicle's wall is at a point, 0..1; a lumen is below zero."""
    # rows and planes of the lattice are shifted at random, so that no rows show
    z = z / VESICLE_NM
    iz = int(np.floor(z))
    y = y / VESICLE_NM + (_hash(iz, 0, 0, seed + 22) & 255) / 256.0
    iy = int(np.floor(y))
    x = x / VESICLE_NM + (_hash(iz, iy, 0, seed + 22) & 255) / 256.0
    ix = int(np.floor(x))
    h = _hash(iz, iy, ix, seed + 21)
    if (h & 15) > 6:
        return 0.0
    dz = (z - iz - 0.4 - ((h >> 4) & 7) * 0.028) * VESICLE_NM
    dy = (y - iy - 0.4 - ((h >> 8) & 7) * 0.028) * VESICLE_NM
    dx = (x - ix - 0.4 - ((h >> 12) & 7) * 0.028) * VESICLE_NM
    radius = np.sqrt(dz * dz + dy * dy + dx * dx)
    if radius > 24.0:
        return 0.0
    wall = max(0.0, 1.0 - abs(radius - 16.0) / 8.0)
    return wall if wall > 0.0 else -0.5


@compiled
def _grain(z, y, x, seed):  # type: ignore[no-untyped-def]
    """Fine structure of the cytoplasm and camera noise, mean zero."""
    h = _hash(z, y, x, seed + 31)
    shot = (h & 255) + ((h >> 8) & 255) - 255
    k = _hash(z, (y + (x >> 1)) >> 1, (x + (y >> 2)) >> 1, seed + 32)  # skewed: squares would show
    coarse = (k & 255) + ((k >> 8) & 255) - 255
    return 0.06 * shot + 0.07 * coarse


@compiled
def _shade(table, count, best, border, line, seed, point):  # type: ignore[no-untyped-def]
    """Grey of one point before noise, 0..255."""
    z, y, x, stain = point[0], point[1], point[2], point[3]
    body = table[best, _BODY]
    tone = int(body)
    grey = 158.0 + (tone % 37) + 15.0 * stain
    if tone % 7 == 0:
        grey -= 30.0  # some cells take more stain
    if border > 3.0 * line:
        inside = -1.0
        for n in range(count):
            if table[n, _HAS] > 0.0 and table[n, _BODY] == body:
                inside = _mitochondrion(table[n], border, line, max(30.0, 4.0 * line), z, y, x)
                if inside >= 0.0:
                    return inside
        if (tone >> 8) % 5 < 2 and line < 12.0:
            grey -= 70.0 * _vesicle(seed, z, y, x)
    membrane = max(0.0, 1.0 - abs(border - 1.15 * line) / line)
    cleft = max(0.0, 1.0 - border / line)
    return grey - 115.0 * membrane - 25.0 * cleft


@compiled
def _edges(corner, ends, z, y):  # type: ignore[no-untyped-def]
    """Mean of the corners' four columns over z and y, at both x ends of a row."""
    for column in range(4):
        for end in range(2):
            near = corner[end, column] * (1 - y) + corner[2 + end, column] * y
            deep = corner[4 + end, column] * (1 - y) + corner[6 + end, column] * y
            ends[end, column] = near * (1 - z) + deep * z


@compiled
def _row(out, where, first, block, ends, scratch, table, gap, count, line, seed, want_labels):  # type: ignore[no-untyped-def]
    """Fill one row of a block: ``where`` is z, y, x start, x stop (absolute) and the origin."""
    z, y, x_start = where[0], where[1], where[2]
    width = where[3] - x_start
    points, best, least, border = scratch
    for i in range(width):
        f = (x_start + i - first[2]) / block[2]
        for column in range(4):
            points[column, i] = ends[0, column] * (1 - f) + ends[1, column] * f
    _nearest(table, gap, count, width, points, best, least, border)
    target = out[z - where[4], y - where[5], x_start - where[6] :]
    for i in range(width):
        if want_labels:
            target[i] = 0 if border[i] < 2.15 * line else int(table[best[i], _BODY])
        else:
            grey = _shade(table, count, best[i], border[i], line, seed, points[:, i])
            grey += _grain(z, y, x_start + i, seed)
            target[i] = int(min(max(grey * 16.0, 16.0), 4095.0))


@compiled
def fill(out, origin_zyx, voxel_nm, block_zyx, seed, want_labels):  # type: ignore[no-untyped-def]
    """Fill ``out`` with grey levels 16..4095, or with body numbers (0 at membranes).

    Parameters
    ----------
    out
        uint16 (levels) or uint32 (labels) array, z, y, x.
    origin_zyx, block_zyx
        int64 triples: absolute coordinate of ``out[0, 0, 0]``, and the block of the computation.
    voxel_nm
        float64 triple, z, y, x.
    """
    table = np.empty((MAX_SEEDS, 13))
    gap = np.empty((MAX_SEEDS, MAX_SEEDS))
    corner = np.empty((8, 4))
    ends = np.empty((2, 4))
    n = block_zyx[2]
    scratch = (np.empty((4, n)), np.empty(n, np.int64), np.empty(n), np.empty(n))
    first = np.empty(3, np.int64)
    where = np.empty(7, np.int64)
    line = max(8.0, 0.75 * voxel_nm[2])
    stop = np.empty(3, np.int64)
    for axis in range(3):
        where[4 + axis] = origin_zyx[axis]
        stop[axis] = origin_zyx[axis] + out.shape[axis]
    for bz in range(origin_zyx[0] // block_zyx[0], (stop[0] - 1) // block_zyx[0] + 1):
        for by in range(origin_zyx[1] // block_zyx[1], (stop[1] - 1) // block_zyx[1] + 1):
            for bx in range(origin_zyx[2] // block_zyx[2], (stop[2] - 1) // block_zyx[2] + 1):
                first[0], first[1], first[2] = (
                    bz * block_zyx[0],
                    by * block_zyx[1],
                    bx * block_zyx[2],
                )
                low, high = _corners(corner, voxel_nm, seed, first, block_zyx)
                count = _gather(table, gap, low, high, seed)
                for z in range(max(first[0], origin_zyx[0]), min(first[0] + block_zyx[0], stop[0])):
                    for y in range(
                        max(first[1], origin_zyx[1]), min(first[1] + block_zyx[1], stop[1])
                    ):
                        where[0], where[1] = z, y
                        _edges(
                            corner,
                            ends,
                            (z - first[0]) / block_zyx[0],
                            (y - first[1]) / block_zyx[1],
                        )
                        where[2] = max(first[2], origin_zyx[2])
                        where[3] = min(first[2] + block_zyx[2], stop[2])
                        _row(
                            out,
                            where,
                            first,
                            block_zyx,
                            ends,
                            scratch,
                            table,
                            gap,
                            count,
                            line,
                            seed,
                            want_labels,
                        )
