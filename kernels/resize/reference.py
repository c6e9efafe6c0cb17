"""Bilinear resize as Pillow does it for 8-bit images.

Output pixel x of a line of n pixels resized to m lies at centre c = (x + 1/2) n / m.  It is the weighted mean of the input
pixels i whose centres lie within s = max(n / m, 1) of it, with the triangle's weights

    w_i = max(0, 1 - |i + 1/2 - c| / s),    normalised to sum 1, then rounded to multiples of 2^-22.

Columns first: the result of that pass is rounded to 8 bits before the second one goes down the rows.  The facts
(rounding, headroom, which pixels are inside) are those of Pillow's documentation and its ``libImaging/Resample.c``.
"""

from __future__ import annotations

import math

import numpy as np

BITS = 32 - 8 - 2  # fixed point: 8 bits of pixel, 2 of headroom, the rest for the weight


def bilinear(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 [H, W, C] -> uint8 [height, width, C]."""
    across = _resample(pixels.transpose(1, 0, 2), width)  # [width, H, C]
    return np.ascontiguousarray(_resample(across.transpose(1, 0, 2), height))


def _resample(lines: np.ndarray, size: int) -> np.ndarray:
    """uint8 [n, ...] -> uint8 [size, ...] along the first axis."""
    out = np.empty((size, *lines.shape[1:]), np.uint8)
    for x in range(size):
        first, weights = taps(lines.shape[0], size, x)
        total = np.tensordot(weights, lines[first : first + len(weights)].astype(np.int64), axes=1)
        out[x] = np.clip((total + (1 << (BITS - 1))) >> BITS, 0, 255)
    return out


def taps(n: int, m: int, x: int) -> tuple[int, np.ndarray]:
    """First input pixel and the fixed-point weights int64 [count] of output pixel x, n pixels becoming m."""
    scale = n / m
    support = max(scale, 1.0)
    centre = (x + 0.5) * scale
    first = max(0, math.trunc(centre - support + 0.5))
    end = min(n, math.trunc(centre + support + 0.5))
    narrow = 1.0 / support
    weights = [max(0.0, 1.0 - abs((i - centre + 0.5) * narrow)) for i in range(first, end)]
    total = 0.0
    for w in weights:  # plain additions from left to right: sum() and np.sum would round differently
        total += w
    return first, np.array([int(w / total * (1 << BITS) + 0.5) for w in weights], np.int64)
