"""Philox4x32-10, and uniform and normal numbers from its words.

The generator is that of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC'11): ten
rounds of two 32 x 32 -> 64 bit products, keyed by a Weyl sequence.

    normal = sqrt(-2 ln u1) cos(2 pi u2)        (Box and Muller, 1958)

Logarithm and cosine are written here with + - * / and sqrt, which IEEE 754 fixes to the last bit, because those of the C
library differ between machines.  ``philox.cpp`` does the same operations in the same order.
"""

from __future__ import annotations

from math import factorial

import numpy as np

ROUNDS = 10
MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
WEYL = 0x9E3779B9, 0xBB67AE85  # golden ratio, sqrt(3) - 1
LN2_HIGH = float.fromhex("0x1.62e42feep-1")  # 32 bits, so that e * LN2_HIGH is exact
LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")  # ln 2 - LN2_HIGH


def philox4x32(counter: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Words uint32 [..., 4] for ``counter`` uint32 [..., 4] and ``key`` uint32 [2]."""
    low, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    x0, x1, x2, x3 = np.moveaxis(counter.astype(np.uint64), -1, 0)
    for r in range(ROUNDS):
        k0, k1 = (np.uint64((int(key[i]) + r * WEYL[i]) & 0xFFFFFFFF) for i in (0, 1))
        p0, p1 = MULTIPLIERS[0] * x0, MULTIPLIERS[1] * x2
        x0, x1, x2, x3 = (p1 >> shift) ^ x1 ^ k0, p1 & low, (p0 >> shift) ^ x3 ^ k1, p0 & low
    return np.stack([x0, x1, x2, x3], axis=-1).astype(np.uint32)


def uniform(words: np.ndarray) -> np.ndarray:
    """float64 [...] in [0, 1), a multiple of 2^-53, from words 0 and 1 of uint32 [..., 4]."""
    return _unit(words[..., 0], words[..., 1])


def normal(words: np.ndarray) -> np.ndarray:
    """Standard normal float64 [...] from uint32 [..., 4]: u1 in (0, 1] from words 0 and 1, u2 from words 2 and 3."""
    u1 = 1.0 - _unit(words[..., 0], words[..., 1])
    return np.sqrt(-2.0 * ln(u1)) * cos_turns(_unit(words[..., 2], words[..., 3]))


def _unit(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    bits = (high.astype(np.uint64) << np.uint64(32) | low.astype(np.uint64)) >> np.uint64(11)
    return bits.astype(np.float64) * 2.0**-53


def ln(x: np.ndarray) -> np.ndarray:
    """Natural logarithm of x in [2^-53, 1].

    x = m 2^e with m in [sqrt(1/2), sqrt(2)); with f = m - 1 and s = f / (2 + f), ln m = 2 atanh(s) = 2 s + s R, where
    R = 2 s^2 / 3 + 2 s^4 / 5 + ...  Since 2 s = f - s f, ln m = f - s (f - R): the leading term f is exact.
    """
    m, e = np.frexp(x)
    small = m < 0.7071067811865476
    m, e = np.where(small, m * 2.0, m), np.where(small, e - 1, e).astype(np.float64)
    f = m - 1.0
    s = f / (m + 1.0)
    z = s * s
    p = 2.0 / 21.0
    for k in range(19, 1, -2):
        p = p * z + 2.0 / k
    correction = s * (f - z * p)
    return e * LN2_HIGH + (f - (correction - e * LN2_LOW))


def cos_turns(u: np.ndarray) -> np.ndarray:
    """cos(2 pi u) for u in [0, 1): u = q / 4 + r exactly, |r| <= 1/8, then the Taylor series of 2 pi r."""
    q = np.floor(u * 4.0 + 0.5)
    x = (u - q * 0.25) * 6.283185307179586
    z = x * x
    c = 1.0 - (0.5 * z - z * z * _alternating(z, range(16, 3, -2)))
    s = x + x * (z * _alternating(z, range(17, 2, -2)))
    return np.choose(q.astype(np.int64) % 4, [c, -s, -c, s])


def _alternating(z: np.ndarray, degrees: range) -> np.ndarray:
    """Sum of +-z^i / degree! in Horner's form, from the highest degree, whose sign is that of i^degree."""
    p = np.full_like(z, (1.0 if degrees[0] % 4 < 2 else -1.0) / factorial(degrees[0]))
    for degree in degrees[1:]:
        p = p * z + (1.0 if degree % 4 < 2 else -1.0) / factorial(degree)
    return p
