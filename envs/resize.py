"""Pictures made smaller by averaging areas, bit for bit as OpenCV's INTER_AREA does it for uint8.

OpenCV adds up float32 products along a row first, then down the columns, each in ascending order,
and rounds half to even; where both scales are whole numbers it adds integers. The order is kept
here, so that a picture has the same bits whichever of the two made it.
"""

from __future__ import annotations

import math

import numpy as np

from envs.contract import Array
from envs.kernel import kernel


class Shrinker:
    """Makes uint8 pictures of one size smaller: ``shrinker(picture [H, W, C], out [h, w, C])``."""

    def __init__(self, source: tuple[int, int], target: tuple[int, int], channels: int) -> None:
        """``source`` and ``target`` are (height, width); the target is nowhere larger."""
        scales = [1 / (small / large) for large, small in zip(source, target, strict=True)]
        self._tall, self._wide = (round(scale) for scale in scales)
        self._whole = all(abs(scale - round(scale)) < np.finfo(float).eps for scale in scales)
        self._rows = taps(source[0], target[0], scales[0])
        cells, weights = taps(source[1], target[1], scales[1])
        # a picture's row is W * C bytes, the channels of a cell side by side
        at = cells[:, :, None] * channels + np.arange(channels)
        self._columns = at.reshape(len(at), -1), np.repeat(weights, channels, axis=1)

    def __call__(self, picture: Array, out: Array) -> None:
        """Write the smaller picture into ``out``; both are contiguous."""
        if self._whole:
            average_blocks(picture, self._tall, self._wide, out)
        else:
            flat = picture.reshape(len(picture), -1), out.reshape(len(out), -1)
            average_areas(flat[0], *self._rows, *self._columns, flat[1])


def taps(source: int, target: int, scale: float) -> tuple[Array, Array]:
    """Which of ``source`` cells along an axis each of ``target`` averages: OpenCV's table.

    Returns:
        The cells [K, target] int64 and their weights [K, target] float32, 0 where there are fewer
        than K.
    """
    shares: list[list[tuple[int, float]]] = []
    for i in range(target):
        start, end = i * scale, i * scale + scale
        width = min(scale, source - start)
        last = min(math.floor(end), source - 1)
        first = min(math.ceil(start), last)
        share = [(first - 1, (first - start) / width)] if first - start > 1e-3 else []
        share += [(j, 1 / width) for j in range(first, last)]
        if end - last > 1e-3:
            share.append((last, min(end - last, 1.0, width) / width))
        shares.append(share)
    most = max(map(len, shares))
    padded = np.array([share + [(0, 0.0)] * (most - len(share)) for share in shares])
    cells, weights = padded[:, :, 0].T, padded[:, :, 1].T
    return np.ascontiguousarray(cells, np.int64), np.ascontiguousarray(weights, np.float32)


@kernel()
def average_areas(
    picture: Array,  # [H, n] uint8
    rows: Array,  # [K, h] int64
    row_weights: Array,  # [K, h] float32
    columns: Array,  # [L, m] int64
    column_weights: Array,  # [L, m] float32
    out: Array,  # [h, m] uint8, written
) -> None:
    """Weighted sums along each row, then of the rows, in float32."""
    height, width = picture.shape
    many = out.shape[1]
    line = np.empty(width, np.float32)
    across = np.empty((height, many), np.float32)
    for y in range(height):
        for i in range(width):
            line[i] = np.float32(picture[y, i])
        for i in range(many):
            across[y, i] = line[columns[0, i]] * column_weights[0, i]
        for k in range(1, columns.shape[0]):
            for i in range(many):
                across[y, i] += line[columns[k, i]] * column_weights[k, i]
    total = np.empty(many, np.float32)
    for y in range(out.shape[0]):
        total[:] = 0
        for k in range(rows.shape[0]):
            at, weight = rows[k, y], row_weights[k, y]
            for i in range(many):
                total[i] += across[at, i] * weight
        for i in range(many):
            out[y, i] = np.uint8(np.rint(total[i]))


@kernel()
def average_blocks(picture: Array, tall: int, wide: int, out: Array) -> None:
    """Sums of integers over blocks; OpenCV rounds half up in blocks of 2 x 2, else half to even."""
    share = np.float32(1) / np.float32(tall * wide)
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            for c in range(out.shape[2]):
                total = 0
                for i in range(tall):
                    for j in range(wide):
                        total += picture[y * tall + i, x * wide + j, c]
                if tall == 2 and wide == 2:
                    out[y, x, c] = (total + 2) >> 2
                else:
                    out[y, x, c] = np.uint8(np.rint(np.float32(total) * share))
