"""How often does one draw's label differ, and what do more draws and other starts give?  Tables and a plot.

    python tools/measure_stability.py MODEL.fusedx ... --images DIR [--pictures N] [--draws 64] [--starts published ...]
                                      [--plot OUT.png] [--json OUT.json]
    python tools/measure_stability.py --show EARLIER.json ... [--plot OUT.png]      # tables and a plot of what --json kept

DIR holds labels.csv (path,label), as tools/train_reference.py writes it.  Every picture gets --draws chains of each start.  The majority
is the label that most of a picture's draws give; "differs" is the share of single draws with another one.  The answer of n draws is
the argmax of their mean score, as the engine gives it; its accuracy is the mean over the disjoint groups of n among the draws, so one
draw is measured --draws times a picture.  "+-" is one standard error over pictures.
"""
from __future__ import annotations

import argparse
import csv
import json
import pathlib
import sys
import time

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "python")]
import fusedx  # noqa: E402
from fusedx.engine.sampling import Sampling  # noqa: E402
from line_chart import Line, draw  # noqa: E402

BATCH = 16   # pictures at a time


def draw_scores(model: fusedx.Model, paths: list[pathlib.Path], sampling: Sampling) -> np.ndarray:
    """float64 [N,D,C]: the final scores of every draw."""
    found = []
    for first in range(0, len(paths), BATCH):
        pictures = [model.read(path) for path in paths[first:first + BATCH]]
        images = np.stack([model.preprocess(picture) for picture in pictures])
        digests = [picture.sha256 for picture in pictures]
        results, _ = model._engine.predict(images, lambda d=digests: d, sampling)
        found += [result.draw_scores for result in results]
    return np.stack(found)


def measure(scores: np.ndarray, labels: np.ndarray) -> dict[str, object]:
    """scores [N,D,C], labels [N] -> shares in percent, each with its standard error over pictures."""
    draws, classes = scores.shape[1:]
    own = scores.argmax(2)                                                        # [N,D]
    votes = (own[:, :, None] == np.arange(classes)).sum(1)                        # [N,C]
    majority = votes.argmax(1)
    counts = [n for n in (1, 2, 4, 8, 16, 32, 64, 128) if n <= draws]
    right = {}
    for n in counts:
        groups = scores[:, : draws // n * n].reshape(len(scores), -1, n, classes).mean(2).argmax(2)
        right[n] = share(groups == labels[:, None])
    return {"differs": share(own != majority[:, None]), "right": right,
            "below_90": float(100 * (votes.max(1) / draws < 0.9).mean())}


def share(of: np.ndarray) -> tuple[float, float]:
    """bool [N,K] -> (percent, its standard error)."""
    each = of.mean(1)
    return float(100 * each.mean()), float(100 * each.std(ddof=1) / np.sqrt(len(each)))


def table(rows: list[dict]) -> str:
    counts = [int(n) for n in rows[0]["right"]]
    lines = ["| model | steps | start | pictures | one draw differs | below 90 % agreement | right with 1 draw | "
             + " | ".join(map(str, counts[1:])) + " draws |",
             "|---" * (6 + len(counts)) + "|"]
    for r in rows:
        right = list(r["right"].values())
        cells = [r["model"], str(r["steps"]), r["start"], str(r["pictures"]), "{:.1f} +- {:.1f} %".format(*r["differs"]),
                 f"{r['below_90']:.0f} %", "{:.1f} +- {:.1f} %".format(*right[0]), *(f"{share:.1f}" for share, _ in right[1:])]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def chart(path: pathlib.Path, rows: list[dict]) -> None:
    lines = [Line(f"{row['steps']} steps, {row['start']}", [int(n) for n in row["right"]], [v[0] for v in row["right"].values()])
             for row in rows]
    models = sorted({row["model"].split("-")[0] for row in rows})
    draw(path, f"Right answers against draws: {', '.join(models)}, {rows[0]['pictures']} pictures", "draws whose scores are averaged",
         "right, %", lines)


def listed(folder: pathlib.Path, count: int) -> list[dict[str, str]]:
    with open(folder / "labels.csv", newline="") as file:
        return list(csv.DictReader(file))[:count]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=pathlib.Path)
    parser.add_argument("--images", type=pathlib.Path)
    parser.add_argument("--pictures", type=int, default=300, help="the first N of labels.csv")
    parser.add_argument("--draws", type=int, default=64)
    parser.add_argument("--starts", nargs="+", default=["published", "matched", "mean"])
    parser.add_argument("--show", nargs="+", type=pathlib.Path, default=[], metavar="JSON")
    parser.add_argument("--plot", type=pathlib.Path)
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    if bool(args.models) == bool(args.show) or (args.models and not args.images):
        parser.error("give either models and --images, or --show")
    rows = [row for path in args.show for row in json.loads(path.read_text())]
    for path in args.models:
        model = fusedx.load(path)
        known = listed(args.images, args.pictures)
        labels = np.array([model.classes.index(row["label"]) for row in known])
        for start in args.starts:
            began = time.monotonic()
            scores = draw_scores(model, [args.images / row["path"] for row in known], Sampling(draws=args.draws, start=start))
            rows.append({"model": path.stem, "steps": model.manifest.schedule.steps, "start": start, "pictures": len(known),
                         **measure(scores, labels)})
            print(f"{path.stem}, {start}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
            if args.json:
                args.json.write_text(json.dumps(rows, indent=1) + "\n")
    print(table(rows))
    if args.plot:
        chart(args.plot, rows)


if __name__ == "__main__":
    main()
