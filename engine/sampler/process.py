"""What a chain is, apart from who evaluates the denoiser: where it starts and how a state and its eps give the next.

Step i = 0 .. T-1 of N chains at a time.  States and coefficients are float64; the formulas are kernels/step.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from fusedx.engine.schedule import DDIMCoefficients, PosteriorCoefficients
from fusedx.kernels.step import ddim_step, posterior_last_step, posterior_step

#: Which chains: all of them, or one.
Which = slice | int
ALL = slice(None)


class Process(Protocol):
    """N chains of T steps with C numbers each."""

    steps: int
    start: np.ndarray  #: float64 [N,C]

    def table_row(self, i: int) -> int:
        """The row of the denoiser's timestep tables that step i uses."""

    def update(self, i: int, y: np.ndarray, eps: np.ndarray, which: Which = ALL) -> np.ndarray:
        """y, eps [N,C] (or [C] of one chain) -> the state after step i."""

    def hold_estimate(self, i: int, y: np.ndarray, j: int, y_j: np.ndarray, eps_j: np.ndarray, which: Which) -> np.ndarray | None:
        """The eps at (i, y) that implies the same y0 as eps_j does at (j, y_j); None where that is no guess worth having."""

    def eps_scale(self, i: int) -> float:
        """s_i: y0 = (y - ... - s_i eps) / q_i."""


class PosteriorProcess:
    """DiffMIC: down the table from its last row, noise at every step but the last."""

    def __init__(self, k: PosteriorCoefficients, mean: np.ndarray, noise: np.ndarray) -> None:
        """mean float64 [N,C]: the prior, or zeros; noise float64 [T,N,C]: noise[0] starts, noise[i] is used at step i-1."""
        self.steps = len(noise)
        self.start = mean + noise[0]
        self._k, self._mean, self._noise = k, mean, noise

    def table_row(self, i: int) -> int:
        return self.steps - 1 - i

    def update(self, i: int, y: np.ndarray, eps: np.ndarray, which: Which = ALL) -> np.ndarray:
        k, t, mean = self._k, self.table_row(i), self._mean[which]
        if t == 0:
            return posterior_last_step(y, eps, mean, q=k.q[0], s=k.s[0])
        z = self._noise[i + 1][which]
        return posterior_step(y, eps, mean, z, q=k.q[t], s=k.s[t], g0=k.g0[t], g1=k.g1[t], g2=k.g2[t], sigma=k.sigma[t])

    def hold_estimate(self, i: int, y: np.ndarray, j: int, y_j: np.ndarray, eps_j: np.ndarray, which: Which) -> np.ndarray:
        k, t, u, mean = self._k, self.table_row(i), self.table_row(j), self._mean[which]
        y0 = posterior_last_step(y_j, eps_j, mean, q=k.q[u], s=k.s[u])
        return (y - (1.0 - k.q[t]) * mean - k.q[t] * y0) / k.s[t]

    def eps_scale(self, i: int) -> float:
        return float(self._k.s[self.table_row(i)])


class DDIMProcess:
    """DiffMIC-v2: in the order of the table, no noise after the start, the estimate clamped."""

    def __init__(self, k: DDIMCoefficients, start: np.ndarray) -> None:
        """start float64 [N,C]."""
        self.steps = len(k.timesteps)
        self.start = start
        self._k = k

    def table_row(self, i: int) -> int:
        return i

    def update(self, i: int, y: np.ndarray, eps: np.ndarray, which: Which = ALL) -> np.ndarray:
        k = self._k
        return ddim_step(
            y, eps,
            sqrt_alpha_bar=k.sqrt_alpha_bar[i], sqrt_one_minus=k.sqrt_one_minus[i],
            sqrt_alpha_bar_prev=k.sqrt_alpha_bar_prev[i], sqrt_one_minus_prev=k.sqrt_one_minus_prev[i],
        )  # fmt: skip

    def hold_estimate(self, i: int, y: np.ndarray, j: int, y_j: np.ndarray, eps_j: np.ndarray, which: Which) -> None:
        """None: where the clamp is active the estimate says nothing of eps, and ten steps are too few to learn from."""

    def eps_scale(self, i: int) -> float:
        return float(self._k.sqrt_one_minus[i])
