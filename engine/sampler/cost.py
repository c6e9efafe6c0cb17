"""What a run is expected to cost, and the plan that costs least: host arithmetic on measured times, nothing else.

An evaluation of R rows takes seconds(R); a parallel run of T steps with r rows a chain and sweep takes about T / gain(r) of them.  Gains
are measured on trained and untrained denoisers (docs/measured.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fusedx.engine.sampler.plan import SEQUENTIAL, Plan
from fusedx.engine.sampling import Sampler

#: Rows of an evaluation that are considered.
ROWS = (8, 12, 16, 20, 24, 32, 48, 64)


@dataclass(frozen=True, slots=True)
class Costs:
    """Of one denoiser on one machine.  rows: increasing; seconds: of one evaluation with so many rows, the same length.

    gain(r) = first * r ^ exponent: steps a sweep of a chain that has r rows of it.
    """

    rows: tuple[int, ...]
    seconds: tuple[float, ...]
    first: float = 0.87
    exponent: float = 0.67
    source: str = "built in"

    def evaluation(self, rows: int) -> float:
        """Seconds of one evaluation; beyond the last measured number of rows in proportion to them."""
        if rows > self.rows[-1]:
            return self.seconds[-1] * rows / self.rows[-1]
        return float(np.interp(rows, self.rows, self.seconds))

    def gain(self, rows_each: float) -> float:
        """Steps a sweep, at least one."""
        return max(1.0, self.first * rows_each**self.exponent)

    def sequential(self, steps: int, chains: int) -> float:
        """Seconds of T steps of some chains."""
        return steps * self.evaluation(chains)

    def parallel(self, steps: int, chains: int, rows: int) -> float:
        """The same with a total of ``rows`` a sweep."""
        each = max(1, min(rows // chains, steps))
        return steps / min(self.gain(each), steps) * self.evaluation(each * chains)

    def choose(self, sampler: Sampler, *, steps: int, chains: int) -> Plan:
        """The plan for chains that run together."""
        if sampler.kind == "sequential" or steps == 1:
            return SEQUENTIAL
        variant = sampler.variant or "picard"
        candidates = [sampler.rows] if sampler.rows else [rows for rows in ROWS if rows >= 2 * chains]
        if not candidates:
            candidates = [2 * chains] if sampler.kind == "parallel" else []
        best = min(candidates, key=lambda rows: self.parallel(steps, chains, rows), default=1)
        if sampler.kind == "auto" and (not candidates or self.parallel(steps, chains, best) >= self.sequential(steps, chains)):
            return SEQUENTIAL
        least = self.evaluation(best) / self.evaluation(chains) if sampler.kind == "auto" else 0.0
        return Plan(best, variant, least)


#: Two cores of a Zen 4 processor, F = 6144, in float32.
BUILT_IN = Costs((1, 8, 16, 24, 32, 64), (9.5e-3, 10.8e-3, 12.1e-3, 20.3e-3, 26.1e-3, 53.7e-3))
