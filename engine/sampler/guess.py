"""What the denoiser will answer, guessed from what it answered nearby.  A guess costs or saves sweeps; it never changes a result."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from fusedx.engine.sampler.held import Held
from fusedx.engine.sampler.newton import Newton, Stale
from fusedx.engine.sampler.process import Process

#: The weight of older sweeps in the secant's sums halves with every sweep.
_MEMORY = 0.5
#: Smaller moves of a state say more about rounding than about the slope.
_LEAST_MOVE = 1e-4
_BLEND = (-0.5, 1.5)


class Guess(Protocol):
    """Of one chain."""

    def foresee(self, held: Held, first: int, y: np.ndarray, end: int, rows: int) -> np.ndarray:
        """[W,C]: the states in which steps first, first + 1, ... are expected, y being that of the first, whose eps is not held.

        At most to ``end``; there may be fewer where ``rows`` of them need an evaluation already, or where nothing can be said.
        """

    def wants_slope(self, i: int) -> bool:
        """Whether step i is to be evaluated with its Jacobian now: 1 + C rows in place of one."""

    def learn_slopes(self, i: np.ndarray, jacobian: np.ndarray) -> None:
        """The Jacobians [K,C,C] of steps i [K]; jacobian[k,c,d] = d eps_c / d y_d."""

    def learn(self, i: np.ndarray, before: np.ndarray, eps_before: np.ndarray, y: np.ndarray, eps: np.ndarray) -> None:
        """The steps i [K] of a sweep that had an eps already: states and eps before and now, [K,C] each."""


class Picard:
    """Hold eps, corrected by how much it followed the state so far.

    Between "eps stays" (blend 0: a denoiser that hardly looks at its state) and "the estimate y0 stays" (blend 1: one that knows the
    answer) lies eps + blend (eps_held_y0 - eps).  The blend is the secant slope s_i d(eps) . d(y) / d(y) . d(y) over this chain's last
    sweeps.
    """

    def __init__(self, process: Process, which: int) -> None:
        self._process, self._which = process, which
        self._weight = self._slope = 0.0
        self.blend = 0.0

    def foresee(self, held: Held, first: int, y: np.ndarray, end: int, rows: int) -> np.ndarray:
        states, point = [y], held.point(y)
        eps, unknown = self._eps(first, point, held), 1
        for i in range(first + 1, end):
            y = self._process.update(i - 1, y, eps, self._which)
            states.append(y)
            point = held.point(y)
            if held.answers_one(i, point):
                eps = held.eps[i]
                continue
            unknown += 1
            if unknown >= rows:
                break
            eps = self._eps(i, point, held)
        return np.array(states)

    def _eps(self, i: int, point: np.ndarray, held: Held) -> np.ndarray:
        """[C]: eps at step i and a grid point (the denoiser sees nothing finer), by the last answer of the step or of the last known."""
        if held.last < 0:
            return np.zeros_like(point)
        j = min(i, held.last)
        if self.blend == 0.0:
            return held.eps[j]
        other = self._process.hold_estimate(i, point, j, held.at[j], held.eps[j], self._which)
        return held.eps[j] if other is None else (1.0 - self.blend) * held.eps[j] + self.blend * other

    def wants_slope(self, i: int) -> bool:
        return False

    def learn_slopes(self, i: np.ndarray, jacobian: np.ndarray) -> None:
        """None are asked for."""

    def learn(self, i: np.ndarray, before: np.ndarray, eps_before: np.ndarray, y: np.ndarray, eps: np.ndarray) -> None:
        moves = y - before
        moved = np.abs(moves).max(axis=1, initial=0.0) > _LEAST_MOVE
        if not moved.any():
            return
        scale = np.array([self._process.eps_scale(int(step)) for step in i[moved]])
        moves, change = moves[moved], (eps - eps_before)[moved]
        slope = float(np.sum(scale * np.sum(change * moves, axis=1) / np.sum(moves * moves, axis=1)))
        self._weight = _MEMORY * self._weight + int(moved.sum())
        self._slope = _MEMORY * self._slope + slope
        blend = self._slope / self._weight
        self.blend = min(max(blend, _BLEND[0]), _BLEND[1]) if np.isfinite(blend) else 0.0


GUESSES: dict[str, type[Picard] | type[Newton]] = {"picard": Picard, "newton": Newton, "stale": Stale}
