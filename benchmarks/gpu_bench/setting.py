"""What every part of the benchmark shares: the GPU, the model in its two forms, the state of the cache, how often."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from fusedx.engine.compiled import CompiledModel
from fusedx.engine.cuda.device import GPU
from fusedx.golden import GoldenCase
from gpu_bench.figures import Row
from gpu_bench.timing import Clock, ColdCache, CudaClock


@dataclass(frozen=True, slots=True)
class Setting:
    """checkpoint: folder of the published files; compiled: the same as fusedx runs it; case: inputs and expected arrays.

    clock: of a stream's handle.  cold: evicts the L2 cache.  compiler: backend of torch.compile for every contender that uses it.
    report: told each row, of chains by the name ``part``.  leave_out: told what could not be measured; one contender that fails must
    not cost the others.
    """

    gpu: GPU
    device: torch.device
    checkpoint: Path
    compiled: CompiledModel
    case: GoldenCase
    clock: Callable[[int], Clock]
    cold: Callable[[], None]
    rounds: int
    quick: bool
    part: str = "chain"
    compiler: str | None = "inductor"
    report: Callable[[Row], None] = lambda row: None
    leave_out: Callable[[str, Exception], None] = lambda what, error: None

    @property
    def steps(self) -> int:
        """Of the whole chain."""
        return self.compiled.manifest.schedule.steps


def cuda_clock(handle: int, device: torch.device) -> Clock:
    """The clock of a stream that someone else made."""
    return CudaClock(torch.cuda.ExternalStream(handle, device=device))


def cold_cache(gpu: GPU, device: torch.device) -> ColdCache:
    """For this GPU's L2 cache."""
    return ColdCache(gpu.target.l2, device)
