"""Two ways of computing the same pictures: whose label changes, and by how much probabilities shift.

The label of a multi-class model is the class of its largest score.  A multi-label model has one label a class, score above 0.5 or not,
and a picture's label changes where any of them does.  A picture's shift is the largest difference of a class's probability, 0 to 1.
"""

from __future__ import annotations

import numpy as np


def labels(scores: np.ndarray, task: str) -> np.ndarray:
    """float64 [n,C] -> int64 [n,1], the class, or of a multi-label model bool [n,C]."""
    return scores > 0.5 if task == "multilabel" else scores.argmax(axis=1)[:, None]


def changed(labels: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Of :func:`labels` each -> bool [n]."""
    return np.asarray((labels != others).any(axis=1))


def shifts(probabilities: np.ndarray, others: np.ndarray) -> np.ndarray:
    """float64 [n,C] each -> float64 [n]."""
    return np.asarray(np.abs(probabilities - others).max(axis=1))
