"""How far does the parallel sampler get a sweep?  A table of models against rows.

    python tools/measure_sweeps.py MODEL.fusedx ... [--images DIR] [--pictures 4] [--rows 8 16 32 64] [--precisions fp32 int8]

One chain at a time; a cell is sweeps / steps a sweep / rows evaluated in all, means over pictures.  Pictures are the first of --images,
or uniform noise where there are none (random weights do not care).  The results are compared with the sequential sampler's: any
differing bit ends the run with an error.
"""
from __future__ import annotations

import argparse
import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "python"))
import fusedx  # noqa: E402
from fusedx import Sampler  # noqa: E402


def measure(model: fusedx.Model, pictures: list, rows: int, expected: list[np.ndarray]) -> tuple[float, float]:
    """Mean (sweeps, rows evaluated) of a chain."""
    sweeps, evaluated = [], []
    for picture, scores in zip(pictures, expected, strict=True):
        found = model.classify(picture, draws=1, seed=0, sampler=Sampler("parallel", rows))
        if found.scores.tobytes() != scores.tobytes():
            raise SystemExit(f"rows {rows}: scores {found.scores}, sequentially {scores}")
        sweeps.append(found.timing["sweeps"])
        evaluated.append(found.timing["rows"])
    return float(np.mean(sweeps)), float(np.mean(evaluated))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=pathlib.Path)
    parser.add_argument("--images", type=pathlib.Path)
    parser.add_argument("--pictures", type=int, default=4)
    parser.add_argument("--rows", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "int8"])
    args = parser.parse_args()
    if args.images:
        pictures = sorted(args.images.glob("*.png"))[: args.pictures]
    else:
        pictures = list(np.random.default_rng(0).integers(0, 256, (args.pictures, 224, 224, 3), np.uint8))
    print("| model | weights | steps | " + " | ".join(f"{n} rows" for n in args.rows) + " |")
    print("|---" * (3 + len(args.rows)) + "|")
    for path in args.models:
        for precision in args.precisions:
            model = fusedx.load(path, precision=precision)
            steps = model.manifest.schedule.steps
            expected = [model.classify(picture, draws=1, seed=0, sampler="sequential").scores for picture in pictures]
            cells = []
            for rows in args.rows:
                sweeps, evaluated = measure(model, pictures, rows, expected)
                cells.append(f"{sweeps:.1f} / {steps / sweeps:.1f} / {evaluated:.0f}")
            print(f"| {path.stem} | {precision} | {steps} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
