"""Intervals, calibration errors and the fit, against tabulated values, brute force and known truths."""

from __future__ import annotations

import numpy as np
import pytest

from fusedx.calibrate.temperature import calibration_error, fit, halves, negative_log_likelihood
from fusedx.engine.errors import ConfigError
from fusedx.engine.temperature import Temperature, tempered
from fusedx.statistics import wilson


@pytest.mark.parametrize(
    ("events", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],  # Newcombe, Stat. Med. 17 (1998)
)
def test_wilson_is_as_tabulated(events: int, n: int, low: float, high: float) -> None:
    assert wilson(events, n) == pytest.approx((low, high), abs=6e-5)
    assert wilson(n - events, n) == pytest.approx((1 - high, 1 - low), abs=6e-5)


def test_wilson_covers() -> None:
    rng = np.random.default_rng(0)
    events = rng.binomial(200, 0.8, 4000)
    covered = np.mean([low <= 0.8 <= high for low, high in (wilson(int(k), 200) for k in events)])
    assert 0.94 < covered < 0.965


@pytest.mark.parametrize(("events", "n"), [(-1, 5), (6, 5), (0, 0)])
def test_wilson_refuses_what_is_no_count(events: int, n: int) -> None:
    with pytest.raises(ValueError, match="events in"):
        wilson(events, n)


def test_calibration_error_is_its_definition() -> None:
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.ones(4), 500)
    labels = rng.integers(0, 4, 500)
    p[0], p[1] = [1, 0, 0, 0], [5 / 15, 4 / 15, 3 / 15, 3 / 15]  # on edges: the last bin, and the fifth
    total, top = 0.0, p.max(1)
    for b in range(15):
        inside = (top > b / 15) & (top <= (b + 1) / 15)
        if inside.any():
            total += inside.mean() * abs((p.argmax(1) == labels)[inside].mean() - top[inside].mean())
    assert calibration_error(p, labels) == pytest.approx(total)
    sure = np.eye(3)[[0, 1, 2, 0]]
    assert calibration_error(sure, np.array([0, 1, 2, 0])) == 0 and calibration_error(sure, np.array([1, 2, 0, 1])) == 1


@pytest.mark.parametrize("truth", [0.2, 1.0, 7.0])
def test_the_fit_finds_the_temperature_that_made_the_labels(truth: float) -> None:
    rng = np.random.default_rng(2)
    scores = rng.normal(size=(6000, 5)) * truth
    p = tempered(scores, truth)
    labels = (p.cumsum(1) > rng.random((6000, 1))).argmax(1)
    found = fit(scores, labels)
    assert found == pytest.approx(truth, rel=0.05)
    best = negative_log_likelihood(scores, labels, found)
    assert all(best <= negative_log_likelihood(scores, labels, found * f) for f in (0.9, 0.999, 1.001, 1.1))
    assert calibration_error(tempered(scores, found), labels) < 0.03


def test_the_fit_refuses_labels_that_have_no_best_temperature() -> None:
    scores = np.random.default_rng(3).normal(size=(100, 3))
    with pytest.raises(ConfigError, match="right about all of the 100"):
        fit(scores, scores.argmax(1))
    with pytest.raises(ConfigError, match="no better than chance"):
        fit(scores, scores.argmin(1))


def test_halves_do_not_depend_on_the_order_of_pictures() -> None:
    rng = np.random.default_rng(4)
    digests = [rng.bytes(32).hex() for _ in range(41)]
    fitting, judging = halves(digests)
    assert len(fitting) == 21 and len(judging) == 20 and not set(fitting) & set(judging)
    back = digests[::-1]
    assert {back[i] for i in halves(back)[0]} == {digests[i] for i in fitting}


GOOD = {"value": 0.5, "images": 10, "held_out": 10, "ece_before": 0.3, "ece_after": 0.1, "nll_before": 1.0, "nll_after": 0.8}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"value": 0.0}, "temperature.value must be"),
        ({"value": float("nan")}, "temperature.value must be"),
        ({"images": 0}, "temperature.images"),
        ({"ece_after": 1.5}, "temperature.ece_after"),
        ({"nll_before": float("inf")}, "temperature.nll_before"),
        ({"start": "cold"}, "temperature.start"),
        ({"solver": "ddim"}, "temperature.solver_steps"),
        ({"solver_steps": 5}, "temperature.solver_steps"),
        ({"draws": 0}, "temperature.draws"),
    ],
)
def test_a_temperature_is_checked(wrong: dict, words: str) -> None:
    assert "0.5, where asked for" in Temperature(**GOOD).report()
    with pytest.raises(ConfigError, match=words):
        Temperature(**GOOD | wrong)
