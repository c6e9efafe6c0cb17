"""Softmax and sigmoid in float64 from + - * / alone, which IEEE 754 fixes to the last bit; ``softmax.cpp`` follows step by step.

The exponential of a C library or of numpy differs between machines by a unit in the last place, and a prediction's bits are promised.
"""

from __future__ import annotations

from math import factorial

import numpy as np

LN2_HIGH = float.fromhex("0x1.62e42feep-1")  # 32 bits, so that k * LN2_HIGH is exact
LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")  # ln 2 - LN2_HIGH
PER_LN2 = float.fromhex("0x1.71547652b82fep+0")  # 1 / ln 2
#: Below this the result would be subnormal: it is 0.
LEAST = -708.0
#: Terms of the series: |r| <= ln 2 / 2, so r^14 / 14! is below 5e-18.
DEGREE = 13


def softmax(scores: np.ndarray) -> np.ndarray:
    """float64 [..., C] -> exp(x - max) / sum, the sum taken in the order of classes; all NaN where a score is NaN or +inf."""
    with np.errstate(invalid="ignore", over="ignore"):
        e = exp(scores - scores.max(axis=-1, keepdims=True))
        total = np.zeros(scores.shape[:-1])
        for c in range(scores.shape[-1]):
            total = total + e[..., c]
        return e / total[..., None]


def sigmoid(x: np.ndarray) -> np.ndarray:
    """float64 [...] -> 1 / (1 + exp(-x)), written so that only a negative number is exponentiated."""
    e = exp(-np.abs(x))
    return np.where(x < 0, e, 1.0) / (1.0 + e)


def exp(x: np.ndarray) -> np.ndarray:
    """exp(x) for x <= 0, within one unit in the last place; NaN stays NaN.

    x = k ln 2 + r with |r| <= ln 2 / 2; exp r = 1 + (r + r^2 (1/2 + r/6 + ...)), scaled by 2^k.
    """
    usable = x >= LEAST
    y = np.where(usable, x, 0.0)
    k = np.floor(y * PER_LN2 + 0.5)
    r = (y - k * LN2_HIGH) - k * LN2_LOW
    p = np.full_like(r, 1.0 / factorial(DEGREE))
    for degree in range(DEGREE - 1, 1, -1):
        p = p * r + 1.0 / factorial(degree)
    result = np.ldexp(1.0 + (r + r * r * p), k.astype(np.int32))
    return np.where(usable, result, np.where(np.isnan(x), x, 0.0))
