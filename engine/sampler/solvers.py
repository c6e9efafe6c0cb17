"""Few steps in place of many: solvers of the ODE that the chain samples.  Approximate, and used only where asked for by name.

With u = y - p, DiffMIC's forward process is the standard variance-preserving one, u_t = q_t u_0 + s_t e with q_t^2 + s_t^2 = 1, and
eps estimates e.  The same marginals are those of an ODE (arXiv 2011.13456).  Between two rows of the tables its linear part is solved
exactly, with lambda = log(q / s), h = lambda' - lambda and D the estimate of u_0, held constant or extrapolated:

    u' = (s'/s) u + q' (1 - exp(-h)) D

A solver differs from the others in D alone.  The estimate at the last row is the answer: the step to q = 1, s = 0.

DiffMIC-v2 has ten rows and a clamp: it can only take fewer of its own DDIM steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fusedx.engine.errors import ConfigError
from fusedx.engine.sampler.process import DDIMProcess
from fusedx.engine.schedule import DDIMCoefficients
from fusedx.kernels.step import posterior_last_step


@dataclass(frozen=True, slots=True)
class Nodes:
    """The rows of the timestep tables that are visited, descending: rows int64 [N]; their q and s, float64 [N] each."""

    rows: np.ndarray
    q: np.ndarray
    s: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def log_snr(self, i: int) -> float:
        """lambda = log(q / s): half of the logarithm of the signal-to-noise ratio."""
        return math.log(self.q[i] / self.s[i])

    def step(self, i: int) -> float:
        """h from node i to the next."""
        return self.log_snr(i + 1) - self.log_snr(i)


def nodes(q: np.ndarray, s: np.ndarray, count: int) -> Nodes:
    """``count`` of the rows 0 .. T-1 of the tables, which are those of t.  ConfigError where two of them are equally noisy."""
    rows = chosen(len(q), count)
    k = Nodes(rows, q[rows], s[rows])
    if still := [i for i in range(count - 1) if not k.step(i) > 0]:
        a, b = rows[still[0]], rows[still[0] + 1]
        raise ConfigError(f"the schedule is as noisy at t = {b} as at t = {a}, and a solver divides by the difference: take fewer steps")
    return k


def chosen(rows: int, count: int) -> np.ndarray:
    """int64 [count], descending: the upper ends of ``count`` equal parts of 0 .. rows-1; the last row always, and all if count is rows.

    Tried beside it: even spacing down to t = 0, in sqrt(t) and in log(q / s).  Where they differed by more than chance (second order, ten
    steps or fewer) this one agreed best with the published chain: a last step that leaps to t = 0 extrapolates far, and gains little.
    """
    return (2 * np.arange(count, 0, -1) * rows + count) // (2 * count) - 1


class Solver(Protocol):
    """From node to node, for any number of chains at a time; remembers what the earlier nodes gave."""

    def advance(self, i: int, u: np.ndarray, d: np.ndarray) -> np.ndarray:
        """State u [N,C] at node i and its estimate d of u_0 -> the state at node i + 1."""


def held(k: Nodes, i: int, u: np.ndarray, d: np.ndarray) -> np.ndarray:
    """From node i to i + 1 with the estimate d held constant."""
    return (k.s[i + 1] / k.s[i]) * u - k.q[i + 1] * math.expm1(-k.step(i)) * d


class DDIM:
    """First order: the estimate of the node where the step begins (arXiv 2010.02502, eta = 0: here q' D + s' eps)."""

    def __init__(self, k: Nodes) -> None:
        self._k = k

    def advance(self, i: int, u: np.ndarray, d: np.ndarray) -> np.ndarray:
        """See :class:`Solver`."""
        return held(self._k, i, u, d)


class DPMSolverPP2M:
    """Second order: the estimate extrapolated in lambda to the middle of the step, from this node and the one before it.

    DPM-Solver++(2M), arXiv 2211.01095, algorithm 2: D = (1 + 1/2r) d_i - 1/2r d_{i-1}, r = h_{i-1} / h_i.  The first step is DDIM's.
    """

    def __init__(self, k: Nodes) -> None:
        self._k = k
        self._before: np.ndarray | None = None

    def advance(self, i: int, u: np.ndarray, d: np.ndarray) -> np.ndarray:
        """See :class:`Solver`."""
        k, before, self._before = self._k, self._before, d
        if before is None:
            return held(k, i, u, d)
        ahead = k.step(i) / (2.0 * k.step(i - 1))
        return held(k, i, u, d + ahead * (d - before))


class UniPC:
    """Second order, each state corrected once its own estimate is known, at no further evaluation.

    UniPC (arXiv 2302.04867), order 2, data prediction, B(h) = exp(h) - 1 ("bh2").  With d(lambda) the estimate along the step, the exact
    solution adds to a held step  q' int exp(lambda - lambda') (d(lambda) - d_i) dlambda:  the predictor puts a line through the last two
    estimates there, with the paper's coefficient 1/2; the corrector a parabola through them and the one at the step's end.
    """

    def __init__(self, k: Nodes) -> None:
        self._k = k
        self._d: list[np.ndarray] = []  # the estimates of the last two nodes
        self._u = np.zeros(0)  # the corrected state of the last node

    def advance(self, i: int, u: np.ndarray, d: np.ndarray) -> np.ndarray:
        """See :class:`Solver`."""
        if self._d:
            u = self._corrected(i, d)
        self._u, self._d = u, [*self._d[-1:], d]
        return self._predicted(i)

    def _predicted(self, i: int) -> np.ndarray:
        k, now = self._k, self._d[-1]
        if len(self._d) == 1:
            return held(k, i, self._u, now)
        ahead = k.step(i) / (2.0 * k.step(i - 1))
        return held(k, i, self._u, now + ahead * (now - self._d[0]))

    def _corrected(self, i: int, d: np.ndarray) -> np.ndarray:
        """The state at node i, from the one before, with the estimate d at node i."""
        k, now = self._k, self._d[-1]
        h = k.step(i - 1)
        linear, square = _moments(h)
        change = d - now
        if len(self._d) == 1:
            return held(k, i - 1, self._u, now + 0.5 * change)
        # d(x h) = now + a x + b x^2 through x = 1 (change) and x = -r (the estimate before that).
        r = k.step(i - 2) / h
        back = (self._d[0] - now) / r
        b = (change + back) / (1.0 + r)
        return held(k, i - 1, self._u, now + linear * (change - b) + square * b)


def _moments(h: float) -> tuple[float, float]:
    """Means of x and x^2 over 0 .. 1 under the weight exp(h x), the share that a step of length h gives to its part at x h."""
    e = math.expm1(h)
    linear = (e + 1.0) / e - 1.0 / h
    return linear, (e + 1.0) / e - 2.0 * linear / h


SOLVERS: dict[str, Callable[[Nodes], Solver]] = {"ddim": DDIM, "dpmpp-2m": DPMSolverPP2M, "unipc": UniPC}


def solve(eps: Callable[[np.ndarray, int], np.ndarray], k: Nodes, mean: np.ndarray, start: np.ndarray, solver: Solver) -> np.ndarray:
    """eps(y [N,C], row) -> [N,C]; mean and start float64 [N,C] -> states float64 [nodes+1,N,C], the last being the answer."""
    y, states = start, [start]
    for i in range(len(k)):
        d = posterior_last_step(y, eps(y, int(k.rows[i])), mean, q=k.q[i], s=k.s[i]) - mean
        y = mean + (solver.advance(i, y - mean, d) if i + 1 < len(k) else d)
        states.append(y)
    return np.stack(states)


class FewerDDIM(DDIMProcess):
    """DiffMIC-v2's own steps from one row of its table to another that is further down than the next."""

    def __init__(self, k: DDIMCoefficients, start: np.ndarray, count: int) -> None:
        """start float64 [N,C]; count: of the table's rows, the noisiest included."""
        steps = len(k.timesteps)
        self._rows = steps - 1 - chosen(steps, count)
        after = self._rows[1:]
        super().__init__(
            DDIMCoefficients(
                k.timesteps[self._rows],
                k.sqrt_alpha_bar[self._rows],
                k.sqrt_one_minus[self._rows],
                np.append(k.sqrt_alpha_bar[after], k.sqrt_alpha_bar_prev[-1]),
                np.append(k.sqrt_one_minus[after], k.sqrt_one_minus_prev[-1]),
            ),
            start,
        )

    def table_row(self, i: int) -> int:
        """See :class:`fusedx.engine.sampler.process.Process`."""
        return int(self._rows[i])
