"""What n pictures prove: against tables, against a library where there is one, and against simulated truth."""

from __future__ import annotations

import numpy as np
import pytest

from fusedx.compiler.bounds import fewest_for_mean, fewest_for_rate, mean_bound, most_events, rate_bound

#: (events, trials, upper bound): one-sided 95 %, the upper end of the two-sided 90 % intervals that textbooks tabulate.
TABLE = [
    (0, 1, 0.9500), (0, 10, 0.2589), (1, 10, 0.3942), (2, 10, 0.5069), (5, 10, 0.7776), (9, 10, 0.9949), (1, 20, 0.2161),
    (0, 100, 0.0295), (3, 100, 0.0757),
]  # fmt: skip


@pytest.mark.parametrize("events, n, bound", TABLE)
def test_rate_bound_is_the_tabulated_one(events, n, bound):
    assert rate_bound(events, n) == pytest.approx(bound, abs=5e-5)


def test_rate_bound_where_a_closed_form_exists():
    """No event: 1 - 0.05^(1/n).  All but one: 0.95^(1/n).  All: nothing is excluded."""
    for n in (1, 2, 17, 2995, 1_000_000):
        assert rate_bound(0, n) == pytest.approx(1 - 0.05 ** (1 / n), rel=1e-9)
        assert rate_bound(n - 1, n) == pytest.approx(0.95 ** (1 / n), rel=1e-12)
        assert rate_bound(n, n) == 1.0


def test_rate_bound_against_the_beta_quantile():
    beta = pytest.importorskip("scipy.stats").beta
    for n in (1, 2, 7, 100, 2995, 20_000):
        for events in {0, 1, n // 3, n - 1} - {n}:
            for confidence in (0.5, 0.95, 0.999):
                assert rate_bound(events, n, confidence) == pytest.approx(beta.ppf(confidence, events + 1, n - events), rel=1e-8)


@pytest.mark.parametrize("events, n", [(-1, 5), (6, 5), (0, 0)])
def test_impossible_counts_are_errors(events, n):
    with pytest.raises(ValueError):
        rate_bound(events, n)


def test_smallest_numbers_of_pictures():
    assert fewest_for_rate(0.001) == 2995
    assert [fewest_for_rate(limit) for limit in (0.0001, 0.01, 0.05, 0.5)] == [29956, 299, 59, 5]
    for limit in (0.3, 0.01, 0.001):
        n, m = fewest_for_rate(limit), fewest_for_mean(limit)
        assert rate_bound(0, n) <= limit < rate_bound(0, n - 1)
        assert mean_bound(np.zeros(m)) <= limit < mean_bound(np.zeros(m - 1))


def test_most_events_is_where_the_bound_crosses():
    for n, limit in ((2994, 0.001), (2995, 0.001), (10_000, 0.001), (50, 0.5), (1, 0.999)):
        most = most_events(n, limit)
        assert most == -1 or rate_bound(most, n) <= limit
        assert rate_bound(most + 1, n) > limit
    assert [most_events(n, 0.001) for n in (2994, 2995, 4741, 4742)] == [-1, 0, 0, 1]


@pytest.mark.parametrize("values", [[], [[0.1]], [-0.1, 0.5], [1.1], [float("nan"), 0.5]])
def test_mean_bound_takes_shares_only(values):
    with pytest.raises(ValueError):
        mean_bound(np.array(values))


def test_mean_bound_at_the_ends():
    assert mean_bound(np.ones(50)) == 1.0
    assert 0.5 < mean_bound(np.zeros(1)) < 1
    assert 0.999 < mean_bound(np.array([0.0, *[1.0] * 999])) <= 1.0
    assert mean_bound(np.full(5000, 0.25)) < 0.252


def test_mean_bound_knows_no_order():
    x = np.random.default_rng(1).beta(0.1, 3, 400)
    assert mean_bound(x) == mean_bound(x[::-1]) == mean_bound(np.sort(x))


#: Name -> (draw n values, their true mean).  Nearly always zero and sometimes one is what normal theory gets wrong: after 100 zeros it
#: would prove a mean of 0.
NASTY = {
    "rare": (lambda rng, n: (rng.random(n) < 0.01).astype(float), 0.01),
    "skewed": (lambda rng, n: np.minimum(rng.exponential(0.01, n), 1), 0.01 * (1 - np.exp(-100))),
    "coin": (lambda rng, n: rng.integers(0, 2, n).astype(float), 0.5),
    "wide": (lambda rng, n: rng.beta(0.5, 2, n), 0.2),
    "same": (lambda rng, n: np.full(n, 0.03), 0.03),
}


@pytest.mark.parametrize("name", NASTY)
@pytest.mark.parametrize("n", [20, 100, 500])
def test_mean_bound_covers_and_is_of_use(name, n):
    draw, mean = NASTY[name]
    rng = np.random.default_rng(n)
    bounds = np.array([mean_bound(draw(rng, n)) for _ in range(100)])
    # At most 5 % may miss the truth; of 100, 11 or more would do so once in 100 such tests, and the seed is fixed.
    assert (bounds < mean).sum() < 11
    spread = draw(np.random.default_rng(0), 100_000).std()
    # Loose only as it must be: 1.6 standard errors would do for a known normal distribution, 3 / n for nothing but zeros.
    assert np.median(bounds) - mean < 10 / n + 4 * spread / n**0.5


def test_rate_bound_covers():
    rng = np.random.default_rng(5)
    for n, p in ((30, 0.05), (300, 0.01), (300, 0.3)):
        misses = np.mean([rate_bound(int(k), n) < p for k in rng.binomial(n, p, 400)])
        assert misses < 0.08
