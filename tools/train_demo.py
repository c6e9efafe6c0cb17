"""Train the demonstration model: a narrow DiffMIC v1 on drawn fundus pictures (tools/fundus.py).

    python tools/train_demo.py OUT_DIR [--images N] [--epochs N] [--seed N] [--quick]
    python tools/train_demo.py --sample-images DIR         # redraw the six pictures shipped with the package

OUT_DIR/model.fusedx is what ships as python/fusedx/demo/model.fusedx.

Stage 1 trains the prior encoder (cross entropy on its global, local and fused logits). Stage 2 freezes it and
trains the denoiser on y_t = sqrt(abar_t) y_0 + (1 - sqrt(abar_t)) p + sqrt(1 - abar_t) e, y_0 one-hot, squared error
on e. Two aids are ours, not the paper's: a throw-away linear classifier on the image feature, and half of the steps t
drawn from those the sampler visits. OUT_DIR receives ckpt_best.pth, aux_ckpt_best.pth and config.yml in the authors'
layout, and metrics.json.

The pictures are drawings. The model shows that the engine works; it says nothing about anybody's eye.
"""
from __future__ import annotations

import argparse
import json
import pathlib
import platform
import sys
import time

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "python")]
import drawn_training as drawn  # noqa: E402
import fundus  # noqa: E402
import torch_diffmic as td  # noqa: E402
from drawn_training import BATCH, CLASSES, DRAWS, WIDTH, accuracy, normalise, say, size  # noqa: E402
from fusedx.compiler import compile_checkpoint  # noqa: E402

FEATURE_DIM, TEST_TIMESTEPS = 128, 250
DRAWS_AN_IMAGE = 16     # (t, noise) pairs an image in a denoiser batch
SAMPLE_SEED = 77_000_000
SAMPLES = {             # file name: (grade, index)
    "grade0_no_dr.jpg": (0, 0), "grade0_no_dr_2.jpg": (0, 1), "grade1_mild.jpg": (1, 2), "grade2_moderate.jpg": (2, 3),
    "grade3_severe.jpg": (3, 3), "grade4_proliferative_dr.jpg": (4, 3),
}


# ---- Training ---------------------------------------------------------------------------------------------------

def train_denoiser(images: Tensor, labels: Tensor, prior: Tensor, held: tuple[Tensor, Tensor, Tensor], epochs: int, seed: int,
                   start: float) -> td.ConditionalDenoiser:
    model = td.ConditionalDenoiser(CLASSES, FEATURE_DIM, WIDTH)
    drawn.quiet_residuals(model)
    helper = nn.Linear(FEATURE_DIM, CLASSES)
    generator = torch.Generator().manual_seed(seed + 1)
    trainer = drawn.Trainer([*model.parameters(), *helper.parameters()], 3e-3, epochs * (len(images) // BATCH))
    schedule = td.linear_schedule()
    root_abar, s = (torch.from_numpy(v).float() for v in (np.sqrt(schedule.abar), schedule.s))
    for epoch in range(epochs):
        model.train()
        squared = seen = right = 0.0
        for rows in drawn.batches(len(images), generator):
            with drawn.half_precision():
                f = model.feature(normalise(drawn.augmented(images[rows], generator))).float()
            logits = helper(f)
            y0 = F.one_hot(labels[rows], CLASSES).float().repeat_interleave(DRAWS_AN_IMAGE, 0)
            p = prior[rows].repeat_interleave(DRAWS_AN_IMAGE, 0)
            t = torch.randint(td.TRAIN_STEPS, (len(p),), generator=generator)
            t[::2] %= TEST_TIMESTEPS
            e = torch.randn(p.shape, generator=generator)
            a = root_abar[t, None]
            found = model.eps(f.repeat_interleave(DRAWS_AN_IMAGE, 0), a * y0 + (1 - a) * p + s[t, None] * e, t, p)
            mse = F.mse_loss(found, e)
            trainer.step(mse + 0.2 * F.cross_entropy(logits, labels[rows]))
            squared += float(mse.detach()) * len(rows)
            right += float((logits.argmax(1) == labels[rows]).sum())
            seen += len(rows)
        text = f"denoiser epoch {epoch + 1}/{epochs}: squared error {squared / seen:.4f}, helper's training accuracy {right / seen:.3f}"
        if (epoch + 1) % 5 == 0 or epoch + 1 == epochs:
            one, many = chain_accuracy(model, held[0], held[2], held[1], seed)
            text += f", held-out chain {one:.3f} (one draw), {many:.3f} ({DRAWS} draws)"
        say(text, start)
    return model


@torch.inference_mode()
def chain_accuracy(model: td.ConditionalDenoiser, images: Tensor, prior: Tensor, labels: Tensor, seed: int) -> tuple[float, float]:
    """Right answers of the released chain with one draw an image, and of the mean of DRAWS draws' probabilities."""
    probabilities = draw_chains(model, images, prior, seed)
    return accuracy(probabilities[:, 0], labels), accuracy(probabilities.mean(1), labels)


@torch.inference_mode()
def draw_chains(model: td.ConditionalDenoiser, images: Tensor, prior: Tensor, seed: int) -> Tensor:
    """[B,DRAWS,C] probabilities."""
    model.eval()
    f = torch.cat([model.feature(normalise(part)) for part in images.split(50)]).repeat_interleave(DRAWS, 0)
    p = prior.repeat_interleave(DRAWS, 0)
    z = torch.randn(TEST_TIMESTEPS, *p.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + 2))
    return td.sample_hoisted(model, f, p, z).softmax(1).unflatten(0, (-1, DRAWS))


# ---- Results ----------------------------------------------------------------------------------------------------

def real_photograph(aux: td.PriorEncoder, model: td.ConditionalDenoiser, seed: int) -> dict[str, list[float]] | None:
    """Probabilities for the one real photograph at hand, scikit-image's retina(), said to be healthy; never trained on."""
    try:
        from skimage.data import retina
        image = Image.fromarray(retina())
    except (ImportError, OSError) as error:  # not installed, or its file is not on this machine
        print(f"no real photograph: {error}")
        return None
    x = torch.from_numpy(drawn.preprocess(image).copy()).permute(2, 0, 1)[None]
    p = drawn.priors(aux, x)
    chain = draw_chains(model, x, p, seed).mean(1)
    return {"prior": [round(v, 4) for v in p[0].tolist()], "chain_16_draws": [round(v, 4) for v in chain[0].tolist()]}


def write_samples(folder: pathlib.Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, (grade, index) in SAMPLES.items():
        Image.fromarray(fundus.draw(SAMPLE_SEED, index, grade)).save(folder / name, quality=90, optimize=True)
        print(f"{folder / name}: {(folder / name).stat().st_size / 1024:.1f} KiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path, nargs="?")
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--held-out", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=8, help="of the prior encoder; the denoiser runs 5/4 as many")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="a smoke test: 160 pictures, one epoch")
    parser.add_argument("--keep-prior", action="store_true", help="train only the denoiser, on the prior encoder already in OUT_DIR")
    parser.add_argument("--sample-images", type=pathlib.Path, metavar="DIR")
    args = parser.parse_args()
    if args.sample_images:
        return write_samples(args.sample_images)
    if args.out is None:
        parser.error("OUT_DIR is missing")
    if args.quick:
        args.images, args.held_out, args.epochs = 160, 50, 1
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    torch.set_num_threads(2)
    start = time.monotonic()
    images, labels = drawn.render(args.images, args.seed)
    held_images, held_labels = drawn.render(args.held_out, args.seed + drawn.HELD_OUT_SEED)
    say(f"drew {args.images} + {args.held_out} pictures", start)

    epochs = (args.epochs, max(1, args.epochs * 5 // 4))
    saved = args.out / "aux_ckpt_best.pth"
    aux = td.PriorEncoder(CLASSES, WIDTH)
    if args.keep_prior:
        aux.load_state_dict(torch.load(saved, weights_only=True)[0])
    else:
        drawn.train_prior(aux, images, labels, (held_images, held_labels), epochs[0], args.seed, start)
        torch.save([aux.state_dict(), {}], saved)
    prior, held_prior = drawn.priors(aux, images), drawn.priors(aux, held_images)
    say(f"prior: {accuracy(prior, labels):.3f} on the training set, {accuracy(held_prior, held_labels):.3f} held out", start)
    model = train_denoiser(images, labels, prior, (held_images, held_labels, held_prior), epochs[1], args.seed, start)

    drawn.write_v1(args.out, aux, model, FEATURE_DIM, TEST_TIMESTEPS, epochs[1], epochs[1] * (args.images // BATCH))
    one, many = chain_accuracy(model, held_images, held_prior, held_labels, args.seed)
    metrics = {
        "held_out_images": args.held_out,
        "prior_accuracy": round(accuracy(held_prior, held_labels), 4),
        "chain_accuracy": round(one, 4),
        "chain_accuracy_16_draws": round(many, 4),
        "seed": args.seed,
        "command": " ".join(["python tools/train_demo.py OUT_DIR", *(a for a in sys.argv[1:] if a != str(args.out))]),
        "training_images": args.images,
        "epochs": {"prior": epochs[0], "denoiser": epochs[1]},
        "class_names": list(fundus.GRADES),
        "width": WIDTH, "feature_dim": FEATURE_DIM, "test_timesteps": TEST_TIMESTEPS,
        "parameters": {"prior_encoder": size(aux), "denoiser": size(model)},
        "real_photograph_skimage_retina": real_photograph(aux, model, args.seed),
        "seconds": round(time.monotonic() - start, 1),
        "torch": torch.__version__, "numpy": np.__version__, "machine": f"{platform.machine()}, 2 threads",
    }
    (args.out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    compile_checkpoint(args.out, args.out / "model.fusedx", classes="aptos", metrics=metrics, overwrite=True)
    say(json.dumps(metrics), start)


if __name__ == "__main__":
    main()
