"""What the machine can do, by fusedx's own probes: read so many bytes, multiply on registers alone."""

from __future__ import annotations

from collections.abc import Callable

from cpu_bench.contender import BITS
from cpu_bench.problem import Problem
from fusedx.kernels import native_module


def bandwidth_name(precision: str) -> str:
    """Of the limit for weights of a precision."""
    return f"read {precision} weights, GB/s"


VNNI, FMA = "int8 products on registers, GOP/s", "fp32 products on registers, GOP/s"


def products_name(precision: str) -> str:
    """Of the limit for a precision's products: integers are multiplied as such, everything else in float32."""
    return VNNI if precision.startswith("int") else FMA


def probes(problem: Problem, precision: str, seconds: float) -> dict[str, Callable[[], float]]:
    """Limit's name -> its measurement, for one precision of fusedx.  The bandwidth is of exactly as many bytes as the wide layers have."""
    native = native_module.require("the benchmark's probes")
    size = max(1 << 20, (problem.tables.weight2.size + problem.tables.weight3.size) * BITS[precision] // 8)
    arithmetic = "int8" if products_name(precision) == VNNI else "fp32"
    return {
        bandwidth_name(precision): lambda: native._read_bandwidth(size, seconds) / 1e9,
        products_name(precision): lambda: native._register_rate(arithmetic, seconds) / 1e9,
    }
