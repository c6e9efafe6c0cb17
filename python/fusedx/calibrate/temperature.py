"""Calibration: does 0.8 mean right in four of five?  And the one number that makes it so, as far as one number can.

"On calibration of modern neural networks" (arXiv 1706.04599): temperature scaling, and the expected calibration error over 15 bins.
"""

from __future__ import annotations

import math

import numpy as np

from fusedx.calibrate.answers import Answers
from fusedx.engine.errors import ConfigError
from fusedx.engine.sampling import Sampling
from fusedx.engine.temperature import LEAST, MOST, Temperature, tempered

BINS = 15
#: Labelled pictures, half of which fit and half of which judge.
FEWEST = 40
_HALVINGS = 200


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float:
    """[n,C], [n] -> sum over equal bins (lo, hi] of the top probability of |share right - its mean|, weighted by the bin's pictures."""
    top, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    place = np.clip(np.ceil(top * bins).astype(int) - 1, 0, bins - 1)
    gap = np.bincount(place, right - top, bins)
    return float(np.abs(gap).sum() / len(labels))


def negative_log_likelihood(scores: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    """Mean of -log softmax(scores / temperature)[label], float64 [n,C] and int [n]."""
    z = scores / temperature
    z = z - z.max(axis=1, keepdims=True)
    return float(np.mean(np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), labels]))


def fit(scores: np.ndarray, labels: np.ndarray) -> float:
    """The temperature of maximum likelihood.

    In b = 1 / T the negative log likelihood is convex; its slope, mean over pictures of sum_c softmax(b s)_c s_c - s_label, grows with b
    and crosses zero once.  ConfigError where it does not between the bounds: labels that the scores always, or never better than chance,
    predict have no best temperature.
    """
    own = scores[np.arange(len(scores)), labels]

    def slope(b: float) -> float:
        return float(np.mean((tempered(scores, 1.0 / b) * scores).sum(axis=1) - own))

    low, high = 1.0 / MOST, 1.0 / LEAST
    if slope(low) >= 0:
        raise ConfigError("the labels fit the model's answers no better than chance, so no temperature fits: are they this model's?")
    if slope(high) <= 0:
        raise ConfigError(f"the model is right about all of the {len(labels)} pictures that fit, so no temperature is the best: take more")
    for _ in range(_HALVINGS):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 1.0 / math.sqrt(low * high)


def halves(digests: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the pictures that fit and of those that judge: every other one, in the order of their pixels' SHA-256."""
    order = np.argsort(np.array(digests), kind="stable")
    return np.sort(order[::2]), np.sort(order[1::2])


def require(labelled: int) -> None:
    """ConfigError where so many labelled pictures are too few."""
    if labelled < FEWEST:
        raise ConfigError(f"a temperature needs at least {FEWEST} different pictures with labels (hundreds are better); got {labelled}")


def measure(answers: Answers, which: int, sampling: Sampling) -> Temperature:
    """Fit on one half of the labelled pictures, judge on the other.  which: of the answers' settings."""
    known = np.flatnonzero(answers.labels >= 0)
    require(len(known))
    scores, labels = answers.scores[which][known], answers.labels[known]
    fitting, judging = halves([answers.digests[i] for i in known])
    value = fit(scores[fitting], labels[fitting])
    s, y = scores[judging], labels[judging]
    return Temperature(
        value=value,
        images=len(fitting),
        held_out=len(judging),
        ece_before=calibration_error(tempered(s, 1.0), y),
        ece_after=calibration_error(tempered(s, value), y),
        nll_before=negative_log_likelihood(s, y, 1.0),
        nll_after=negative_log_likelihood(s, y, value),
        draws=int(sampling.draws),
        seed=sampling.seed,
        start=sampling.start,
        solver=sampling.solver,
        solver_steps=sampling.solver_steps,
    )
