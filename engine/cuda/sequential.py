"""The chain on a GPU step by step: three launches a step, all steps of R chains in one CUDA graph.

    start   layer 1 from the start state                                                     kernels/step
    step    layer 2                                                                          kernels/conditional_layer
            layer 3, with layer 4's partial dot products in its epilogue                     kernels/conditional_layer
            partials summed in fixed order, update of the state, layer 1 of the next step    kernels/step
"""

from __future__ import annotations

import numpy as np
import torch

from fusedx.engine.cuda.denoiser import DeviceDenoiser
from fusedx.kernels.step import triton as step_kernel


class SequentialChain:
    """Static memory of R chains and what runs them.  ``keep`` every state, or the last alone."""

    def __init__(self, denoiser: DeviceDenoiser, chains: int, *, keep: bool) -> None:
        self._denoiser, self._keep = denoiser, keep
        self.inputs = denoiser.inputs(chains)
        self._layers = denoiser.layers(chains)
        steps = denoiser.steps
        self._states = denoiser.zeros(steps + 1 if keep else 2, chains, denoiser.classes)
        # int32 [T,R]: row t is all t, and no memory but its first element.
        numbers = torch.arange(steps, dtype=torch.int32, device=denoiser.context.device)
        self._timestep = numbers[:, None].expand(-1, chains)
        self._replay = denoiser.context.record(self._launch)

    def run(self, count: int) -> None:
        """All chains from ``inputs``; the first ``count`` of them are wanted."""
        self._replay()

    def states(self, count: int) -> torch.Tensor:
        """[S,count,C]: the start and, if kept, every later state, otherwise the last."""
        if self._keep:
            return self._states[:, :count]
        return torch.stack([self.inputs.start, self._states[self._denoiser.steps % 2]])[:, :count]

    def work(self, count: int) -> np.ndarray:
        """int64 [3,count]: sweeps, rows and steps taken one at a time, of each chain."""
        return np.full((3, count), self._denoiser.steps)

    def describe(self) -> str:
        """What runs, in a line."""
        return f"sequential; {self._denoiser.describe(len(self.inputs.entry))}"

    def _launch(self) -> None:
        """The whole chain, launch by launch; this is what a graph records."""
        d, x, states, rows = self._denoiser, self.inputs, self._states, self._timestep
        d.prepare(x)
        states[0].copy_(x.start)
        update, first = d.update(x, self._layers), d.first(x, self._layers, bits=d.bits)
        step_kernel.start(states[0], t_next=rows[d.order[0]], image=x.entry, first=first)
        for i, t in enumerate(d.order):
            d.hidden(self._layers, rows[t])
            before, after = states[i % len(states)], states[(i + 1) % len(states)]
            if i + 1 == d.steps:
                step_kernel.last(before, t=rows[t], image=x.entry, update=update, y_out=after)
                break
            z = None if d.v2 else x.noise[i + 1]
            t_next = rows[d.order[i + 1]]
            step_kernel.middle(before, t=rows[t], t_next=t_next, image=x.entry, update=update, first=first, y_out=after, z=z)
