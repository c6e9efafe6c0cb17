"""What this GPU can do, measured with torch's own kernels in the same run as everything that is compared with it."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch

from gpu_bench.figures import Limits
from gpu_bench.timing import Clock, device_time

_GIB = 1 << 30


def measure(clock: Clock, stream: torch.cuda.Stream, device: torch.device) -> Limits:
    """Buffers are many times the L2 cache: 2 GiB copied, 4 GiB read, 8192^3 multiplied."""
    with torch.cuda.stream(stream):
        big = torch.zeros(_GIB, device=device)
        half, other = big[: _GIB // 2], big[_GIB // 2 :]
        copied = _median(lambda: other.copy_(half), clock)
        read = _median(lambda: big.sum(), clock)
        a, b = (torch.randn(8192, 8192, device=device, dtype=torch.bfloat16) for _ in range(2))
        out = torch.empty_like(a)
        multiplied = _median(lambda: torch.mm(a, b, out=out), clock)
    return Limits(copy=2 * half.nbytes / copied / 1e9, read=big.nbytes / read / 1e9, matmul=2 * 8192**3 / multiplied / 1e12)


def _median(run: Callable[[], object], clock: Clock) -> float:
    run()
    return statistics.median(device_time(run, clock) for _ in range(15))
