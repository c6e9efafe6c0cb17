"""The denoiser's last layer in double precision, summed in one fixed order whatever the number of rows.

    eps[r, c] = sum_n W4[c, n] u[r, n] + b4[c]

Sixteen partial sums, number l over n = l, l + 16, l + 32, ..., then halves added until one is left.  The product of
two floats is exact in double, so the order of the additions alone decides the bits.
"""

from __future__ import annotations

import numpy as np

LANES = 16


def project(u: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """u [R, N], weight [C, N], bias [C] -> float64 [R, C]."""
    x, w = _blocks(u), _blocks(weight)  # [R, B, 16], [C, B, 16]
    partial = np.zeros((len(u), len(weight), LANES))
    for block in range(x.shape[1]):
        partial += x[:, None, block] * w[None, :, block]
    while partial.shape[-1] > 1:
        half = partial.shape[-1] // 2
        partial = partial[..., :half] + partial[..., half:]
    return partial[..., 0] + bias.astype(np.float64)


def _blocks(rows: np.ndarray) -> np.ndarray:
    """[..., N] -> float64 [..., ceil(N / 16), 16], padded with zeros."""
    short = -rows.shape[-1] % LANES
    return np.pad(rows.astype(np.float64), ((0, 0), (0, short))).reshape(len(rows), -1, LANES)
