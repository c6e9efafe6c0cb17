"""The stopping rule of draws="auto": its quantiles against printed tables, its risk against simulated images whose truth is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from fusedx.engine import stopping
from fusedx.engine.backends import Condition
from fusedx.engine.chain_runner import HostChains
from fusedx.engine.engine import Engine
from fusedx.engine.manifest import Network
from fusedx.engine.sampling import Sampling
from fusedx.engine.schedule import Schedule, posterior_coefficients
from fusedx.engine.stopping import RISK, looks, settled, standard_error, t_quantile, t_tail, votes_needed

#: Printed tables of Student's t: degrees of freedom -> the values at 0.90, 0.95, 0.975, 0.99, 0.995.
TABLE = {
    1: (3.078, 6.314, 12.706, 31.821, 63.657),
    2: (1.886, 2.920, 4.303, 6.965, 9.925),
    3: (1.638, 2.353, 3.182, 4.541, 5.841),
    4: (1.533, 2.132, 2.776, 3.747, 4.604),
    7: (1.415, 1.895, 2.365, 2.998, 3.499),
    10: (1.372, 1.812, 2.228, 2.764, 3.169),
    30: (1.310, 1.697, 2.042, 2.457, 2.750),
    60: (1.296, 1.671, 2.000, 2.390, 2.660),
    120: (1.289, 1.658, 1.980, 2.358, 2.617),
}


@pytest.mark.parametrize("freedom", TABLE)
def test_quantiles_are_those_of_the_tables(freedom: int) -> None:
    found = [t_quantile(p, freedom) for p in (0.90, 0.95, 0.975, 0.99, 0.995)]
    np.testing.assert_allclose(found, TABLE[freedom], atol=5.1e-4)


@pytest.mark.parametrize("freedom", [1, 2, 3, 8, 63, 999, 1000])
def test_a_quantile_is_where_the_tail_is(freedom: int) -> None:
    for risk in (0.25, 0.05, 0.0125, 1e-4):
        assert t_tail(t_quantile(1 - risk, freedom), freedom) == pytest.approx(risk, rel=1e-7)
    assert t_tail(0.0, freedom) == pytest.approx(0.5)


def test_many_draws_go_on_where_few_end() -> None:
    """Above a thousand, series take the place of sums; nothing may jump there."""
    quantiles = [t_quantile(0.99, n) for n in range(990, 1011)]
    assert all(0 < a - b < 1.1 * (quantiles[0] - quantiles[1]) for a, b in pairwise(quantiles))
    votes = [votes_needed(n, 0.01) for n in range(990, 1011)]
    assert all(0 <= b - a <= 1 for a, b in pairwise(votes))
    assert t_quantile(0.975, 1 << 16) == pytest.approx(1.95999, abs=2e-5)


@pytest.mark.parametrize("draws", [1, 4, 5, 8, 16, 64, 200])
@pytest.mark.parametrize("risk", [0.05, 0.0125, 0.3])
def test_votes_are_the_fewest_that_a_fair_coin_seldom_gives(draws: int, risk: float) -> None:
    def tail(heads: int) -> float:
        return sum(math.comb(draws, k) for k in range(heads, draws + 1)) / 2**draws

    needed = votes_needed(draws, risk)
    assert needed == draws + 1 or tail(needed) <= risk
    assert tail(needed - 1) > risk


def test_looks_double_and_end_at_the_cap() -> None:
    assert looks(64) == [8, 16, 32, 64] and looks(8) == [8] and looks(65) == [8, 16, 32, 64, 65] and looks(9) == [8, 9]


def test_one_draw_has_no_error_and_equal_draws_have_none() -> None:
    assert np.isnan(standard_error(np.ones((1, 3)))).all()
    assert standard_error(np.ones((5, 3))).tolist() == [0, 0, 0]
    values = np.random.default_rng(0).normal(size=(7, 2))
    np.testing.assert_allclose(standard_error(values), [np.std(v, ddof=1) / 7**0.5 for v in values.T])


def test_what_settles_and_what_does_not() -> None:
    rng = np.random.default_rng(1)
    clear = np.array([1.0, 0.0, 0.1]) + rng.normal(0, 0.05, (8, 3))
    assert settled(clear, 0.0125)
    assert settled(np.tile([1.0, 0.0], (8, 1)), 0.0125), "equal draws have no variance and agree"
    assert not settled(np.tile([1.0, 1.0], (64, 1)), 0.05), "a tie is no lead, however often it is drawn"
    assert not settled(clear[:4], 0.0125), "too few for any distribution"
    one_against = np.array([[1.0, 0.0]] * 7 + [[0.0, 1.0]])
    assert not settled(one_against, 0.0125) and settled(np.tile(one_against, (2, 1)), 0.0125)
    third = np.column_stack([np.ones(8), np.zeros(8), 0.9 + rng.normal(0, 1.0, 8)])
    assert not settled(third, 0.0125), "a noisy third class may be the best one, however clear the second is"
    broken = clear.copy()
    broken[3, 1] = np.nan
    assert settled(broken, 0.0125), "it cannot become finite"


Image = Callable[[np.random.Generator, int], np.ndarray]


def two_answers(share: float) -> Image:
    """The chain ends in the first class with probability ``share``, otherwise in the second: not normal at all."""
    return lambda rng, n: np.where(rng.random((n, 1)) < share, [1.0, 0.0], [0.0, 1.0]) + rng.normal(0, 0.02, (n, 2))


def nearly_tied(classes: int) -> Image:
    return lambda rng, n: np.append(0.001, np.zeros(classes - 1)) + rng.normal(0, 0.3, (n, classes))


def one_noisy(rng: np.random.Generator, n: int) -> np.ndarray:
    """A wrong class of larger spread than the rest."""
    return np.array([0.001, 0, 0, 0]) + rng.normal(0, [0.1, 0.1, 1.0, 0.1], (n, 4))


def wrong_stops(image: Image, images: int = 2000, seed: int = 7) -> float:
    """Share of images, the first class truly best, that stop with another label."""
    rng, totals, wrong = np.random.default_rng(seed), looks(64), 0
    for _ in range(images):
        scores = image(rng, totals[-1])
        stop = next((n for n in totals if settled(scores[:n], RISK / len(totals))), None)
        wrong += stop is not None and int(scores[:stop].mean(axis=0).argmax()) != 0
    return wrong / images


CASES = {"coin 0.501": two_answers(0.501), "coin 0.52": two_answers(0.52), "coin 0.6": two_answers(0.6), "coin 0.9": two_answers(0.9)}
CASES |= {f"{classes} classes": nearly_tied(classes) for classes in (2, 3, 7, 15)} | {"one noisy": one_noisy}


@pytest.mark.parametrize("image", CASES.values(), ids=CASES.keys())
def test_wrong_stops_stay_below_the_risk(image: Image) -> None:
    assert wrong_stops(image) < RISK


def test_the_t_bound_alone_would_not_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control, and why there are two bounds: on a coin of 0.501 the t bound stops wrongly in more than 5 %."""
    monkeypatch.setattr(stopping, "votes_needed", lambda draws, risk: 0)
    assert wrong_stops(two_answers(0.501)) > RISK


class TwoAnswers:
    """A denoiser of one step that ends in class 0 where its start lies left of the image's threshold, and in class 1 otherwise.

    The feature of an image is (threshold,): with a start p + z the label is 0 with probability Phi(threshold).
    """

    name = "two answers"

    def __init__(self, schedule: Schedule) -> None:
        k = posterior_coefficients(schedule)
        self.q, self.s = k.q[0], k.s[0]
        self.rows = 0

    def condition(self, prior: np.ndarray, feature: np.ndarray) -> Condition:
        return Condition(prior, feature)

    def eps(self, y: np.ndarray, step: np.ndarray, condition: Condition, entry: np.ndarray) -> np.ndarray:
        self.rows += len(y)
        p, threshold = condition.constant[entry], condition.feature[entry]
        target = np.where((y - p)[:, :1] < threshold, [1.0, 0.0], [0.0, 1.0]) + 0.02 * (y - p)
        return (y - (1 - self.q) * p - self.q * target) / self.s


class Given:
    """An encoder that returns what was prepared, and counts."""

    name = precision = "given"

    def __init__(self, thresholds: np.ndarray) -> None:
        self.thresholds, self.runs = thresholds, 0

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        self.runs += 1
        n = len(images)
        return {
            "prior": np.full((n, 2), 0.5), "feature": self.thresholds[images][:, None], "saliency": np.zeros((n, 2, 7, 7)),
            "patch_locations": np.zeros((n, 6, 2), np.int64),
        }  # fmt: skip


def test_the_engine_keeps_the_risk_and_says_what_is_undecided() -> None:
    """2,000 images whose label depends on the noise with known probabilities, through the engine and its own noise."""
    schedule = Schedule("linear", 1e-4, 0.02, 1000, 1)
    shares = {-2.3263: 0.01, -0.5244: 0.3, -0.0502: 0.48, 0.0502: 0.52, 0.2533: 0.6, 0.8416: 0.8, 1.6449: 0.95, 2.5758: 0.995}
    thresholds = np.resize(np.array(list(shares)), 2000)
    network = Network("diffmic-v1", 2, 4, "resnet18", "resnet18", 64, vit_width=64, vit_depth=1)
    encoder, denoiser = Given(thresholds), TwoAnswers(schedule)
    engine = Engine(network, schedule, "multiclass", encoder, HostChains(network, schedule, denoiser))
    keys = [f"{i:064x}" for i in range(len(thresholds))]
    results, _ = engine.predict(np.arange(len(thresholds)), lambda: keys, Sampling("auto"))
    truth = (thresholds < 0).astype(int)
    wrong = [not r.undecided and r.index != t for r, t in zip(results, truth, strict=True)]
    assert np.mean(wrong) < RISK
    counts = np.array([len(r.draw_scores) for r in results])
    assert set(counts) == {8, 16, 32, 64} and encoder.runs == 1 and denoiser.rows == counts.sum(), "no draw was made in vain"
    undecided = np.array([r.undecided for r in results])
    assert all(counts[undecided] == 64)
    by_share = {share: undecided[thresholds == threshold].mean() for threshold, share in shares.items()}
    assert by_share[0.01] == by_share[0.995] == 0.0 and min(by_share[0.48], by_share[0.52]) > 0.8
    for i in (0, 2, 3, 4, 7):  # alone, and with as many draws as it had
        (alone,), _ = engine.predict(np.arange(len(thresholds))[i : i + 1], lambda i=i: keys[i : i + 1], Sampling("auto"))
        (fixed,), _ = engine.predict(np.arange(len(thresholds))[i : i + 1], lambda i=i: keys[i : i + 1], Sampling(len(alone.draw_scores)))
        assert alone.draw_scores.tobytes() == results[i].draw_scores.tobytes() == fixed.draw_scores.tobytes()
        assert alone.undecided == results[i].undecided and not fixed.undecided
