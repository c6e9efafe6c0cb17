"""Newton's method over time, as a guess: every step's eps made linear in its state, and the window's linear recurrence solved at once.

    eps_i(y) = eps_j + J_i (grid(y) - y_ij)        y_{i+1} = G_i(y_i, eps_i(y_i))

j is step i itself or, for a step not evaluated yet, the last one that was; y_ij is j's state carried to step i (its own, where i is j).
The denoiser's Jacobian comes with its eps in one pass of 1 + C rows (kernels/conditional_layer, ``tangent_layer``).  G_i is affine for
DiffMIC and piecewise so for DiffMIC-v2, so a window is a recurrence of affine maps of C numbers: sampler/affine.py.  Newton over time for
recurrences: DEER, arXiv 2309.12252.

The solution is exact to rounding, not to the bit, which the grid absorbs; without one (the float64 reference) held eps is the better bet.

What it guarantees: nothing is accepted that is not the sequential chain's own step (parallel.py), so a bad guess costs sweeps alone, and
T steps never take more than T.  Where the denoiser is smooth, errors of a window square from sweep to sweep until they are below the grid.
DiffMIC-v2's clamp has kinks at |x0| = 1: a step nearer to one than the guess's error may be given the wrong side's slope, and that sweep
then settles little beyond it; which side is right shows when its turn comes to be evaluated in the chain's own state.
"""

from __future__ import annotations

import numpy as np

from fusedx.engine.sampler import affine
from fusedx.engine.sampler.held import Held
from fusedx.engine.sampler.process import Process

#: The window is solved anew about its own solution, which settles what is not linear: the grid and v2's clamp.
_PASSES = 4
#: A Jacobian changes little from step to step: the stale form has one in every sixteenth, but at least eight in a chain.
_SPACING = 16
_LEAST_SLOPES = 8


class Newton:
    """Every evaluation of a step brings its Jacobian: a sweep costs 1 + C rows a step."""

    def __init__(self, process: Process, which: int) -> None:
        self._process, self._which = process, which
        self._scale = np.array([process.eps_scale(i) for i in range(process.steps)])
        self._slopes: dict[int, np.ndarray] = {}  # step -> s_i J_i [C,C], which changes less along a chain than J_i

    def wants_slope(self, i: int) -> bool:
        """Whether step i is to be evaluated with its Jacobian now."""
        return True

    def learn_slopes(self, i: np.ndarray, jacobian: np.ndarray) -> None:
        """jacobian [K,C,C] = d eps / d y of steps i [K]; what is not finite is not believed."""
        for step, slope in zip(i.tolist(), jacobian, strict=True):
            if np.isfinite(slope).all():
                self._slopes[step] = self._scale[step] * slope

    def _slope(self, i: np.ndarray, classes: int) -> np.ndarray:
        """[W,C,C]: J at steps i [W], ascending, each from the nearest step that has one; zeros where none has."""
        for passed in sorted(step for step in self._slopes if step < i[0])[:-1]:
            del self._slopes[passed]
        if not self._slopes:
            return np.zeros((len(i), classes, classes))
        known = np.array(sorted(self._slopes))
        after = np.searchsorted(known, i).clip(max=len(known) - 1)
        before = (after - 1).clip(min=0)
        nearest = np.where(np.abs(known[before] - i) <= np.abs(known[after] - i), before, after)
        return np.stack([self._slopes[step] for step in known.tolist()])[nearest] / self._scale[i, None, None]

    def learn(self, i: np.ndarray, before: np.ndarray, eps_before: np.ndarray, y: np.ndarray, eps: np.ndarray) -> None:
        """See ``guess.Guess``."""

    def foresee(self, held: Held, first: int, y: np.ndarray, end: int, rows: int) -> np.ndarray:
        """See ``guess.Guess``."""
        i = np.arange(first, end)
        j = np.minimum(i, held.last) if held.last >= 0 else i
        process, which = self._process, self._which
        with np.errstate(all="ignore"):  # a guess of steep slopes may overflow
            slope = self._slope(i, len(y))
            origin = process.carried(i, j, held.at[j], held.eps[j], which)
            states = np.repeat(y[None], len(i), axis=0)
            for _ in range(_PASSES):
                eps = affine.apply(slope, held.eps[j], held.point(states) - origin)
                after = process.updates(i, states, eps, which)
                by_y, by_eps = process.slopes(i, states, eps, which)
                maps = by_eps[:, :, None] * slope
                maps[:, range(len(y)), range(len(y))] += by_y
                a, b = affine.scan(maps[:-1], after[:-1] - affine.apply(maps[:-1], np.zeros(len(y)), states[:-1]))
                before, states = states, np.concatenate([y[None], affine.apply(a, b, y)])
                if np.array_equal(held.point(before), held.point(states)):
                    break
        # Steps beyond the last believable state would be evaluated for nothing.
        bad = ~np.isfinite(states).all(axis=1)
        return states[: max(1, int(bad.argmax()))] if bad.any() else states


class Stale(Newton):
    """Jacobians of a few steps, from the first time that each is evaluated, serve their neighbours and all later sweeps: one row a step."""

    def __init__(self, process: Process, which: int) -> None:
        super().__init__(process, which)
        self._spacing = max(1, min(_SPACING, process.steps // _LEAST_SLOPES))

    def wants_slope(self, i: int) -> bool:
        """See :class:`Newton`."""
        return i % self._spacing == 0 and i not in self._slopes
