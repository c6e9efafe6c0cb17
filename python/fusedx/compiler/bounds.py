"""What n pictures prove about all pictures like them: one-sided upper confidence bounds that hold at any n, not only at large ones."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

#: Of every bound here unless the caller says otherwise.
CONFIDENCE = 0.95
#: Share of its capital that each bettor of :func:`mean_bound` stakes at every picture, and what each begins with.  The first is the best
#: where nothing shifts at all and begins with half; the others share the rest: the more the values spread, the smaller the best stake.
_STAKES = np.array([1.0, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64])
_CAPITAL = np.array([1 / 2, *[1 / 12] * 6])
_HALVINGS = 200


def rate_bound(events: int, n: int, confidence: float = CONFIDENCE) -> float:
    """Upper bound of a probability after ``events`` in ``n`` independent trials: the p at which so few are just improbable enough,

        P(X <= events) = 1 - confidence,   X binomial(n, p)

    (Clopper and Pearson, Biometrika 26, 1934).  1 where every trial was an event.
    """
    if not 0 <= events <= n or n < 1:
        raise ValueError(f"{events} events in {n} trials")
    if events == n:
        return 1.0
    i = np.arange(events + 1)
    log_choose = np.concatenate([[0.0], np.cumsum(np.log((n - i[:-1]) / i[1:]))])

    def too_improbable(p: float) -> bool:
        log_terms = log_choose + i * math.log(p) + (n - i) * math.log1p(-p)
        largest = log_terms.max()
        return bool(largest + math.log(np.exp(log_terms - largest).sum()) <= math.log(1 - confidence))

    return _smallest(too_improbable, events / n, 1.0)


def mean_bound(values: np.ndarray, confidence: float = CONFIDENCE) -> float:
    """Upper bound of the mean of values in [0,1], whatever their distribution: no normality, which rare large shifts do not have.

    Bets against "the mean is m": a bettor of stake f multiplies its capital by 1 + f (m - x) / (1 - m) at each value x, never below 0.
    Were the mean m or more, capital would not grow on average, and would reach 1 / (1 - confidence) times its start with probability
    1 - confidence at most (Markov).  The bound is the smallest m at which the capital of all bettors has.  After Waudby-Smith and
    Ramdas, "Estimating means of bounded random variables by betting" (arXiv 2010.09686), with stakes that do not depend on the order.
    """
    x = np.asarray(values, np.float64)
    if x.ndim != 1 or not x.size or not ((x >= 0) & (x <= 1)).all():
        raise ValueError("the values must be from 0 to 1, one a picture")
    distinct, counts = np.unique(x, return_counts=True)

    def too_rich(m: float) -> bool:
        with np.errstate(divide="ignore"):  # a bettor of everything may lose everything
            log_capital = np.log(_CAPITAL) + np.log1p(_STAKES[:, None] * (m - distinct) / (1 - m)) @ counts
        largest = log_capital.max()
        return bool(largest + math.log(np.exp(log_capital - largest).sum()) >= -math.log(1 - confidence))

    mean = float(x.mean())
    return 1.0 if mean >= 1.0 else _smallest(too_rich, mean, 1.0)


def fewest_for_rate(limit: float, confidence: float = CONFIDENCE) -> int:
    """The smallest n for which no event at all proves a probability of ``limit`` or less: 2995 for 0.001 with 95 %."""
    n = max(1, math.floor(math.log(1 - confidence) / math.log1p(-limit)))
    while rate_bound(0, n, confidence) > limit:
        n += 1
    return n


def fewest_for_mean(limit: float, confidence: float = CONFIDENCE) -> int:
    """The smallest n for which zeros alone prove a mean of ``limit`` or less."""
    most = 1
    while mean_bound(np.zeros(most), confidence) > limit:
        most *= 2
    low = most // 2
    while most - low > 1:
        middle = (low + most) // 2
        low, most = (middle, most) if mean_bound(np.zeros(middle), confidence) > limit else (low, middle)
    return most


def most_events(n: int, limit: float, confidence: float = CONFIDENCE) -> int:
    """The largest number of events in ``n`` trials that still proves ``limit``; -1 where none would."""
    events = -1
    while events + 1 < n and rate_bound(events + 1, n, confidence) <= limit:
        events += 1
    return events


def _smallest(holds: Callable[[float], bool], low: float, high: float) -> float:
    """The smallest p in (low, high] at which ``holds``, which holds from there on; rounded up, so that a bound stays one."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
