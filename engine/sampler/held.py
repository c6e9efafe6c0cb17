"""What one chain knows of its denoiser so far: for every step the last eps, and the grid point that it belongs to."""

from __future__ import annotations

import numpy as np

from fusedx.kernels.step import on_grid


class Held:
    """at, eps float64 [T,C]: of steps 0 to ``last``, the furthest one evaluated (-1: none yet)."""

    def __init__(self, steps: int, classes: int, bits: int | None) -> None:
        """bits: the grid on which the denoiser sees the state; None for none."""
        self.at = np.zeros((steps, classes))
        self.eps = np.zeros((steps, classes))
        self.last = -1
        self._bits = bits

    def point(self, y: np.ndarray) -> np.ndarray:
        """Where the denoiser is evaluated for a state y [...,C]."""
        return on_grid(y, self._bits)

    def answers(self, i: np.ndarray, points: np.ndarray) -> np.ndarray:
        """bool [K]: whether the eps of step i [K] is that of points [K,C], bit for bit, not-a-numbers too: an overflown chain must end."""
        same = (points.view(np.int64) == self.at[i].view(np.int64)).all(axis=1)
        return same & (i <= self.last)

    def answers_one(self, i: int, point: np.ndarray) -> bool:
        """The same of one step, point [C]."""
        return i <= self.last and point.tobytes() == self.at[i].tobytes()

    def put(self, i: np.ndarray, points: np.ndarray, eps: np.ndarray) -> None:
        """The answers eps [K,C] at points [K,C] of steps i [K], ascending."""
        self.at[i], self.eps[i] = points, eps
        self.last = max(self.last, int(i[-1]))
