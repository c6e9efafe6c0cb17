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

from fusedx.engine.backends import Condition, Denoiser, Differentiable
from fusedx.engine.errors import UnavailableError
from fusedx.engine.sampler.guess import Guess
from fusedx.engine.sampler.held import Held
from fusedx.engine.sampler.plan import Plan
from fusedx.engine.sampler.process import Process

#: How far past the front a walk goes, in rows of a sweep: steps whose eps is held already cost nothing to pass.
_LOOKAHEAD = 4
#: Sweeps over which the gain is judged.
_TRIAL = 8


class Speculation:
    """One chain: the states known to be right, and what is held and guessed of the rest."""

    def __init__(self, process: Process, which: int, bits: int | None, guess: Guess) -> None:
        steps, classes = process.steps, process.start.shape[1]
        self.states = np.empty((steps + 1, classes))
        self.states[0] = process.start[which]
        self.front = 0  # steps whose outcome is known
        self.sweeps = self.rows = 0
        self._process, self._which, self._guess = process, which, guess
        self._held = Held(steps, classes, bits)
        self.wanted = np.zeros(0, np.int64)  # the steps to evaluate
        self.points = np.zeros((0, classes))  # the grid points where
        self.slopes = np.zeros(0, bool)  # whether with their Jacobians

    @property
    def done(self) -> bool:
        return self.front == self._process.steps

    def walk(self, rows: int) -> None:
        """Advance over all that is known, then want what would come next: ``rows`` rows at most, but at least one step.

        A Jacobian that ``rows`` have no place for is not asked for.
        """
        self._advance()
        if self.done:
            self.wanted = self.wanted[:0]
            return
        end = min(self._process.steps, self.front + _LOOKAHEAD * rows)
        points = self._held.point(self._guess.foresee(self._held, self.front, self.states[self.front], end, rows))
        i = self.front + np.arange(len(points))
        unknown = ~self._held.answers(i, points)
        wanted = i[unknown]
        group = 1 + points.shape[1]
        slopes = np.array([group <= rows and self._guess.wants_slope(int(step)) for step in wanted])
        taken = np.cumsum(np.where(slopes, group, 1)) <= rows
        self.wanted, self.points, self.slopes = wanted[taken], points[unknown][taken], slopes[taken]

    def receive(self, eps: np.ndarray, jacobian: np.ndarray) -> None:
        """The answers [K,C] to the last walk, and the Jacobians of those that it wanted with one."""
        held, wanted, points = self._held, self.wanted, self.points
        known = wanted <= held.last
        again = wanted[known]
        self._guess.learn(again, held.at[again], held.eps[again], points[known], eps[known])
        if self.slopes.any():
            self._guess.learn_slopes(wanted[self.slopes], jacobian)
        held.put(wanted, points, eps)
        self.sweeps += 1
        self.rows += len(wanted) + len(jacobian) * points.shape[1]

    def _advance(self) -> None:
        """While the eps held is that of the state itself, the next state is the chain's."""
        while not self.done:
            i, y = self.front, self.states[self.front]
            if not self._held.answers_one(i, self._held.point(y)):
                return
            self.states[i + 1] = self._process.update(i, y, self._held.eps[i], self._which)
            self.front = i + 1


@np.errstate(over="ignore", invalid="ignore")  # a state guessed far off may overflow the denoiser; it costs a sweep
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
        for n in active:
            chains[n].walk(share)
        if wanting := [n for n in active if len(chains[n].wanted)]:
            evaluate(denoiser, process, condition, entry, [(n, chains[n]) for n in wanting])
        sweeps += 1
        if plan.least_gain and rows > 1 and sweeps % _TRIAL == 0:
            gained = sum(chains[n].front - front_then[n] for n in active) / len(active) / _TRIAL
            if gained < plan.least_gain:
                rows = 1  # a chain's share is one row from here on, without a Jacobian
                sequential_from = {n: chains[n].front for n in active}
            front_then = [chain.front for chain in chains]
    sequential_steps = [process.steps - sequential_from.get(n, process.steps) for n in range(len(chains))]
    return (
        np.stack([chain.states for chain in chains], axis=1),
        np.array([chain.sweeps for chain in chains]),
        np.array([chain.rows for chain in chains]),
        np.array(sequential_steps),
    )


def evaluate(denoiser: Denoiser, process: Process, condition: Condition, entry: np.ndarray, chains: list[tuple[int, Speculation]]) -> None:
    """What each chain wants, all together: one evaluation of the rows with Jacobians, one of those without."""
    step = np.array([process.table_row(int(i)) for _, chain in chains for i in chain.wanted], np.int32)
    points = np.concatenate([chain.points for _, chain in chains])
    slopes = np.concatenate([chain.slopes for _, chain in chains])
    owner = np.concatenate([np.full(len(chain.wanted), entry[n], np.int32) for n, chain in chains])
    eps, jacobian = np.empty_like(points), np.empty((0, points.shape[1], points.shape[1]))
    if slopes.any():
        if not isinstance(denoiser, Differentiable):
            raise UnavailableError(f"samplers newton and stale need Jacobians, which backend {denoiser.name} has not; use variant picard")
        eps[slopes], jacobian = denoiser.eps_and_jacobian(points[slopes], step[slopes], condition, owner[slopes])
    if not slopes.all():
        eps[~slopes] = denoiser.eps(points[~slopes], step[~slopes], condition, owner[~slopes])
    first = first_slope = 0
    for _, chain in chains:
        last, last_slope = first + len(chain.wanted), first_slope + int(chain.slopes.sum())
        chain.receive(eps[first:last], jacobian[first_slope:last_slope])
        first, first_slope = last, last_slope
