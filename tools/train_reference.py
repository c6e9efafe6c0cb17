"""Train a DiffMIC v1 or v2 of published width (feature_dim 6144) on drawn fundus pictures (tools/fundus.py).

    python tools/train_reference.py v1 OUT_DIR [--encoders DIR] [--images N] [--updates NARROW WIDE] [--seed N] [--quick]
    python tools/train_reference.py v2 OUT_DIR ...

Random weights say how fast an engine is, not how its samplers converge, how often two precisions disagree or how stable a label
is: those need a denoiser that has learnt something.  The backbones are narrow (width 8; published 64), because they are no part
of the question and take all the time; the denoiser is as wide as published.

Stage 1 trains the encoders: the prior encoder by cross entropy on its logits, the image trunk (v2: and the region trunk) by cross
entropy of throw-away linear classifiers.  --encoders takes them from a folder of tools/train_demo.py (v1) or of an earlier run.
Stage 2 freezes them, computes their outputs for --images pictures that they have never seen (so that the prior is as often wrong
as it will be), and trains everything behind them, see wide_denoiser.py.

OUT_DIR receives checkpoint/ in the authors' layout, the compiled models (v1: at 250 steps as for ISIC and at 60 as for APTOS;
in fp32 and int8), metrics.json, and pictures/ with held-out drawings and labels.csv.  Nothing of it is committed.
"""
from __future__ import annotations

import argparse
import csv
import json
import pathlib
import platform
import sys
import time

import numpy as np
import torch
from PIL import Image

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "python")]
import drawn_training as drawn  # noqa: E402
import fundus  # noqa: E402
import reference_v1  # noqa: E402
import reference_v2  # noqa: E402
from drawn_training import say  # noqa: E402
from fusedx.compiler import compile_checkpoint  # noqa: E402

FAMILIES = {"v1": reference_v1, "v2": reference_v2}
FRESH_SEED = 400_000   # added to --seed: the pictures of stage 2


def pictures(out: pathlib.Path, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 [N,3,224,224] and labels; drawn once a folder, as drawing 5000 takes minutes.  The first of a larger set are a smaller one."""
    kept = [path for path in out.glob(f"pictures-{seed}-*.npy") if int(path.stem.rpartition("-")[2]) >= count]
    if not kept:
        found, _ = drawn.render(count, seed)
        kept = [out / f"pictures-{seed}-{count}.npy"]
        np.save(kept[0], found.permute(0, 2, 3, 1).contiguous().numpy())
    images = torch.from_numpy(np.load(kept[0], mmap_mode="r")[:count].copy())
    return images.permute(0, 3, 1, 2).contiguous(), torch.arange(count) % drawn.CLASSES


def write_held_out(folder: pathlib.Path, images: torch.Tensor, labels: torch.Tensor) -> None:
    """PNG files that every tool of the package reads back bit for bit, and labels.csv (path,label)."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "labels.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "label"])
        for i, (image, label) in enumerate(zip(images.permute(0, 2, 3, 1).numpy(), labels.tolist(), strict=True)):
            Image.fromarray(image).save(folder / f"{i:04d}.png")
            table.writerow([f"{i:04d}.png", fundus.GRADES[label]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", choices=FAMILIES)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--encoders", type=pathlib.Path, metavar="DIR", help="a checkpoint whose encoders are used as they are")
    parser.add_argument("--images", type=int, default=2500, help="pictures of stage 2 (stage 1: --encoder-images)")
    parser.add_argument("--encoder-images", type=int, default=3000)
    parser.add_argument("--epochs", type=int, default=8, help="of the encoders")
    parser.add_argument("--held-out", type=int, default=300)
    parser.add_argument(
        "--updates", type=int, nargs=2, default=(2000, 20), metavar=("NARROW", "WIDE"), help="of the denoiser: 384 wide, at full width"
    )
    parser.add_argument("--feature-dim", type=int, default=6144)
    parser.add_argument("--evaluate", type=int, default=100, metavar="N", help="held-out pictures whose chains are run, 16 draws each")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="a smoke test: few pictures, few updates, feature_dim 64")
    args = parser.parse_args()
    if args.quick:
        args.images, args.encoder_images, args.held_out, args.epochs, args.updates, args.feature_dim = 64, 64, 20, 1, (4, 1), 64
        args.evaluate = 4
    args.evaluate = min(args.evaluate, args.held_out)
    checkpoint = args.out / "checkpoint"
    checkpoint.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    start = time.monotonic()
    family = FAMILIES[args.family]

    held = pictures(args.out, args.held_out, args.seed + drawn.HELD_OUT_SEED)
    write_held_out(args.out / "pictures", *held)
    if args.encoders:
        parts = family.read_encoders(args.encoders)
    else:
        parts = family.train_encoders(*pictures(args.out, args.encoder_images, args.seed), held, args.epochs, args.seed, start)
    fresh = pictures(args.out, args.images, args.seed + FRESH_SEED)
    say(f"drew {args.images} + {args.held_out} pictures", start)
    features, held_features = family.features(parts, fresh[0]), family.features(parts, held[0])
    say(f"features; prior right for {drawn.accuracy(held_features.prior, held[1]):.3f} held out", start)
    model = family.train(parts, features, fresh[1], args.feature_dim, tuple(args.updates), args.seed, start)
    family.write(checkpoint, parts, model, args.feature_dim, sum(args.updates))
    say(f"wrote {checkpoint}", start)

    one, many = family.chain_accuracy(model, held_features, held[1], args.evaluate, args.seed)
    metrics = {
        "held_out_images": args.held_out,
        "chain_images": args.evaluate,
        "chain_steps": family.STEPS_EVALUATED,
        "prior_accuracy": round(drawn.accuracy(held_features.prior, held[1]), 4),
        "chain_accuracy": round(one, 4),
        "chain_accuracy_16_draws": round(many, 4),
        "seed": args.seed,
        "command": "python tools/train_reference.py " + " ".join(
            {str(args.out): "OUT_DIR", str(args.encoders): "ENCODERS"}.get(a, a) for a in sys.argv[1:]),
        "pictures": {"encoders": None if args.encoders else args.encoder_images, "denoiser": args.images},
        "epochs_of_encoders": None if args.encoders else args.epochs, "updates_of_denoiser": args.updates,
        "class_names": list(fundus.GRADES),
        "width": drawn.WIDTH, "feature_dim": args.feature_dim,
        "parameters": drawn.size(model),
        "seconds": round(time.monotonic() - start, 1),
        "torch": torch.__version__, "numpy": np.__version__, "machine": f"{platform.machine()}, {args.threads} threads",
    }
    (args.out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    for name, steps in family.COMPILED.items():
        for precision in ("fp32", "int8"):
            target = args.out / f"{name}{'' if precision == 'fp32' else '-' + precision}.fusedx"
            compile_checkpoint(family.source(checkpoint), target, classes="aptos", steps=steps, precision=precision, metrics=metrics,
                               overwrite=True)
            say(f"compiled {target}", start)
    say(json.dumps(metrics), start)


if __name__ == "__main__":
    main()
