"""Parallel in time, by speculation: many steps of a chain evaluated at once, and the sequential chain's own bits as the result.

The chain's noise is drawn beforehand and its state is C numbers, so the denoiser's answers can be guessed, the chain walked with the
guesses, and all the steps so reached evaluated as one batch (Picard iteration over time: ParaDiGMS, arXiv 2305.16317).  Published
schemes stop when the iterates change little.  Here the denoiser sees the state on a grid, so "the same input" is an exact question: a
step is done when its eps was evaluated at precisely the grid point where the chain now is.  What is accepted is then what the sequential
sampler computes: its residual max |y_{i+1} - G_i(y_i)| is zero.  The first step of a walk is always such a step, so every sweep advances.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fusedx.engine.backends import Condition, Denoiser
from fusedx.engine.sampler.guess import Guess
from fusedx.engine.sampler.plan import Plan
from fusedx.engine.sampler.process import Process
from fusedx.kernels.step import on_grid

#: How far past the front a walk goes, in rows of a sweep: steps whose eps is held already cost nothing to pass.
_LOOKAHEAD = 4
#: Sweeps over which the gain is judged.
_TRIAL = 8


class Speculation:
    """One chain: the states known to be right, and the eps held for every step with the grid point that it belongs to."""

    def __init__(self, process: Process, which: int, bits: int | None, guess: Guess) -> None:
        steps, classes = process.steps, process.start.shape[1]
        self.states = np.empty((steps + 1, classes))
        self.states[0] = process.start[which]
        self.front = 0  # steps whose outcome is known
        self.sweeps = self.rows = 0
        self._process, self._which, self._bits, self._guess = process, which, bits, guess
        self._at = np.full((steps, classes), np.nan)
        self._eps = np.zeros((steps, classes))
        self._last = -1  # the furthest step with an eps
        self._wanted: list[int] = []
        self._points: list[np.ndarray] = []

    @property
    def done(self) -> bool:
        return self.front == self._process.steps

    def walk(self, rows: int) -> tuple[list[int], list[np.ndarray]]:
        """Go on from the front; -> the steps to evaluate, ``rows`` at most, and the grid points [C] where."""
        self._wanted, self._points = [], []
        y, i = self.states[self.front], self.front
        end = min(self._process.steps, self.front + _LOOKAHEAD * rows)
        while i < end and len(self._wanted) < rows:
            point = on_grid(y, self._bits)
            if i <= self._last and same_bits(point, self._at[i]):
                eps = self._eps[i]
            else:
                self._wanted.append(i)
                self._points.append(point)
                eps = self._guessed(i, y)
            y = self._process.update(i, y, eps, self._which)
            i += 1
            if not self._wanted:
                self.front = i
                self.states[i] = y
                end = min(self._process.steps, self.front + _LOOKAHEAD * rows)
        return self._wanted, self._points

    def receive(self, eps: np.ndarray) -> None:
        """The answers [K,C] to the last walk."""
        wanted, points = np.array(self._wanted), np.array(self._points)
        known = wanted <= self._last
        again = wanted[known]
        self._guess.learn(again, self._at[again], self._eps[again], points[known], eps[known])
        self._at[wanted], self._eps[wanted] = points, eps
        self._last = max(self._last, int(wanted[-1]))
        self.sweeps += 1
        self.rows += len(wanted)

    def _guessed(self, i: int, y: np.ndarray) -> np.ndarray:
        if self._last < 0:
            return np.zeros_like(y)
        j = min(i, self._last)
        return self._guess.eps(i, y, j, self._at[j], self._eps[j])


def parallel(
    denoiser: Denoiser,
    process: Process,
    condition: Condition,
    entry: np.ndarray,
    guess: Callable[[Process, int], Guess],
    *,
    bits: int | None,
    plan: Plan,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """N chains -> (states float64 [T+1,N,C], sweeps int64 [N], rows int64 [N], sequential_steps int64 [N]).

    A sweep has ``plan.rows`` rows, shared out evenly over the chains that are not done, each having at least one.
    """
    chains = [Speculation(process, n, bits, guess(process, n)) for n in range(len(process.start))]
    sequential_from: dict[int, int] = {}
    sweeps, rows, front_then = 0, plan.rows, [0] * len(chains)
    while active := [n for n, chain in enumerate(chains) if not chain.done]:
        share = max(1, rows // len(active))
        walks = [(n, *chains[n].walk(share)) for n in active]
        walks = [walk for walk in walks if walk[1]]
        if walks:
            wanted = [process.table_row(i) for _, steps, _ in walks for i in steps]
            points = np.array([point for _, _, at in walks for point in at])
            owner = np.repeat([entry[n] for n, _, _ in walks], [len(steps) for _, steps, _ in walks]).astype(np.int32)
            eps = denoiser.eps(points, np.array(wanted, np.int32), condition, owner)
            first = 0
            for n, steps, _ in walks:
                chains[n].receive(eps[first : first + len(steps)])
                first += len(steps)
        sweeps += 1
        if plan.least_gain and rows > 1 and sweeps % _TRIAL == 0:
            gained = sum(chains[n].front - front_then[n] for n in active) / len(active) / _TRIAL
            if gained < plan.least_gain:
                rows = 1
                sequential_from = {n: chains[n].front for n in active}
            front_then = [chain.front for chain in chains]
    sequential_steps = [process.steps - sequential_from.get(n, process.steps) for n in range(len(chains))]
    return (
        np.stack([chain.states for chain in chains], axis=1),
        np.array([chain.sweeps for chain in chains]),
        np.array([chain.rows for chain in chains]),
        np.array(sequential_steps),
    )


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two float64 arrays are the same, not-a-numbers of equal bits included: a chain that overflowed ends, too."""
    return a.tobytes() == b.tobytes()
