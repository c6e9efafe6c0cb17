"""The samplers beside each other: the same bits in another time.

    PYTHONPATH=python python benchmarks/bench_sampler.py [MODEL.fusedx ...] [--precisions fp32,int8] [--chains 1,2,4,16] [-o FILE.json]

Without a model: the golden cases v1-isic (250 steps) and v1-aptos (60), F 6144, compiled first.  For each model, precision and number of
chains that run together (images, each with its own noise): the sequential chain, the parallel one with each fixed number of rows a sweep,
and auto with the cost model's built-in or measured times.

Contenders take turns; times are medians and ratios medians over rounds, and auto is judged by the fastest round of each contender,
since it runs what one of the fixed ones runs.  Every contender's scores are compared with the sequential ones: they must be equal, bit
for bit.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "python"), str(ROOT / "benchmarks")]
import fusedx  # noqa: E402
import machine  # noqa: E402
from fusedx.engine.sampler import SEQUENTIAL, Chains, Plan  # noqa: E402
from fusedx.engine.sampling import Sampler  # noqa: E402
from requirement import Target  # noqa: E402
from turns import alternate  # noqa: E402

CASES = ("v1-isic", "v1-aptos")
ROWS = (8, 12, 16, 20, 24, 32)
#: Steps -> precision -> how many times the sequential chain one image must reach.
MUST = {250: {"fp32": 5.0, "int8": 2.5}, 60: {"fp32": 3.0, "int8": 3.0}}
#: How much slower than the best fixed choice auto may be.
AUTO = 1.05


@dataclass(frozen=True, slots=True)
class Cell:
    """One contender.  sweeps, rows: of all chains together, the mean over chains."""

    model: str
    precision: str
    steps: int
    chains: int
    contender: str
    milliseconds: float
    fastest: float
    ratio: float
    sweeps: float
    rows: float
    plan: dict[str, object]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--precisions", default="fp32,int8")
    parser.add_argument("--chains", default="1,2,4,16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.json")
    args = parser.parse_args()
    facts = machine.show()
    cells: list[Cell] = []
    with tempfile.TemporaryDirectory(prefix="fusedx-bench-") as scratch:
        for path in args.models or [compiled(case, Path(scratch)) for case in CASES]:
            for precision in args.precisions.split(","):
                model = fusedx.load(path, precision=precision)
                for chains in map(int, args.chains.split(",")):
                    cells += measure(model, path.stem, precision, chains, args.rounds)
    targets = requirements(cells)
    print("", *targets, sep="\n")
    if args.output:
        report = {"machine": facts, "cells": [asdict(cell) for cell in cells], "requirements": [str(target) for target in targets]}
        args.output.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def compiled(case: str, folder: Path) -> Path:
    from fusedx.compiler import compile_checkpoint

    golden, path = ROOT / "tests" / "golden", folder / f"{case}.fusedx"
    subprocess.run([sys.executable, golden / "make_checkpoint.py", case, folder / case], check=True)
    compile_checkpoint(folder / case, path)
    return path


def measure(model: fusedx.Model, name: str, precision: str, chains: int, rounds: int) -> list[Cell]:
    engine = model._engine
    images = np.stack([np.random.default_rng(i).standard_normal((3, 224, 224)) for i in range(chains)]).astype(np.float32)
    encoded = engine.encoder.run(images)
    noise = np.stack([engine.noise(f"{i:064x}", seed=0, draws=1) for i in range(chains)], axis=2)
    auto = engine.plan(Sampler("auto"), chains)
    points = engine.rows_per_chain * chains
    plans = {"sequential": SEQUENTIAL} | {f"{rows} rows": Plan(rows) for rows in ROWS if rows >= 2 * points} | {"auto": auto}
    runs: dict[str, Chains] = {}

    def timed(contender: str) -> Callable[[], float]:
        def run() -> float:
            started = time.perf_counter()
            runs[contender] = engine.chains.run(encoded, noise, keep=False, plan=plans[contender])
            return time.perf_counter() - started

        return run

    seconds = alternate({contender: timed(contender) for contender in plans}, rounds)
    unlike = [contender for contender, run in runs.items() if run.scores.tobytes() != runs["sequential"].scores.tobytes()]
    if unlike:
        raise SystemExit(f"{name} {precision}: {', '.join(unlike)} differ from the sequential chain")
    print(f"\n{name}, {precision}, {engine.schedule.steps} steps, {chains} chains together; times of the cost model: {engine.costs.source}")
    print(f"{'':12} {'ms':>9} {'x sequential':>13} {'sweeps':>7} {'rows':>6}")
    cells = []
    for contender, times in seconds.items():
        ratio = statistics.median(s / own for s, own in zip(seconds["sequential"], times, strict=True))
        work = runs[contender].work
        sweeps, rows = float(work.sweeps.mean()), float(work.rows.mean())
        ms = statistics.median(times) * 1e3
        text = contender if contender != "auto" else f"auto ({auto.rows})" if not auto.sequential else "auto (seq.)"
        print(f"{text:12} {ms:9.1f} {ratio:13.2f} {sweeps:7.0f} {rows:6.0f}", flush=True)
        plan = asdict(plans[contender])
        cells.append(Cell(name, precision, engine.schedule.steps, chains, contender, ms, min(times) * 1e3, ratio, sweeps, rows, plan))
    return cells


def requirements(cells: list[Cell]) -> list[Target]:
    targets = []
    for cell in cells:
        if cell.chains == 1 and cell.contender == "auto" and (bound := MUST.get(cell.steps, {}).get(cell.precision)):
            targets.append(Target(f"{cell.model}, {cell.precision}, one image, auto", cell.ratio, bound, "x sequential", True))
    for cell in cells:
        if cell.contender == "auto":
            same = (cell.model, cell.precision, cell.chains)
            others = [c for c in cells if (c.model, c.precision, c.chains) == same and c.contender != "auto"]
            best = min(others, key=lambda c: c.fastest)
            text = f"{cell.model}, {cell.precision}, {cell.chains} chains: auto against the best fixed choice ({best.contender})"
            targets.append(Target(text, cell.fastest / best.fastest, AUTO, "x its time", False))
    return targets


if __name__ == "__main__":
    sys.exit(main())
