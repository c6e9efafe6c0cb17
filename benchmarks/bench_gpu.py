"""The GPU engine at full width: fusedx against plain torch, each beside what the GPU can do and how exact it is.

    PYTHONPATH=python python3 benchmarks/bench_gpu.py [--quick] [--limit SECONDS] [-o FILE.json]

The model is golden case v1-isic (DiffMIC for 7 classes, F 6144, 250 steps), its checkpoint written and compiled first.

    chain      from prior, feature and noise to the final state; every weight format by both engines, and torch.compile in a CUDA
               graph, on the released semantics (the image encoder at every step) and with the feature hoisted out of the chain;
               "parallel": the same chain to the last bit, many steps at once, with the host's looks at it in the time
    aptos      the same for the chain of golden case v1-aptos (60 steps), sequentially and in parallel
    encoder    one image, or a batch, to prior and feature; images evaluated one by one (batch-invariant, the default) or in one pass
    classify   one decoded 512x512 frame to a prediction: wall time, and what of it the host adds to the device's

Times are CUDA events on the contender's stream with the host ahead of the device; wall time is perf_counter.  Contenders take turns
within each round.  "cold": a buffer of twice the L2 cache is written before each run, so the chain's first step finds nothing of
its weights there; what a step leaves there for the next one is part of the design.  GB/s counts the two weight matrices once a
step (in parallel: a sweep); formats that stay on the chip may exceed what memory gives.  Limits are of torch's own copy, sum and
matmul in the same run.

Takes under eight minutes on an H100, four with --quick; a part that would run past --limit is left out, and named.
Exit status: 0 measured, whether or not the requirements are met; 1 something failed, and is named; 2 no GPU.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "python"), str(ROOT / "tools"), str(ROOT / "benchmarks")]
import machine  # noqa: E402
from fusedx.engine.cuda import device as cuda_device  # noqa: E402
from gpu_bench import figures, targets  # noqa: E402

if TYPE_CHECKING:
    from fusedx.engine.compiled import CompiledModel
    from gpu_bench.setting import Setting

CASE = ROOT / "tests" / "golden" / "v1-isic.json"
SHORT_CASE = CASE.with_name("v1-aptos.json")
#: Captured step by step, and many steps at once, in every precision.
SAMPLERS = [f"triton {weight}{sampler}" for weight in ("bf16", "fp8", "fp16", "fp32") for sampler in ("", figures.PARALLEL)]
#: Rows of the chain -> contenders, in order of need.  Without batch invariance the kernels differ up to 16 rows.
CHAINS = {
    1: [
        *SAMPLERS, *(f"persistent {weight}" for weight in figures.WEIGHT_BYTES),
        targets.SEQUENTIAL + figures.NOT_INVARIANT, targets.HOISTED, targets.RELEASED,
    ],
    1024: ["triton bf16", "triton fp16", "triton fp8", targets.HOISTED],
    8: [
        "triton bf16", targets.SEQUENTIAL + figures.PARALLEL, "triton fp16", "triton fp8", targets.SEQUENTIAL + figures.NOT_INVARIANT,
        "persistent bf16", "persistent fp16", "persistent fp8", targets.HOISTED,
    ],
    64: ["triton bf16", "triton fp16", "triton fp8", targets.HOISTED],
}  # fmt: skip
QUICK_CHAINS = {1: [*SAMPLERS, "persistent fp8", targets.HOISTED, targets.RELEASED], 1024: ["triton bf16"]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="what the requirements need, few rounds")
    parser.add_argument("--limit", type=float, metavar="SECONDS", help="start no part that may end later (480, 240 with --quick)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.json")
    args = parser.parse_args()
    reason = cuda_device.why_not()
    if reason is not None:
        print(f"bench_gpu.py needs an NVIDIA GPU: {reason}", file=sys.stderr)
        return 2
    results = Results(args.output, args.quick)
    with tempfile.TemporaryDirectory(prefix="fusedx-bench-") as folder:
        setting = prepare(Path(folder), args.quick, results)
        run(parts(setting, results), results, args.limit or (240 if args.quick else 480))
    results.conclude()
    return 1 if results.failed else 0


class Results:
    """Printed as they come, and written after each part, so that an interrupted run keeps what it had."""

    def __init__(self, path: Path | None, quick: bool) -> None:
        self._path, self.started = path, time.monotonic()
        self.rows: list[figures.Row] = []
        self.left_out: list[str] = []
        self.failed = False
        self.limits: figures.Limits | None = None
        self._facts: dict[str, object] = {"quick": quick, "machine": machine.show(), "gpu": machine.show_gpu()}

    def measured_limits(self, limits: figures.Limits) -> None:
        """Before any row, which is shown against them."""
        self.limits = limits
        print(f"\ndevice copy {limits.copy:.0f} GB/s (bytes read and bytes written), read {limits.read:.0f} GB/s", end=", ")
        print(f"bf16 8192^3 matmul {limits.matmul:.0f} TFLOP/s")
        print(f"\n{figures.HEADER}\n{'-' * len(figures.HEADER)}")

    def add(self, row: figures.Row) -> None:
        """Keep and print one row."""
        assert self.limits is not None
        self.rows.append(row)
        print(figures.line(row, self.limits), flush=True)

    def leave_out(self, part: str, reason: str | Exception) -> None:
        """What has no row, and why."""
        if isinstance(reason, Exception):
            self.failed = True
            reason = f"{type(reason).__name__}: {(str(reason).splitlines() or [''])[0]}"
        self.left_out.append(f"{part}: {reason}")
        print(f"left out: {part}: {reason}", flush=True)

    def conclude(self) -> None:
        """The requirements, each beside what was measured, and the time that all of this took."""
        assert self.limits is not None
        print()
        for text in [*figures.invariance_costs(self.rows), *map(str, self._targets())]:
            print(text)
        print(f"\n{time.monotonic() - self.started:.0f} s in all; clocks at the end: {machine.gpu().get('clocks', 'unknown')}")
        self.write()

    def write(self) -> None:
        """The file so far."""
        if self._path is None or self.limits is None:
            return
        wanted = [{"text": t.text, "value": t.value, "bound": t.bound, "unit": t.unit, "met": t.met} for t in self._targets()]
        limits = {"copy_gb_s": self.limits.copy, "read_gb_s": self.limits.read, "matmul_tflop_s": self.limits.matmul}
        rows = [figures.as_json(row, self.limits) for row in self.rows]
        data = self._facts | {"limits": limits, "rows": rows, "requirements": wanted, "left_out": self.left_out}
        data["invariance"] = figures.invariance_costs(self.rows)
        self._path.write_text(json.dumps(data, indent=1) + "\n")

    def _targets(self) -> list[targets.Target]:
        assert self.limits is not None
        return targets.targets(self.rows, self.limits)


def prepare(folder: Path, quick: bool, results: Results) -> Setting:
    """Write and compile the checkpoint, find the GPU, measure its limits."""
    import torch

    from fusedx import golden
    from gpu_bench import limits
    from gpu_bench.setting import Setting, cold_cache, cuda_clock
    from gpu_bench.timing import CudaClock

    gpu = cuda_device.find_all()[0]
    device = torch.device("cuda", gpu.index)
    torch.cuda.set_device(device)
    checkpoint, compiled = model(CASE, folder)
    stream = torch.cuda.Stream(device)
    results.measured_limits(limits.measure(CudaClock(stream), stream, device))
    return Setting(
        gpu=gpu,
        device=device,
        checkpoint=checkpoint,
        compiled=compiled,
        case=golden.load(CASE),
        clock=lambda handle: cuda_clock(handle, device),
        cold=cold_cache(gpu, device),
        rounds=5 if quick else 11,
        quick=quick,
        report=results.add,
        leave_out=results.leave_out,
    )


def model(case: Path, folder: Path) -> tuple[Path, CompiledModel]:
    """A golden case's checkpoint, written, and compiled."""
    from fusedx.compiler import compile_checkpoint
    from fusedx.engine.compiled import open_model

    checkpoint, path = folder / f"{case.stem}-checkpoint", folder / f"{case.stem}.fusedx"
    subprocess.run([sys.executable, case.with_name("make_checkpoint.py"), case.stem, checkpoint], check=True)
    compile_checkpoint(checkpoint, path)
    return checkpoint, open_model(path, verify=False)


#: A part: its name, the seconds that it may need (mostly compilers), and what runs it.
Part = tuple[str, float, Callable[[], object]]


def parts(setting: Setting, results: Results) -> Iterator[Part]:
    """In order of what the requirements need."""
    from fusedx import golden
    from gpu_bench import chain, classify, encoder

    opened, encoders, counted = chain.Opened(setting), encoder.Encoders(setting), []

    def short() -> None:
        checkpoint, compiled = model(SHORT_CASE, setting.checkpoint.parent)
        other = replace(setting, part="aptos", checkpoint=checkpoint, compiled=compiled, case=golden.load(SHORT_CASE))
        chain.measure(other, chain.Opened(other), 1, SAMPLERS[:2])

    def encode(batch: int) -> None:
        counted.extend([] if counted else [encoders.operations()])
        encoder.measure(setting, encoders, batch, encoder.names(batch), counted[0])

    for rows, names in (QUICK_CHAINS if setting.quick else CHAINS).items():
        yield f"chain, {rows} rows", 20, lambda rows=rows, names=names: chain.measure(setting, opened, rows, names)
        if rows == 1:
            yield "aptos, 1 row", 40, short
            yield "encoder, 1 image", 40, lambda: encode(1)
            yield "classify, bf16 triton", 30, lambda: classify.measure(setting, "bf16", "triton")
    if not setting.quick:
        yield "classify, fp8 persistent", 40, lambda: classify.measure(setting, "fp8", "persistent")
        yield "encoder, 8 images", 60, lambda: encode(8)
        yield "encoder, 64 images", 60, lambda: encode(64)


def run(parts: Iterator[Part], results: Results, limit: float) -> None:
    """Each part that fits into the limit; one that fails is left out with its error, and the rest goes on."""
    for name, seconds, measure in parts:
        passed = time.monotonic() - results.started
        if passed + seconds > limit:
            results.leave_out(name, f"{passed:.0f} s have passed, it may need {seconds:.0f} s, and the limit is {limit:.0f} s")
            continue
        try:
            measure()
        except Exception as error:  # the parts before and after it are worth having
            results.leave_out(name, error)
        results.write()


if __name__ == "__main__":
    sys.exit(main())
