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

    # Of one chain at many steps at once, i and j int [W], states and eps [W,C]: for guesses, rounding as it may.

    def updates(self, i: np.ndarray, y: np.ndarray, eps: np.ndarray, which: int) -> np.ndarray:
        """[W,C]: the state after step i from y."""

    def slopes(self, i: np.ndarray, y: np.ndarray, eps: np.ndarray, which: int) -> tuple[np.ndarray, np.ndarray]:
        """[W,C] each: what ``updates`` changes by with y and with eps, number by number."""

    def carried(self, i: np.ndarray, j: np.ndarray, y_j: np.ndarray, eps_j: np.ndarray, which: int) -> np.ndarray:
        """[W,C]: the state at step i of the same y0 and eps as (y_j, eps_j) at step j; y_j itself where i is j."""


class PosteriorProcess:
    """DiffMIC: down the table from its last row, noise at every step but the last."""

    def __init__(self, k: PosteriorCoefficients, mean: np.ndarray, noise: np.ndarray) -> None:
        """mean float64 [N,C]: the prior, or zeros; noise float64 [T,N,C]: noise[0] starts, noise[i] is used at step i-1."""
        self.steps = len(noise)
        self.start = mean + noise[0]
        self._k, self._mean, self._noise = k, mean, noise

    @property
    def mean(self) -> np.ndarray:
        """float64 [N,C]."""
        return self._mean

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

    def updates(self, i: np.ndarray, y: np.ndarray, eps: np.ndarray, which: int) -> np.ndarray:
        k, t, mean = self._k, self._rows(i), self._mean[which]
        z = self._noise[np.minimum(i + 1, self.steps - 1), which]
        noisy = posterior_step(y, eps, mean, z, q=k.q[t], s=k.s[t], g0=k.g0[t], g1=k.g1[t], g2=k.g2[t], sigma=k.sigma[t])
        return np.where(t > 0, noisy, posterior_last_step(y, eps, mean, q=k.q[t], s=k.s[t]))

    def slopes(self, i: np.ndarray, y: np.ndarray, eps: np.ndarray, which: int) -> tuple[np.ndarray, np.ndarray]:
        k, t = self._k, self._rows(i)
        of_y0, of_y = np.where(t > 0, k.g0[t], 1.0), np.where(t > 0, k.g1[t], 0.0)
        return np.broadcast_to(of_y0 / k.q[t] + of_y, y.shape), np.broadcast_to(-of_y0 * k.s[t] / k.q[t], y.shape)

    def carried(self, i: np.ndarray, j: np.ndarray, y_j: np.ndarray, eps_j: np.ndarray, which: int) -> np.ndarray:
        k, t, u, mean = self._k, self._rows(i), self._rows(j), self._mean[which]
        y0 = posterior_last_step(y_j, eps_j, mean, q=k.q[u], s=k.s[u])
        return np.where(t == u, y_j, (1.0 - k.q[t]) * mean + k.q[t] * y0 + k.s[t] * eps_j)

    def _rows(self, i: np.ndarray) -> np.ndarray:
        """[W,1]: ``table_row`` of many steps, beside states [W,C]."""
        return self.steps - 1 - i[:, None]


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

    def updates(self, i: np.ndarray, y: np.ndarray, eps: np.ndarray, which: int) -> np.ndarray:
        k, x0 = self._k, self._estimate(i, y, eps)
        return k.sqrt_alpha_bar_prev[i, None] * np.clip(x0, -1.0, 1.0) + k.sqrt_one_minus_prev[i, None] * eps

    def slopes(self, i: np.ndarray, y: np.ndarray, eps: np.ndarray, which: int) -> tuple[np.ndarray, np.ndarray]:
        k = self._k
        free = np.abs(self._estimate(i, y, eps)) < 1.0  # at the kinks themselves the clamp's side is as good as the other
        by_y = np.where(free, (k.sqrt_alpha_bar_prev / k.sqrt_alpha_bar)[i, None], 0.0)
        return by_y, k.sqrt_one_minus_prev[i, None] - by_y * k.sqrt_one_minus[i, None]

    def carried(self, i: np.ndarray, j: np.ndarray, y_j: np.ndarray, eps_j: np.ndarray, which: int) -> np.ndarray:
        k, x0 = self._k, np.clip(self._estimate(j, y_j, eps_j), -1.0, 1.0)
        return np.where((i == j)[:, None], y_j, k.sqrt_alpha_bar[i, None] * x0 + k.sqrt_one_minus[i, None] * eps_j)

    def _estimate(self, i: np.ndarray, y: np.ndarray, eps: np.ndarray) -> np.ndarray:
        """x0 [W,C], not clamped."""
        return (y - self._k.sqrt_one_minus[i, None] * eps) / self._k.sqrt_alpha_bar[i, None]
