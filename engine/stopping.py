"""How many draws an image needs: more are added until its label can be told from the noise, or a cap is reached.

After 8, 16, 32 .. draws, and at the cap, the class of the largest mean score, the leader, is compared with every other class on the
differences of their scores, draw by draw.  The label stands when against each of them

1. the mean difference exceeds its one-sided bound by Student's t, quantile * standard error, and
2. the leader is ahead in more draws than heads come up on a fair coin (the sign test, exact).

The second is there because a chain often ends in one of two answers.  Such differences are nothing like normal, a few equal ones have
no variance at all, and the t bound alone then stops wrongly more often than it says; the coin is right whatever the distribution.  It
is also why the first look comes at 8 draws: fewer can hardly ever pass.

The risk of 5 % is split evenly over the looks.  A wrong label means that the truly best class, one fixed opponent, was found behind at
some look; the union bound over looks holds the probability of that below 5 % for one rival.  The leader is chosen from the same draws
that test it, so with several rivals their risks could add up, were it not that a wrong leader must pass against all others too: with
3 to 15 classes of nearly equal means wrong stops are rarer than with two (tests/engine/test_stopping.py).  "Truly best" is of the mean
score, which is what a label is.  No rule sees a rare and large excursion that no draw has shown: where mean and majority disagree, 5 %
is not promised.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from fusedx.engine.limits import FIRST_LOOK

#: Probability of a wrong label that the rule allows, over all of its looks.
RISK = 0.05
#: Draws beyond which exact sums take longer than their digits are worth.
_MANY = 1000


def looks(most: int) -> list[int]:
    """Numbers of draws after which the label is tested: 8, 16, 32 .. and ``most``."""
    totals, total = [], FIRST_LOOK
    while total < most:
        totals.append(total)
        total *= 2
    return [*totals, most]


def settled(scores: np.ndarray, risk: float) -> bool:
    """Whether more draws are not needed.  scores float64 [D,C], D >= 2; risk: of this look.

    Scores that are not finite will not become so: they need no more draws either.
    """
    if not np.isfinite(scores).all():
        return True
    draws = len(scores)
    leader = int(np.argmax(scores.mean(axis=0)))
    lead = np.delete(scores[:, [leader]] - scores, leader, axis=1)  # [D,C-1]
    bound = t_quantile(1.0 - risk, draws - 1) * standard_error(lead)
    ahead = (lead > 0).sum(axis=0)
    return bool(np.all((lead.mean(axis=0) > bound) & (ahead >= votes_needed(draws, risk))))


def standard_error(values: np.ndarray) -> np.ndarray:
    """[D,C] -> [C]: of the mean over D independent draws; not-a-number for one draw, which says nothing of it."""
    draws = len(values)
    if draws < 2:
        return np.full(values.shape[1], np.nan)
    return values.std(axis=0, ddof=1) / math.sqrt(draws)


@lru_cache(maxsize=256)
def votes_needed(draws: int, risk: float) -> int:
    """Heads that a fair coin, thrown ``draws`` times, reaches or exceeds with a probability of at most ``risk``; draws + 1: never."""
    if draws > _MANY:  # the normal distribution with a continuity correction is within a vote of it
        return math.ceil((draws + 1 + math.sqrt(draws) * NormalDist().inv_cdf(1.0 - risk)) / 2)
    limit, tail = risk * 2.0**draws, 0
    for heads in range(draws, -1, -1):
        tail += math.comb(draws, heads)
        if tail > limit:
            return heads + 1
    return 0


@lru_cache(maxsize=256)
def t_quantile(probability: float, freedom: int) -> float:
    """The value below which Student's t with ``freedom`` degrees lies with this probability, above 0.5 and below 1.

    By bisection; for many degrees Abramowitz and Stegun, 26.7.5, from the normal quantile.  Ten digits, so that no mathematical library's
    last bit decides how many draws an image gets.
    """
    if freedom > _MANY:
        x = NormalDist().inv_cdf(probability)
        more = (x**3 + x) / (4 * freedom), (5 * x**5 + 16 * x**3 + 3 * x) / (96 * freedom**2)
        return float(f"{x + sum(more):.10g}")
    low, high = 0.0, 1.0
    while t_tail(high, freedom) > 1.0 - probability:
        low, high = high, 2.0 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if t_tail(middle, freedom) > 1.0 - probability else (low, middle)
    return float(f"{high:.10g}")


def t_tail(t: float, freedom: int) -> float:
    """Probability of a value above ``t`` >= 0.  Abramowitz and Stegun, 26.7.3 and 26.7.4: finite sums for whole degrees of freedom."""
    angle = math.atan2(t, math.sqrt(freedom))
    sine, square = math.sin(angle), math.cos(angle) ** 2
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0 if freedom == 1 else term
    for k in range(2 + odd, freedom, 2):
        term *= square * (k - 1) / k
        total += term
    inside = 2.0 / math.pi * (angle + sine * total) if odd else sine * total
    return (1.0 - inside) / 2.0
