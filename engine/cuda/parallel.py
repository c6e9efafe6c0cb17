"""The chain on a GPU many steps at a time, with the bits of the step-by-step chain: sweeps over a window of steps a chain.

    begin   start states, first guesses                                                      kernels/speculation
    sweep   layer 1 of every row, each at a timestep of its own                              kernels/step
            layer 2; layer 3 with layer 4's partial dot products                             kernels/conditional_layer
            keep eps; move the fronts; guess the next window                                 kernels/speculation

One CUDA graph holds a few sweeps.  What a sweep evaluates is decided on the device; the host looks after each replay whether all
chains have ended.  Every sweep moves every chain by one step at least, so the number of replays is bounded.
"""

from __future__ import annotations

import numpy as np
import torch

from fusedx.engine.cuda.buckets import ROW_BUCKETS
from fusedx.engine.cuda.denoiser import DeviceDenoiser
from fusedx.engine.errors import DeviceError
from fusedx.kernels.speculation.memory import Speculation
from fusedx.kernels.speculation.triton import advance, collect
from fusedx.kernels.step import triton as step_kernel

#: Sweeps that a graph holds: the last replay's sweeps behind a chain's end are wasted, each look costs the device a pause.
SWEEPS = 4
#: Rows of a sweep that cost little more than one, as long as reading the weights is the limit; and the fewest and most of one chain.
SWEEP_ROWS, LEAST_WINDOW, MOST_WINDOW = 128, 4, 64
#: Chains that run at once: the fewest rows that each needs fill the largest bucket.
MOST_CHAINS = ROW_BUCKETS[-1] // LEAST_WINDOW


def window(chains: int, steps: int, rows: int) -> int:
    """Rows of a sweep for each of so many chains, of about ``rows`` for all: a power of two, no more than there are steps."""
    size = max(LEAST_WINDOW, min(MOST_WINDOW, rows // chains))
    while size > LEAST_WINDOW and size >= 2 * steps:
        size //= 2
    return 1 << (size.bit_length() - 1)


class ParallelChain:
    """Static memory of R chains and what runs them; every state is kept."""

    def __init__(self, denoiser: DeviceDenoiser, chains: int, window: int, *, keep: bool) -> None:
        d = denoiser
        self._denoiser, self._keep, self.window = d, keep, window
        self.inputs = d.inputs(chains)
        self._layers = d.layers(chains * self.window)
        self._work = Speculation.allocate(d.steps, chains, self.window, d.classes, d.bits, d.context.device)
        self._order = torch.tensor(d.order, dtype=torch.int32, device=d.context.device)
        self._row_entry = d.zeros(chains * self.window, dtype=torch.int32)
        self._first_step = d.zeros(chains, dtype=torch.int32)
        self._progress = torch.zeros(chains, 3, dtype=torch.int32)
        self._begin = d.context.record(self._launch_begin)
        self._sweeps = d.context.record(self._launch_sweeps)

    def run(self, count: int) -> None:
        """All steps of the first ``count`` chains; the others have nothing to do.  Waits for the device after each few sweeps."""
        steps = self._denoiser.steps
        self._first_step.fill_(steps)
        self._first_step[:count] = 0
        self._begin()
        for _ in range(-(-steps // SWEEPS)):
            self._sweeps()
            self._progress = self._work.progress[:count].cpu()
            if int(self._progress[:, 0].min()) == steps:
                return
        stuck = int(self._progress[:, 0].min())
        raise DeviceError(f"a chain of {steps} steps stopped at step {stuck}: its sweeps did not move it; load the model in a new process")

    def states(self, count: int) -> torch.Tensor:
        """[S,count,C]: the start and, if kept, every later state, otherwise the last."""
        states = self._work.states[:, :count]
        return states if self._keep else states[[0, -1]]

    def work(self, count: int) -> np.ndarray:
        """int64 [3,count]: sweeps, rows and steps taken one at a time, of each chain."""
        _, sweeps, rows = self._progress[:count].numpy().astype(np.int64).T
        return np.stack([sweeps, rows, np.zeros_like(rows)])

    def describe(self) -> str:
        """What runs, in a line."""
        rows = len(self._row_entry)
        return f"parallel, windows of {self.window} steps for {rows // self.window} chains; {self._denoiser.describe(rows)}"

    def _launch_begin(self) -> None:
        """What the first graph records."""
        x, s = self.inputs, self._work
        self._denoiser.prepare(x)
        self._row_entry.copy_(x.entry[:, None].expand(-1, self.window).reshape(-1))
        s.begin(x.start, self._first_step)
        self._advance()

    def _launch_sweeps(self) -> None:
        """What the second graph records."""
        d, x, s = self._denoiser, self.inputs, self._work
        first = d.first(x, self._layers, bits=0)  # s.y is on the grid
        for _ in range(SWEEPS):
            step_kernel.start(s.y, t_next=s.t, image=self._row_entry, first=first)
            d.hidden(self._layers, s.t)
            collect(s, d.update(x, self._layers))
            self._advance()

    def _advance(self) -> None:
        d, x = self._denoiser, self.inputs
        noise = None if d.v2 else x.noise
        advance(self._work, d.update(x, self._layers), order=self._order, image=x.entry, noise=noise)
