"""What every contender computes: some steps of a hoisted chain, for some rows, from the same weights, conditions and noise.

Hoisted: the image feature is given.  A step is layers 1 to 4 of the denoiser and the update of the state,

    u1 = softplus(a1[t] (W1_y y + W1_p p) + c1[t]) f
    u2 = softplus(a2[t] (W2 u1) + c2[t])
    u3 = softplus(a3[t] (W3 u2) + c3[t])          eps = W4 u3 + b4
    y <- A[t] y + B[t] eps + n[t]

which is DiffMIC's posterior step with everything that does not depend on y computed beforehand; every contender gets it so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fusedx.engine.denoiser import DenoiserTables
from fusedx.engine.schedule import PosteriorCoefficients


@dataclass(frozen=True, slots=True)
class Problem:
    """R rows, S steps at t = T-1 .. T-S of the tables.

    prior float64 [R,C]; feature float32 [R,F]; noise float64 [T,R,C] (noise[0] starts, noise[i] is used at t = T-i).
    """

    tables: DenoiserTables
    coefficients: PosteriorCoefficients
    prior: np.ndarray
    feature: np.ndarray
    noise: np.ndarray
    steps: int

    @property
    def rows(self) -> int:
        """Rows that share every evaluation of the denoiser."""
        return len(self.prior)

    @property
    def order(self) -> range:
        """Rows of the timestep tables, in the order in which the chain uses them."""
        last = self.tables.steps - 1
        return range(last, last - self.steps, -1)

    @property
    def start(self) -> np.ndarray:
        """The state before the first step, float64 [R,C]."""
        return self.prior + self.noise[0]

    @property
    def constant(self) -> np.ndarray:
        """W1_p p, the half of layer 1 that a chain computes once, float32 [R,F]."""
        return (self.prior @ self.tables.weight_p.T.astype(np.float64)).astype(np.float32)

    def updates(self) -> list[tuple[float, float, np.ndarray]]:
        """(A, B, n [R,C]) of each step in order."""
        k, steps, found = self.coefficients, self.tables.steps, []
        for t in self.order:
            by_y, by_eps, by_prior = 1 / k.q[t], -k.s[t] / k.q[t], -(1 - k.q[t]) / k.q[t]
            if t == 0:
                found.append((by_y, by_eps, by_prior * self.prior))
                continue
            n = (k.g0[t] * by_prior + k.g2[t]) * self.prior + k.sigma[t] * self.noise[steps - t]
            found.append((k.g0[t] * by_y + k.g1[t], k.g0[t] * by_eps, n))
        return found

    def chain(self, eps: Callable[[np.ndarray, int], np.ndarray]) -> Callable[[], np.ndarray]:
        """The steps as a loop in Python around ``eps(y float64 [R,C], t) -> [R,C]``: final state float64 [R,C]."""
        start, updates, order = self.start, self.updates(), self.order

        def run() -> np.ndarray:
            y = start
            for t, (a, b, n) in zip(order, updates, strict=True):
                y = a * y + b * eps(y, t) + n
            return y

        return run


def exact(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """(eps of the first step, final state), float64 [R,C] each, everything computed in float64."""
    w = {name: array.astype(np.float64) for name, array in problem.tables.arrays().items()}
    feature, constant = problem.feature.astype(np.float64), problem.prior @ w["weight_p"].T

    def softplus(x: np.ndarray) -> np.ndarray:
        return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))

    def eps(y: np.ndarray, t: int) -> np.ndarray:
        u = softplus(w["scale1"][t] * (y @ w["weight_y"].T + constant) + w["shift1"][t]) * feature
        u = softplus(w["scale2"][t] * (u @ w["weight2"].T) + w["shift2"][t])
        u = softplus(w["scale3"][t] * (u @ w["weight3"].T) + w["shift3"][t])
        return u @ w["weight4"].T + w["bias4"]

    return eps(problem.start, problem.order[0]), problem.chain(eps)()
