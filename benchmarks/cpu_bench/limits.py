"""What the machine can do, by fusedx's own probes: read so many bytes, multiply on registers alone."""

from __future__ import annotations

from collections.abc import Callable

from cpu_bench.contender import BITS
from cpu_bench.problem import Problem
from fusedx.kernels import native_module


def bandwidth_name(precision: str) -> str:
    """Of the limit for weights of a precision."""
    return f"read {precision} weights, GB/s"


VNNI, FMA, BF16 = "int8 products on registers, GOP/s", "fp32 products on registers, GOP/s", "bf16 products on registers, GOP/s"


def probes(problem: Problem, precisions: tuple[str, ...], seconds: float) -> dict[str, Callable[[], float]]:
    """Limit's name -> its measurement.  A bandwidth is of exactly as many bytes as the two wide layers have."""
    native = native_module.require("the benchmark's probes")
    wide = problem.tables.weight2.size + problem.tables.weight3.size
    found: dict[str, Callable[[], float]] = {}
    for p in precisions:
        size = max(1 << 20, wide * BITS[p] // 8)
        found[bandwidth_name(p)] = lambda size=size: native._read_bandwidth(size, seconds) / 1e9
    for name, arithmetic in ((VNNI, "int8"), (FMA, "fp32"), (BF16, "bf16")):
        found[name] = lambda arithmetic=arithmetic: native._register_rate(arithmetic, seconds) / 1e9
    return found
