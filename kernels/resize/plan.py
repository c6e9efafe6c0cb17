"""The weights of the resize as tables, for kernels that should not compute them: a table of one side serves both passes."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from fusedx.kernels.resize.reference import BITS

#: Longest line that a table is made for.  Far above any picture; it keeps a hostile size from asking for gigabytes of weights.
MAX_LINE = 1 << 20


@dataclass(frozen=True, eq=False, slots=True)
class TapTable:
    """Output x of a line is the sum over i of ``weight[i, x] * input[first[x] + i]``, in units of 2^-22.

    first int32 [m]; weight int32 [most, m], tap by tap so that neighbouring outputs are neighbours in memory; both read-only and
    C-contiguous.  Outputs with fewer taps than ``most`` have zero weights at the end, and ``first[x] + i`` may then lie past the
    line: a kernel must not read there.

    No weight is negative and each is rounded once, so the weights of an output sum to at most 2^22 + most / 2 and 255 times that,
    with the half that rounds, stays below 2^31: int32 is wide enough for every line up to MAX_LINE.
    """

    first: np.ndarray
    weight: np.ndarray

    @property
    def most(self) -> int:
        return len(self.weight)


def tap_table(n: int, m: int) -> TapTable:
    """The taps of a line of n pixels that becomes m, those of :func:`fusedx.kernels.resize.reference.taps` to the bit.

    The same object for the same sizes while it is in use often enough.  Raises ValueError for sizes outside 1 .. MAX_LINE.
    """
    n, m = operator.index(n), operator.index(m)
    if not (1 <= n <= MAX_LINE and 1 <= m <= MAX_LINE):
        raise ValueError(f"n, m: expected lines of 1 to {MAX_LINE} pixels, got {n} and {m}")
    return _tap_table(n, m)


@lru_cache(maxsize=64)
def _tap_table(n: int, m: int) -> TapTable:
    scale = n / m
    support = max(scale, 1.0)
    centre = ((np.arange(m) + 0.5) * scale)[:, None]
    first = np.maximum(0, np.trunc(centre - support + 0.5)).astype(np.int64)
    end = np.minimum(n, np.trunc(centre + support + 0.5)).astype(np.int64)
    i = first + np.arange((end - first).max())
    share = np.maximum(0.0, 1.0 - np.abs((i - centre + 0.5) * (1.0 / support)))
    share[i >= end] = 0.0
    # accumulate adds from left to right, which np.sum would not; the order is part of the weights' definition.
    total = np.add.accumulate(share, axis=1)[:, -1:]
    weight = np.ascontiguousarray((share / total * (1 << BITS) + 0.5).astype(np.int32).T)
    first = first[:, 0].astype(np.int32)
    first.setflags(write=False)
    weight.setflags(write=False)
    return TapTable(first, weight)
