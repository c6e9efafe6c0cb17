"""The device memory that a sweep leaves to the next."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Speculation:
    """What R chains remember between sweeps of W rows each; only collect and advance write it.

    progress int32 [R,3]: front, and the sweeps and rows evaluated so far.  states float64 [T+1,R,C], of which 0..front are the
    chain's own.  at, eps float64 [T,R,C]: where each step was last evaluated, and what came out; evaluated int32 [R]: how many steps
    were.  fit float64 [R,2], slope float64 [R W,2]: how eps changed.  For the next sweep: step int32 [R W], -1 where a row is idle;
    t int32 [R W], the row of the tables; y float64 [R W,C], on the grid.  Idle rows keep a t and a y that may be evaluated.
    """

    states: torch.Tensor
    at: torch.Tensor
    eps: torch.Tensor
    progress: torch.Tensor
    evaluated: torch.Tensor
    fit: torch.Tensor
    slope: torch.Tensor
    step: torch.Tensor
    t: torch.Tensor
    y: torch.Tensor
    bits: int

    @staticmethod
    def allocate(steps: int, chains: int, window: int, classes: int, bits: int, device: torch.device) -> Speculation:
        """``window``: a power of two."""
        if window < 2 or window & (window - 1):
            raise ValueError(f"window: expected a power of two from 2, got {window}")

        def zeros(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        index, rows = torch.int32, chains * window
        return Speculation(
            states=zeros(steps + 1, chains, classes),
            at=zeros(steps, chains, classes),
            eps=zeros(steps, chains, classes),
            progress=zeros(chains, 3, dtype=index),
            evaluated=zeros(chains, dtype=index),
            fit=zeros(chains, 2),
            slope=zeros(rows, 2),
            step=zeros(rows, dtype=index),
            t=zeros(rows, dtype=index),
            y=zeros(rows, classes),
            bits=bits,
        )

    @property
    def window(self) -> int:
        """W."""
        return self.step.shape[0] // self.evaluated.shape[0]

    def begin(self, start: torch.Tensor, front: torch.Tensor) -> None:
        """Forget all.  start float64 [R,C]; front int32 [R]: 0, or T for a chain that is not wanted."""
        self.states[0].copy_(start)
        for remembered in (self.progress, self.evaluated, self.fit, self.slope):
            remembered.zero_()
        self.progress[:, 0].copy_(front)
        self.step.fill_(-1)
