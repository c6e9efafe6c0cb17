"""The CPU core beside the libraries that could run it, each figure beside what the machine can do and how exact it is.

    PYTHONPATH=python python benchmarks/bench_cpu.py [--case v1-isic] [--prefix DIR] [--quick] [-o FILE.json]

The model is a golden case, by default v1-isic (DiffMIC for 7 classes, F 6144, 250 steps); its checkpoint is written and compiled first.

    chain       a hoisted step (layers 1 to 4 and the update of the state) at 1, 16 and 32 rows: fusedx in every precision, and the best
                forms of torch eager, torch.compile, ONNX Runtime and OpenVINO in fp32, 16, 8 and 4 bits, after heats among themselves
    end to end  one image: the released semantics (image encoder at every step, torch eager) against fusedx
    opening     a full-width int8 model to its first prediction, in fresh processes, from C (--prefix: an installed libfusedx) and Python

Contenders take turns within each round, each after a rest and an untimed run.  GB/s and GOP/s count the two wide layers and the time of
the whole step; a share is against the limit measured beside it in the same round.  eps err is of one step against float64, error of the
golden case's final state after all its steps.  A library's threads are as many as fusedx's.  Figures taken while other processes had
much of the processors mean little: their share is reported.

Exit status: 0 measured, whether or not the requirements are met; 1 something was left out, and is named.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "python"), str(ROOT / "tools"), str(ROOT / "benchmarks")]
import drawings  # noqa: E402
import machine  # noqa: E402
from cpu_bench import chain_part, opening  # noqa: E402
from cpu_bench.company import others  # noqa: E402
from cpu_bench.contender import Form  # noqa: E402
from cpu_bench.problem import Problem  # noqa: E402
from cpu_bench.requirements import requirements  # noqa: E402
from cpu_bench.results import HEADER, Results  # noqa: E402
from fusedx import golden  # noqa: E402
from fusedx.engine.compiled import CompiledModel, open_model  # noqa: E402
from fusedx.kernels import native_module  # noqa: E402

GOLDEN = ROOT / "tests" / "golden"
PRECISIONS = ("fp32", "bf16", "fp16", "int8", "int4")
#: Rows -> precisions of fusedx; libraries take part where there is a requirement against them.
CHAINS = {1: PRECISIONS, 16: PRECISIONS, 32: ("int8",)}
AGAINST = (1, 16)
#: Drawings, for the encoder in int8.
CALIBRATED_WITH = 64
LIBRARIES = ("torch eager", "torch.compile", "ONNX Runtime", "OpenVINO")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", default="v1-isic", help="golden case of DiffMIC (v1-...)")
    parser.add_argument("--checkpoint", type=Path, help="the case's checkpoint, where it has been written already")
    parser.add_argument("--prefix", type=Path, help="where libfusedx is installed")
    parser.add_argument("--parts", default="chain,whole,opening")
    parser.add_argument("--libraries", default=",".join(LIBRARIES), help="that take part in the chain (default: all)")
    parser.add_argument("--rows", default=",".join(map(str, CHAINS)), help="of the chain (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=25, help="timed steps of a chain")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="few steps and rounds")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.json")
    args = parser.parse_args()
    if args.quick:
        args.steps, args.rounds = 4, 2
    started = time.monotonic()
    threads = native_module.require("benchmarks/bench_cpu.py").threads()
    versions = machine.versions("torch", "onnxruntime", "openvino", "nncf")
    facts = {"case": args.case, "quick": args.quick, "threads": threads, "machine": machine.show(), "libraries": versions}
    print(f"{'libraries':10s} {versions}\n{'threads':10s} {threads}, instruction set {native_module.require('it').isa()}\n")
    results = Results(facts)
    with tempfile.TemporaryDirectory(prefix="fusedx-bench-") as scratch:
        folder = Path(scratch)
        checkpoint, compiled = prepare(args.case, args.checkpoint, folder)
        case = golden.load(GOLDEN / f"{args.case}.json")
        print(f"{HEADER}\n{'-' * len(HEADER)}")
        parts = {
            "chain": lambda: run_chain(results, case, open_model(compiled["fp32"], verify=False), args, threads),
            "whole": lambda: run_whole(results, case, checkpoint, compiled, args, folder),
            "opening": lambda: run_opening(results, compiled["int8"], args, folder),
        }
        for name in args.parts.split(","):
            with others(results.others, name):
                parts[name]()
    print()
    targets = requirements(results)
    for limit, values in results.limits.items():
        print(f"{limit}: {statistics.median(values):.1f}, from {min(values):.1f} to {max(values):.1f}")
    for part, share in results.others.items():
        print(f"{part}: other processes took {share:.0%} of the processors")
    print("\n" + "\n".join(map(str, targets)) + f"\n\n{time.monotonic() - started:.0f} s in all")
    if args.output:
        results.write(args.output, targets)
    return 1 if results.left_out else 0


def prepare(name: str, checkpoint: Path | None, folder: Path) -> tuple[Path, dict[str, Path]]:
    """(the checkpoint, compiled models by precision of the chain)."""
    from fusedx.compiler import compile_checkpoint

    if checkpoint is None:
        checkpoint = folder / "checkpoint"
        subprocess.run([sys.executable, GOLDEN / "make_checkpoint.py", name, checkpoint], check=True)
    compiled = {precision: folder / f"{precision}.fusedx" for precision in ("fp32", "int8")}
    for precision, path in compiled.items():
        compile_checkpoint(checkpoint, path, precision=precision)
    return checkpoint, compiled


def make_problem(case: golden.GoldenCase, model: CompiledModel, rows: int, steps: int) -> Problem:
    """One row is the golden case's first image with its own noise; more are its images again and again, with noise of ours."""
    stored = model.stored_denoiser()
    prior, feature = case.expected["prior"], case.expected["feature"]
    total, classes = stored.coefficients.shape[0], prior.shape[1]
    noise = case.noise[:, :1] if rows == 1 else golden.normal(1, "bench", (total, rows, classes))
    repeated = np.arange(rows) % len(prior)
    return Problem(
        tables=stored.tables(),
        coefficients=np.array(stored.coefficients),
        prior=prior[repeated].astype(np.float64),
        feature=np.ascontiguousarray(feature[repeated], np.float32),
        noise=noise,
        steps=min(steps, total),
    )


def run_chain(results: Results, case: golden.GoldenCase, model: CompiledModel, args: argparse.Namespace, threads: int) -> None:
    """Heats and finals, by rows."""
    from cpu_bench import fusedx_forms

    makers = library_forms(args.libraries.split(","), threads)
    for rows in map(int, args.rows.split(",")):
        problem = make_problem(case, model, rows, args.steps if rows <= 16 else max(2, args.steps // 2))
        own = fusedx_forms.forms(model.manifest.network, CHAINS[rows])
        expected = case.expected["y_final"][:1] if rows == 1 else None
        chain_part.measure(results, problem, makers if rows in AGAINST else [], own, args.rounds, expected)


def library_forms(names: list[str], threads: int) -> list[list[Form]]:
    """The forms of each library by name; only what takes part is imported."""
    found: list[Form] = []
    if unknown := set(names) - {"", *LIBRARIES}:
        raise SystemExit(f"--libraries: no {', '.join(sorted(unknown))}; there are: {', '.join(LIBRARIES)}")
    if any(name.startswith("torch") for name in names):
        from cpu_bench import torch_forms

        found += torch_forms.forms(threads)
    if "ONNX Runtime" in names:
        from cpu_bench import onnxruntime_forms

        found += onnxruntime_forms.forms(threads)
    if "OpenVINO" in names:
        from cpu_bench import openvino_forms

        found += openvino_forms.forms(threads)
    return [[form for form in found if form.library == name] for name in LIBRARIES if name in names]


def run_whole(
    results: Results, case: golden.GoldenCase, checkpoint: Path, compiled: dict[str, Path], args: argparse.Namespace, folder: Path
) -> None:
    """The chain in each precision with the encoder in float32, and both in int8 (calibrated on drawings)."""
    import fusedx
    from cpu_bench import whole

    precisions = PRECISIONS[:1] + PRECISIONS[-2:] if args.quick else PRECISIONS
    models = {whole.name(p, "fp32"): fusedx.load(compiled["fp32"], precision=p, verify=False) for p in precisions}
    if not args.quick:
        try:
            small = folder / "int8-encoder.fusedx"
            pictures = drawings.folder(folder / "pictures", seed=7, count=CALIBRATED_WITH)
            fusedx.compile_checkpoint(checkpoint, small, precision="int8", encoder_precision="int8", calibration=pictures)
            models[whole.name("int8", "int8")] = fusedx.load(small, verify=False)
        except fusedx.FusedxError as error:
            results.leave_out("end to end, encoder int8", error)
    whole.measure(results, checkpoint, case, models, rounds=1 if args.quick else 2)


def run_opening(results: Results, model: Path, args: argparse.Namespace, folder: Path) -> None:
    """From Python, and from C where the library is."""
    rounds = 1 if args.quick else 5
    opening.measure(results, opening.PYTHON, opening.python_command(), model, {"PYTHONPATH": str(ROOT / "python")}, rounds)
    if args.prefix is None:
        results.leave_out(f"opening, {opening.LIBRARY}", "no --prefix with an installed libfusedx was given")
        return
    try:
        opening.measure(results, opening.LIBRARY, [opening.build(args.prefix, folder)], model, {}, rounds)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        results.leave_out(f"opening, {opening.LIBRARY}", error)


if __name__ == "__main__":
    sys.exit(main())
