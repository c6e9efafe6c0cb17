"""One step after the other: what every other sampler must reproduce, bit for bit."""

from __future__ import annotations

import numpy as np

from fusedx.engine.backends import Condition, Denoiser
from fusedx.engine.sampler.process import Process
from fusedx.kernels.step import on_grid


def sequential(
    denoiser: Denoiser, process: Process, condition: Condition, entry: np.ndarray, *, bits: int | None, keep: bool
) -> np.ndarray:
    """N chains, each reading entry[n] of the condition -> float64 [T+1,N,C]: the start and every later state; [2,N,C] unless ``keep``.

    bits: the grid on which the denoiser sees the state (``kernels.step.STATE_BITS``), None for none.
    """
    y = process.start
    states = [y]
    for i in range(process.steps):
        step = np.full(len(y), process.table_row(i), np.int32)
        y = process.update(i, y, denoiser.eps(on_grid(y, bits), step, condition, entry))
        if keep or i == process.steps - 1:
            states.append(y)
    return np.stack(states)
