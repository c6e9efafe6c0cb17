"""Softmax and sigmoid of scores, in float64, with the same bits on every machine."""

from __future__ import annotations

import numpy as np

from fusedx.kernels.native_module import native
from fusedx.kernels.softmax import reference

__all__ = ["sigmoid", "softmax"]


def softmax(scores: np.ndarray) -> np.ndarray:
    """float64 [..., C], C >= 1 -> float64 [..., C], over the last axis."""
    scores = _checked("scores", scores)
    if not scores.ndim or not scores.shape[-1]:
        raise ValueError(f"scores: expected float64 [..., C] with at least one class, got {list(scores.shape)}")
    if native is None:
        return reference.softmax(scores)
    return native.softmax(scores.reshape(-1, scores.shape[-1])).reshape(scores.shape)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """float64 [...] -> float64 [...], each element."""
    x = _checked("x", x)
    return native.sigmoid(x.reshape(-1)).reshape(x.shape) if native else reference.sigmoid(x)


def _checked(name: str, x: np.ndarray) -> np.ndarray:
    if not isinstance(x, np.ndarray) or x.dtype != np.float64:
        raise ValueError(f"{name}: expected float64, got {x.dtype if isinstance(x, np.ndarray) else type(x).__name__}")
    return np.asarray(x, order="C")
