"""What a run is expected to take, and the plan that takes least: host arithmetic on measured times, nothing else.

An evaluation of the denoiser with R rows takes seconds(R), which grows slowly while reading the weights is the limit.  A sequential run of
T steps of n chains is T evaluations of n rows.  A parallel run whose chains have r rows each in a sweep is T / (a r^b) + c evaluations of
n r rows: a r^b steps are settled by a sweep where the chain is smooth, and some more sweeps are needed near its end, where eps follows the
state steeply.  a, b and c are properties of denoisers and not of machines.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fusedx.engine.sampler.plan import SEQUENTIAL, Plan
from fusedx.engine.sampling import Sampler

#: Rows of a sweep that are considered.
SWEEPS = (8, 12, 14, 16, 20, 24, 32, 48, 64, 96, 128)
#: (a, b, c) by the grid that the denoiser sees its state on (kernels.step.STATE_BITS), fitted to the trained full-width denoiser at 60 and
#: 250 steps (docs/measured.md): on a coarser grid a guess is right sooner.
GAIN = {18: (0.60, 0.85, 8.0), 10: (0.77, 0.87, 7.0)}


@dataclass(frozen=True, slots=True)
class Costs:
    """Of one denoiser on one machine.

    rows: increasing; seconds: of one evaluation with so many rows.  gain: (a, b, c).  source: where the seconds are from.
    """

    rows: tuple[int, ...]
    seconds: tuple[float, ...]
    gain: tuple[float, float, float] = GAIN[18]
    source: str = "given"

    def evaluation(self, rows: int) -> float:
        """Seconds of one evaluation; beyond the last measured number of rows in proportion to them."""
        if rows > self.rows[-1]:
            return self.seconds[-1] * rows / self.rows[-1]
        return float(np.interp(rows, self.rows, self.seconds))

    def sweeps(self, rows_each: int, steps: int) -> float:
        """Sweeps of a parallel run with so many rows a chain; never more than steps, and two to know that they were enough."""
        a, b, c = self.gain
        return min(max(2.0, steps / max(1.0, a * rows_each**b) + c), float(steps))

    def sequential(self, steps: int, chains: int) -> float:
        """Seconds of a sequential run."""
        return steps * self.evaluation(chains)

    def parallel(self, steps: int, chains: int, rows: int) -> float:
        """Seconds of a parallel run with ``rows`` rows a sweep, shared out over the chains."""
        each = max(1, min(rows // chains, steps))
        return self.sweeps(each, steps) * self.evaluation(each * chains)

    def choose(self, sampler: Sampler, *, steps: int, chains: int, classes: int = 1) -> Plan:
        """The plan for chains that run together; classes: C numbers of a state, so many further rows has each of Newton's."""
        if sampler.kind == "sequential" or steps == 1:
            return SEQUENTIAL
        sweeps = [sampler.rows] if sampler.rows else [rows for rows in SWEEPS if rows >= 2 * chains]
        if sampler.kind == "parallel":
            sweeps = sweeps or [2 * chains]
        if not sweeps:
            return SEQUENTIAL
        best = min(sweeps, key=lambda rows: self.parallel(steps, chains, rows))
        # Never chosen: on processors its rows cost more than the sweeps that they save (docs/measured.md).
        variant = sampler.variant or "picard"
        if sampler.kind == "parallel":
            return Plan(best if sampler.rows or variant != "newton" else best * (1 + classes), variant)
        if self.parallel(steps, chains, best) >= self.sequential(steps, chains):
            return SEQUENTIAL
        return Plan(best, variant, least_gain=self.evaluation(best) / self.evaluation(chains))

    def outlook(self, steps: int, chains: int) -> tuple[float, float, Plan]:
        """Seconds of a sequential run and of the best parallel one, and what ``auto`` would do."""
        best = self.choose(Sampler("parallel"), steps=steps, chains=chains)
        return self.sequential(steps, chains), self.parallel(steps, chains, best.rows), self.choose(Sampler(), steps=steps, chains=chains)
