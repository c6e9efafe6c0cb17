"""How many sweeps, and rows of the denoiser, a chain takes with each way of guessing: held eps, Newton, stale Jacobians.

    PYTHONPATH=python python benchmarks/bench_guesses.py MODEL.fusedx ... [--precisions fp32,int8] [--images N] [--pictures DIR]

A window of W steps is W rows a sweep for held eps (picard), W (1 + C) for newton, whose steps bring their Jacobians, and W + C for stale,
which asks for one now and then.  "all" is the whole chain at once.  Counts, not times: they are the same on every machine, but for the
encoder's last bits.  Every result is compared with the sequential one and must be equal, bit for bit.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "python")]
import fusedx  # noqa: E402
from fusedx.engine.sampler import SEQUENTIAL, Plan  # noqa: E402

WINDOWS = (16, 32, 64)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--precisions", default="fp32,int8")
    parser.add_argument("--images", type=int, default=2, help="how many (2)")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="the first of a folder; else images of noise")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.json")
    args = parser.parse_args()
    cells = []
    print("| model | weights | steps | window | picard | newton | stale |\n|---|---|---|---|---|---|---|")
    for path in args.models:
        for precision in args.precisions.split(","):
            model = fusedx.load(path, precision=precision)
            for cell in measure(model, path.stem, precision, tensors(model, args.images, args.pictures)):
                cells.append(cell)
                work = (f"{cell[v]['sweeps']:.0f} sweeps, {cell[v]['rows']:.0f} rows" for v in ("picard", "newton", "stale"))
                print(f"| {path.stem} | {precision} | {cell['steps']} | {cell['window']} | {' | '.join(work)} |", flush=True)
    if args.output:
        args.output.write_text(json.dumps(cells, indent=1) + "\n")
    return 0


def tensors(model: fusedx.Model, count: int, pictures: Path | None) -> list[np.ndarray]:
    """The encoder's input [3,224,224] of each image."""
    if pictures is None:
        return [np.random.default_rng(n).standard_normal((3, 224, 224)).astype(np.float32) for n in range(count)]
    return [model.preprocess(model.read(path)) for path in sorted(pictures.iterdir())[:count]]


def measure(model: fusedx.Model, name: str, precision: str, images: list[np.ndarray]) -> Iterator[dict]:
    engine = model._engine
    steps, classes, points = engine.schedule.steps, len(model.classes), engine.rows_per_chain
    encoded = [engine.encoder.run(image[None]) for image in images]
    noise = [engine.noise(f"{n:064x}", seed=0, draws=1)[:, :, None] for n in range(len(images))]
    expected = [engine.chains.run(e, z, keep=False, plan=SEQUENTIAL).scores for e, z in zip(encoded, noise, strict=True)]
    for window in (*(w for w in WINDOWS if w < steps), steps):
        cell: dict = {"model": name, "precision": precision, "steps": steps, "window": "all" if window == steps else window}
        for variant, rows in (("picard", window), ("newton", window * (1 + classes)), ("stale", window + classes)):
            if window == steps:
                rows = steps * (1 + classes)
            runs = [engine.chains.run(e, z, keep=False, plan=Plan(rows * points, variant)) for e, z in zip(encoded, noise, strict=True)]
            if any(run.scores.tobytes() != scores.tobytes() for run, scores in zip(runs, expected, strict=True)):
                raise SystemExit(f"{name} {precision} window {window}: {variant} differs from the sequential chain")
            cell[variant] = {key: float(np.mean([getattr(run.work, key) for run in runs])) for key in ("sweeps", "rows")}
        yield cell


if __name__ == "__main__":
    sys.exit(main())
