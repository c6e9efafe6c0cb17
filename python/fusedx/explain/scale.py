"""The arithmetic of a chart: ranges, ticks, and labels that keep apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Scale:
    """Values from ``low`` to ``high`` lie on the page from ``start`` to ``end``."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def score_range(states: np.ndarray) -> tuple[float, float, bool]:
    """Range of the score axis for states [S,C], and whether values lie outside it.

    The last quarter of the chain is always inside, with up to twice as much on either side for the noisy beginning.
    """
    finite = states[np.isfinite(states)]
    settled = states[len(states) * 3 // 4 :]
    settled = settled[np.isfinite(settled)]
    if settled.size == 0:
        return 0.0, 1.0, bool(finite.size)
    low, high = float(settled.min()), float(settled.max())
    span = max(high - low, 1e-6 * max(1.0, abs(low), abs(high)))
    least, most = max(float(finite.min()), low - 2 * span), min(float(finite.max()), high + 2 * span)
    cut = bool(finite.min() < least or finite.max() > most)
    pad = 0.06 * max(most - least, span)
    return least - pad, most + pad, cut


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round values (1, 2 or 5 times a power of ten apart) from ``low`` to ``high``, about so many."""
    raw = (high - low) / max(1, about)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def step_ticks(steps: int, about: int = 10) -> list[int]:
    """Whole steps from 0 to ``steps``, both included, none crowding the last."""
    apart = max(1, round(ticks(0, steps, about)[1])) if steps > 1 else 1
    return [*(i for i in range(0, steps, apart) if steps - i > 0.6 * apart or i == 0), steps]


def decimals(values: Sequence[float]) -> int:
    """Decimals that tell tick values apart."""
    apart = min((b - a for a, b in zip(values, values[1:], strict=False)), default=1.0)
    return max(0, -math.floor(math.log10(apart) + 1e-9))


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions at least ``gap`` apart within ``low``..``high``, in the order of ``wanted`` and as near to it as can be.

    Neighbours that collide share their mean (isotonic regression).  With too little room the gap shrinks.
    """
    if not wanted:
        return []
    gap = min(gap, (high - low) / max(1, len(wanted) - 1))
    order = sorted(range(len(wanted)), key=lambda i: (wanted[i], i))
    blocks: list[tuple[float, int]] = []  # mean of wanted[i] - rank * gap, members
    for rank, i in enumerate(order):
        mean, members = wanted[i] - rank * gap, 1
        while blocks and blocks[-1][0] > mean:
            before, count = blocks.pop()
            mean, members = (before * count + mean * members) / (count + members), count + members
        blocks.append((mean, members))
    flat = [mean for mean, members in blocks for _ in range(members)]
    room = high - gap * (len(wanted) - 1)
    placed = [0.0] * len(wanted)
    for rank, i in enumerate(order):
        placed[i] = min(max(flat[rank], low), room) + rank * gap
    return placed
