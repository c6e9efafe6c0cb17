"""Compile the Triton kernels for a GPU that is not there, and read what came out: registers, shared memory, instructions.

Runs in worker processes of test_compiled.py, which must not be interpreting.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusedx.kernels.conditional_layer.variants import Variant

WIDTH = 6144  # feature_dim as published
WEIGHTS = {"fp32": ("*fp32", "*fp32"), "bf16": ("*bf16", "*bf16"), "fp16": ("*fp16", "*fp16"), "fp8": ("*fp16", "*u8")}


@dataclass(frozen=True)
class Job:
    """One kernel for one target.  ``kernel``: layer, conditioned (the layer with h and f), projected, step, prior_tail, collect
    or advance, whose rows are those of a chain's window."""

    kernel: str
    cc: int
    dtype: str = "bf16"
    variant: Variant | None = None
    shared_step: bool = False
    mode: str = ""
    family: str = "posterior"
    rows: int = 1
    classes: int = 7

    def __str__(self) -> str:
        what = [self.variant.name] if self.variant else [self.mode, self.family, str(self.rows)] if self.mode else []
        what += [f"{self.classes} classes"] if self.classes != 7 else []
        return " ".join([self.kernel, f"sm_{self.cc}", self.dtype, *what, *(["one step"] if self.shared_step else [])])


@dataclass(frozen=True)
class Compiled:
    """What the compiler made.  ``threads``: of a program.  ``stack``: bytes a thread of spilled registers.  ``chains``: lengths of
    runs of fused multiply-adds that add to each other's results, and how many a thread has."""

    threads: int
    registers: int
    stack: int
    shared: int
    instructions: Counter[str]
    chains: Counter[int]


def prepare(cache: str) -> None:
    """Set a worker process up before it imports Triton."""
    os.environ.pop("TRITON_INTERPRET", None)
    os.environ["TRITON_CACHE_DIR"] = cache


def run(job: Job) -> Compiled:
    """Compile a job in this process."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel, types, constants = _source(job)
    options = {name: constants.pop(name) for name in ("num_warps", "num_stages", "enable_fp_fusion") if name in constants}
    constants |= {name: None for name, kind in types.items() if kind is None}
    signature = {name: "constexpr" if name in constants else types[name] for name in kernel.arg_names}
    # As at run time: pointers and strides of this width are multiples of 16; the number of rows is not specialised.
    aligned = {(i,): [["tt.divisibility", 16]] for i, n in enumerate(kernel.arg_names) if n != "rows" and n not in constants}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
    made = triton.compile(source, target=GPUTarget("cuda", job.cc, 32), options=options)
    registers, stack = _resources(made.asm["cubin"], Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump")
    ptx = made.asm["ptx"]
    return Compiled(32 * made.metadata.num_warps, registers, stack, made.metadata.shared, _instructions(ptx), _chains(ptx))


def _source(job: Job) -> tuple[Any, dict[str, str | None], dict[str, Any]]:
    """(kernel, type of each run-time argument or None where it is absent, compile-time constants with the compiler's options)."""
    makers = {"step": _step, "prior_tail": _prior_tail, "collect": _collect, "advance": _advance}
    return makers.get(job.kernel, _layer)(job)


def _layer(job: Job) -> tuple[Any, dict[str, str | None], dict[str, Any]]:
    from fusedx.kernels.conditional_layer import triton as layer

    assert job.variant is not None
    u, weight = WEIGHTS[job.dtype]
    constants: dict[str, Any] = layer.tiling(job.variant, WIDTH, WIDTH, shared_step=job.shared_step)
    types: dict[str, str | None] = {"u": u, "weight": weight, "a": "*fp32", "c": "*fp32", "t": "*i32", "out": u}
    types |= {"weight4": "*fp32", "partial": "*fp32", "rows": "i32", "outputs": "i32", "u_stride": "i32", "out_stride": "i32"}
    if job.kernel == "projected":
        return layer._projected_kernel, types, constants | layer.projection_tiling(job.variant, job.classes)
    extra = {"h": "*fp32", "f": "*fp32", "image": "*i32"} if job.kernel == "conditioned" else dict.fromkeys(("h", "f", "image"))
    return layer._layer_kernel, types | extra, constants


def _step(job: Job) -> tuple[Any, dict[str, str | None], dict[str, Any]]:
    from fusedx.kernels.step import triton as step

    double = ("y_in", "bias4", "coefficients", "mean", "z", "y_out")
    types: dict[str, str | None] = dict.fromkeys(double, "*fp64")
    types |= dict.fromkeys(("partial", "weight_y", "a1", "c1", "h", "f"), "*fp32") | {"u1": WEIGHTS[job.dtype][0]}
    types |= dict.fromkeys(("t", "t_next", "image"), "*i32")
    types |= dict.fromkeys(("tiles", "outputs", "w_stride_n", "w_stride_c", "u_stride", "t_stride", "t_next_stride"), "i32")
    if job.mode == "start":
        types |= dict.fromkeys(("partial", "bias4", "coefficients", "t", "mean", "z", "y_out"))
    if job.mode == "last":
        types |= dict.fromkeys(("z", "weight_y", "a1", "c1", "t_next", "h", "f", "u1"))
    if job.family == "ddim":
        types |= dict.fromkeys(("mean", "z"))
    constants = {"MODE": job.mode, "FAMILY": job.family, "BITS": 10, **step.tiling(job.rows, job.classes, WIDTH // 64)}
    return step._step_kernel, types, constants


def _prior_tail(job: Job) -> tuple[Any, dict[str, str | None], dict[str, Any]]:
    from fusedx.kernels.prior_tail import triton as tail

    types: dict[str, str | None] = {"saliency": "*fp32", "image": WEIGHTS[job.dtype][0], "cells": "*i64", "tiles": WEIGHTS[job.dtype][0]}
    return tail._prior_tail_kernel, types, tail.tiling(job.classes, 32)


def _collect(job: Job) -> tuple[Any, dict[str, str | None], dict[str, Any]]:
    from fusedx.kernels.speculation import triton as speculation

    types: dict[str, str | None] = dict.fromkeys(("bias4", "coefficients", "y", "at", "eps", "slope"), "*fp64") | {"partial": "*fp32"}
    types |= dict.fromkeys(("step", "t", "evaluated"), "*i32") | dict.fromkeys(("chains", "tiles"), "i32")
    return speculation._collect_kernel, types, speculation.collect_tiling(job.rows, job.classes, WIDTH // 64, job.family)


def _advance(job: Job) -> tuple[Any, dict[str, str | None], dict[str, Any]]:
    from fusedx.kernels.speculation import triton as speculation

    double = ("states", "at", "eps", "fit", "slope", "y_next", "coefficients", "mean", "noise")
    types: dict[str, str | None] = dict.fromkeys(double, "*fp64") | dict.fromkeys(("steps", "chains"), "i32")
    types |= dict.fromkeys(("progress", "evaluated", "step", "t", "order", "image"), "*i32")
    if job.family == "ddim":
        types |= dict.fromkeys(("mean", "noise"))
    return speculation._advance_kernel, types, {"FAMILY": job.family, "BITS": 10, **speculation.advance_tiling(job.rows, job.classes)}


def _resources(cubin: bytes, cuobjdump: Path) -> tuple[int, int]:
    """(registers, bytes of stack) a thread."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run([cuobjdump, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", text)
    assert found, text
    return int(found[1]), int(found[2]) + int(found[3])


def _instructions(ptx: str) -> Counter[str]:
    """Tensor-core instructions with their shape, the width of wgmma's rows left out, and asynchronous copies."""
    shapes = re.findall(r"\b(mma\.sync)\.aligned\.(m\d+n\d+k\d+)", ptx)
    shapes += [("wgmma", re.sub(r"n\d+", "n", s)) for s in re.findall(r"\bwgmma\.mma_async\.sync\.aligned\.(m\d+n\d+k\d+)", ptx)]
    shapes += [("tcgen05", kind) for kind in re.findall(r"\btcgen05\.mma\.\S*?(kind::\w+)", ptx)]
    return Counter(" ".join(s) for s in shapes) + Counter({"cp.async": len(re.findall(r"\bcp\.async\.c[ag]\.", ptx))})


def _chains(ptx: str) -> Counter[int]:
    """Follow each fused multiply-add from the last of its chain back through what it adds to.

    A chain in a loop whose accumulator keeps its register has no last one: its length is one turn of the loop.
    """
    adds_to = dict(re.findall(r"\bfma\.rn\.f32\s+(%\w+), [^,]+, [^,]+, ([^;]+);", ptx))
    lengths: Counter[int] = Counter()
    seen: set[str] = set()
    for last in [*(adds_to.keys() - set(adds_to.values())), *adds_to]:
        length, at = 0, last
        while at in adds_to and at not in seen:
            seen.add(at)
            length, at = length + 1, adds_to[at]
        if length:
            lengths[length] += 1
    return lengths
