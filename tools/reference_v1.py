"""The v1 half of train_reference.py: which encoders, which noise, which chain.

Shapes: N images, C classes, H = 64 outputs of the narrow ResNet-18, F feature_dim.
"""
from __future__ import annotations

import dataclasses
import pathlib

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import drawn_training as drawn
import torch_diffmic as td
import wide_denoiser
from drawn_training import BATCH, CLASSES, DRAWS, WIDTH, Trainer, half_precision, normalise, say

IMAGES, DRAWS_AN_IMAGE = 64, 4   # of one update: 256 rows
STEPS_EVALUATED = 60
COMPILED = {"ref-v1": 250, "ref-v1-60": 60}   # name: test_timesteps (ISIC, APTOS)


@dataclasses.dataclass
class Encoders:
    prior: td.PriorEncoder
    image: nn.Module   # ResNet-18 with pooling


@dataclasses.dataclass
class Features:
    prior: Tensor   # [N,C]
    image: Tensor   # [N,H]


def read_encoders(folder: pathlib.Path) -> Encoders:
    folder = folder / "checkpoint" if (folder / "checkpoint").is_dir() else folder
    prior = td.PriorEncoder(CLASSES, WIDTH)
    prior.load_state_dict(torch.load(folder / "aux_ckpt_best.pth", weights_only=True)[0])
    image = td.resnet(18, WIDTH, pool=True)
    saved = torch.load(folder / "ckpt_best.pth", weights_only=True)[0]
    prefix = "encoder_x.f."
    image.load_state_dict({n.removeprefix(prefix): v for n, v in saved.items() if n.startswith(prefix)})
    return Encoders(prior, image)


def train_encoders(images: Tensor, labels: Tensor, held: tuple[Tensor, Tensor], epochs: int, seed: int, start: float) -> Encoders:
    prior, image = td.PriorEncoder(CLASSES, WIDTH), td.resnet(18, WIDTH, pool=True)
    drawn.train_prior(prior, images, labels, held, epochs, seed, start)
    drawn.quiet_residuals(image)
    helper = nn.Linear(8 * WIDTH, CLASSES)
    generator = torch.Generator().manual_seed(seed + 1)
    trainer = Trainer([*image.parameters(), *helper.parameters()], 3e-3, epochs * (len(images) // BATCH))
    for epoch in range(epochs):
        image.train()
        right = seen = 0.0
        for rows in drawn.batches(len(images), generator):
            with half_precision():
                h = image(normalise(drawn.augmented(images[rows], generator))).flatten(1)
            logits = helper(h.float())
            trainer.step(F.cross_entropy(logits, labels[rows]))
            right += float((logits.argmax(1) == labels[rows]).sum())
            seen += len(rows)
        say(f"image trunk epoch {epoch + 1}/{epochs}: training accuracy {right / seen:.3f}", start)
    return Encoders(prior, image)


@torch.inference_mode()
def features(parts: Encoders, images: Tensor) -> Features:
    parts.image.eval()
    h = torch.cat([parts.image(normalise(part)).flatten(1) for part in images.split(50)])
    return Features(drawn.priors(parts.prior, images).clone(), h.clone())


def train(parts: Encoders, known: Features, labels: Tensor, feature_dim: int, updates: tuple[int, int], seed: int,
          start: float) -> td.ConditionalDenoiser:
    """y_t = sqrt(abar_t) y_0 + (1 - sqrt(abar_t)) p + sqrt(1 - abar_t) e, y_0 one-hot; squared error on e.

    A quarter of the steps t is uniform over the schedule as in the paper, the others over those that the two samplers visit.
    """
    generator = torch.Generator().manual_seed(seed + 1)
    schedule = td.linear_schedule()
    s = torch.from_numpy(schedule.s).float()
    root_abar = torch.from_numpy(schedule.abar).sqrt().float()

    def build(width: int) -> td.ConditionalDenoiser:
        model = td.ConditionalDenoiser(CLASSES, width, WIDTH)
        model.encoder_x.f.load_state_dict(parts.image.state_dict())
        model.encoder_x.f.requires_grad_(False).eval()
        return model

    def loss_of(model: td.ConditionalDenoiser) -> wide_denoiser.Loss:
        def loss() -> Tensor:
            rows = torch.randint(len(labels), (IMAGES,), generator=generator)
            f = model.norm(model.encoder_x.g(known.image[rows])).repeat_interleave(DRAWS_AN_IMAGE, 0)
            y0 = F.one_hot(labels[rows], CLASSES).float().repeat_interleave(DRAWS_AN_IMAGE, 0)
            p = known.prior[rows].repeat_interleave(DRAWS_AN_IMAGE, 0)
            t = torch.randint(td.TRAIN_STEPS, (len(p),), generator=generator)
            t[1::4] %= 60
            t[2::4] %= 250
            t[3::4] %= 250
            e = torch.randn(p.shape, generator=generator)
            a = root_abar[t, None]
            with half_precision():
                found = model.eps(f, a * y0 + (1 - a) * p + s[t, None] * e, t, p)
            return F.mse_loss(found.float(), e)
        return loss

    return wide_denoiser.train(build, loss_of, feature_dim, updates, seed, start)


def write(folder: pathlib.Path, parts: Encoders, model: td.ConditionalDenoiser, feature_dim: int, updates: int) -> None:
    drawn.write_v1(folder, parts.prior, model, feature_dim, COMPILED["ref-v1"], 1, updates)


def source(folder: pathlib.Path) -> pathlib.Path:
    """What `fusedx compile` reads."""
    return folder


@torch.inference_mode()
def chain_accuracy(model: td.ConditionalDenoiser, known: Features, labels: Tensor, count: int, seed: int) -> tuple[float, float]:
    """Right answers of the released chain of STEPS_EVALUATED steps with one draw an image, and of DRAWS draws' mean probabilities.

    Of the first `count` images, with products in bfloat16; tools/measure_reference.py measures more, with the engine itself.
    """
    f = model.norm(model.encoder_x.g(known.image[:count])).repeat_interleave(DRAWS, 0)
    p = known.prior[:count].repeat_interleave(DRAWS, 0)
    z = torch.randn(STEPS_EVALUATED, *p.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + 2))
    with half_precision():
        found = td.sample_hoisted(model, f, p, z).softmax(1).unflatten(0, (-1, DRAWS))
    return drawn.accuracy(found[:, 0], labels[:count]), drawn.accuracy(found.mean(1), labels[:count])
