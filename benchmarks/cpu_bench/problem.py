"""What every contender computes: a hoisted chain, for some rows, from the same weights, conditions and noise.

Hoisted: the image feature is given.  A step is layers 1 to 4 of the denoiser and the update of the state,

    u1 = softplus(a1[t] (W1_y y + W1_p p) + c1[t]) f
    u2 = softplus(a2[t] (W2 u1) + c2[t])
    u3 = softplus(a3[t] (W3 u2) + c3[t])          eps = W4 u3 + b4
    y <- A[t] y + B[t] eps + n[t]

which is DiffMIC's posterior step with everything that does not depend on y computed beforehand.  Every library gets it so, and is
asked for eps alone; the update, a few numbers in float64, is numpy's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fusedx.engine.denoiser import DenoiserTables

#: eps(y float64 [R,C], row t of the timestep tables) -> [R,C] of any floating dtype.
Eps = Callable[[np.ndarray, int], np.ndarray]


@dataclass(frozen=True, slots=True)
class Problem:
    """R rows, each of an image of its own, and a chain of T steps of which the last ``steps`` are timed.

    tables: float32, folded, T rows.  coefficients float64 [T,6], columns as ``fusedx.kernels.step.COEFFICIENTS``.  prior float64 [R,C];
    feature float32 [R,F]; noise float64 [T,R,C]: noise[0] starts, noise[i] is used after i steps.
    """

    tables: DenoiserTables
    coefficients: np.ndarray
    prior: np.ndarray
    feature: np.ndarray
    noise: np.ndarray
    steps: int

    @property
    def rows(self) -> int:
        """Rows that share every evaluation of the denoiser."""
        return len(self.prior)

    @property
    def start(self) -> np.ndarray:
        """The state before the first step, float64 [R,C]."""
        return self.prior + self.noise[0]

    @property
    def constant(self) -> np.ndarray:
        """W1_p p, the half of layer 1 that a chain computes once, float32 [R,F]."""
        return (self.prior @ self.tables.weight_p.T.astype(np.float64)).astype(np.float32)

    def layer_tables(self, t: int) -> dict[str, np.ndarray]:
        """scale1 .. shift3 of row ``t``, float32 [F] each."""
        return {f"{kind}{k}": np.array(getattr(self.tables, f"{kind}{k}")[t]) for k in (1, 2, 3) for kind in ("scale", "shift")}

    def chain(self, eps: Eps, steps: int) -> Callable[[], np.ndarray]:
        """A loop around ``eps`` over the last ``steps`` steps, t = steps-1 .. 0, from the start: final state float64 [R,C]."""
        updates = [(t, *self._update(t, self.noise[steps - t] if t else None)) for t in range(steps - 1, -1, -1)]
        start = self.start

        def run() -> np.ndarray:
            y = start
            for t, a, b, n in updates:
                y = a * y + b * eps(y, t) + n
            return y

        return run

    def _update(self, t: int, z: np.ndarray | None) -> tuple[float, float, np.ndarray]:
        """(A, B, n [R,C]) of a step: y0 = (y - (1-q) p - s eps) / q, then g0 y0 + g1 y + g2 p + sigma z unless it is the last."""
        q, s, g0, g1, g2, sigma = self.coefficients[t]
        if z is None:
            return 1 / q, -s / q, -(1 - q) / q * self.prior
        return g0 / q + g1, -g0 * s / q, (g2 - g0 * (1 - q) / q) * self.prior + sigma * z


def exact_eps(problem: Problem) -> np.ndarray:
    """eps of the first timed step, computed in float64 throughout."""
    w, y = problem.tables, problem.start
    table = {name: row.astype(np.float64) for name, row in problem.layer_tables(problem.steps - 1).items()}

    def layer(k: int, product: np.ndarray) -> np.ndarray:
        x = table[f"scale{k}"] * product + table[f"shift{k}"]
        return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))

    u = layer(1, y @ w.weight_y.T.astype(np.float64) + problem.prior @ w.weight_p.T.astype(np.float64)) * problem.feature
    u = layer(2, u @ w.weight2.T.astype(np.float64))
    u = layer(3, u @ w.weight3.T.astype(np.float64))
    return u @ w.weight4.T.astype(np.float64) + w.bias4


def relative_error(got: np.ndarray, expected: np.ndarray) -> float:
    """Of the whole array, in the Euclidean norm."""
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))
