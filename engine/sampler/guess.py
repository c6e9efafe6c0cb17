"""What the denoiser will answer, guessed from what it answered nearby.  A guess costs or saves sweeps; it never changes a result."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from fusedx.engine.sampler.process import Process

#: The weight of older sweeps in the secant's sums halves with every sweep.
_MEMORY = 0.5
#: Smaller moves of a state say more about rounding than about the slope.
_LEAST_MOVE = 1e-4
_BLEND = (-0.5, 1.5)


class Guess(Protocol):
    """Of one chain.  Steps are guessed in order, and only after some step's eps is known."""

    def eps(self, i: int, y: np.ndarray, j: int, y_j: np.ndarray, eps_j: np.ndarray) -> np.ndarray:
        """[C]: eps at step i and state y, where step j (i itself, or the last one known) has eps_j at y_j."""

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

    def eps(self, i: int, y: np.ndarray, j: int, y_j: np.ndarray, eps_j: np.ndarray) -> np.ndarray:
        if self.blend == 0.0:
            return eps_j
        held = self._process.hold_estimate(i, y, j, y_j, eps_j, self._which)
        return eps_j if held is None else (1.0 - self.blend) * eps_j + self.blend * held

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


GUESSES = {"picard": Picard}
