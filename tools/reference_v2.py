"""The v2 half of train_reference.py: which encoders, which noise, which chain.

Shapes: N images, C classes, V = 64 outputs of the narrow ViT, H = 64 outputs of the narrow ResNet-18 of a region, F feature_dim.
"""
from __future__ import annotations

import dataclasses
import pathlib

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import drawn_training as drawn
import torch_diffmic as td
import torch_diffmic_v2 as v2
import wide_denoiser
from drawn_training import BATCH, CLASSES, DRAWS, WIDTH, Trainer, half_precision, normalise, say

VIT_WIDTH, VIT_DEPTH = 64, 2     # one head
IMAGES, DRAWS_AN_IMAGE = 64, 4   # of one update: 256 points
DDIM_STEPS = STEPS_EVALUATED = 10
COMPILED = {"ref-v2": DDIM_STEPS}


@dataclasses.dataclass
class Encoders:
    prior: td.PriorEncoder
    image: v2.VisionTrunk
    region: nn.Module   # ResNet-18 with pooling


@dataclasses.dataclass
class Features:
    y_global: Tensor   # [N,C] logits
    y_local: Tensor    # [N,C] logits
    image: Tensor      # [N,V]
    regions: Tensor    # [N,6,H]

    @property
    def prior(self) -> Tensor:
        return (self.y_global + self.y_local) / 2


def new_encoders() -> Encoders:
    return Encoders(td.PriorEncoder(CLASSES, WIDTH, layers=18), v2.VisionTrunk(VIT_WIDTH, VIT_DEPTH), td.resnet(18, WIDTH, pool=True))


def read_encoders(folder: pathlib.Path) -> Encoders:
    saved = torch.load(source(folder / "checkpoint"), weights_only=True)["state_dict"]
    parts = new_encoders()
    prefixes = {"aux_model.": parts.prior, "model.encoder_x.f.": parts.image, "model.encoder_x_l.f.": parts.region}
    for prefix, net in prefixes.items():
        net.load_state_dict({n.removeprefix(prefix): v for n, v in saved.items() if n.startswith(prefix)})
    return parts


def train_encoders(images: Tensor, labels: Tensor, held: tuple[Tensor, Tensor], epochs: int, seed: int, start: float) -> Encoders:
    parts = new_encoders()
    drawn.train_prior(parts.prior, images, labels, held, epochs, seed, start)
    drawn.quiet_residuals(parts.region)
    helpers = nn.ModuleList([nn.Linear(VIT_WIDTH, CLASSES), nn.Linear(8 * WIDTH, CLASSES)])
    learning = nn.ModuleList([parts.image, parts.region, helpers])
    generator = torch.Generator().manual_seed(seed + 1)
    trainer = Trainer(list(learning.parameters()), 2e-3, epochs * (len(images) // BATCH))
    for epoch in range(epochs):
        learning.train()
        right, seen = torch.zeros(2), 0
        for rows in drawn.batches(len(images), generator):
            x = normalise(drawn.augmented(images[rows], generator))
            with torch.no_grad(), half_precision():
                cells = parts.prior(x).cells
            with half_precision():
                whole, regions = parts.image(x), trunk_of_regions(parts.region, x, cells)
            logits = [helper(h.float()) for helper, h in zip(helpers, (whole, regions.mean(1)), strict=True)]
            trainer.step(sum(F.cross_entropy(y, labels[rows]) for y in logits))
            right += torch.tensor([float((y.argmax(1) == labels[rows]).sum()) for y in logits])
            seen += len(rows)
        shares = ", ".join(f"{v / seen:.3f}" for v in right.tolist())
        say(f"trunks epoch {epoch + 1}/{epochs}: training accuracy {shares} (image, regions)", start)
    return parts


def trunk_of_regions(net: nn.Module, x: Tensor, cells: Tensor) -> Tensor:
    """[N,6,H]: the trunk on the six chosen tiles."""
    return net(td.crop_tiles(x, cells)).flatten(1).unflatten(0, (-1, td.PATCHES))


@torch.inference_mode()
def features(parts: Encoders, images: Tensor) -> Features:
    for net in (parts.prior, parts.image, parts.region):
        net.eval()
    rows = []
    for x in map(normalise, images.split(50)):
        out = parts.prior(x)
        rows.append((out.y_global, out.y_local, parts.image(x), trunk_of_regions(parts.region, x, out.cells)))
    return Features(*(torch.cat(column).clone() for column in zip(*rows, strict=True)))


def train(parts: Encoders, known: Features, labels: Tensor, feature_dim: int, updates: tuple[int, int], seed: int,
          start: float) -> v2.Denoiser:
    """y_t = sqrt(abar_t) y_0 + sqrt(1 - abar_t) e at single points of the map, y_0 one-hot; squared error on e.

    Half of the steps t is uniform over the schedule, half over those that the sampler visits.
    """
    generator = torch.Generator().manual_seed(seed + 1)
    abar = torch.from_numpy(td.linear_schedule().abar).float()
    prior_map = v2.dense(known.y_global, known.y_local)   # [N,6,C]
    stride = td.TRAIN_STEPS // DDIM_STEPS

    def build(width: int) -> v2.Denoiser:
        model = v2.Denoiser(CLASSES, width, WIDTH, VIT_WIDTH, VIT_DEPTH)
        for own, net in ((model.encoder_x.f, parts.image), (model.encoder_x_l.f, parts.region)):
            own.load_state_dict(net.state_dict())
            own.requires_grad_(False).eval()
        return model

    def loss_of(model: v2.Denoiser) -> wide_denoiser.Loss:
        def loss() -> Tensor:
            rows = torch.randint(len(labels), (IMAGES,), generator=generator)
            f = model.fused(known.image[rows], known.regions[rows]).repeat_interleave(DRAWS_AN_IMAGE, 0)
            y0 = F.one_hot(labels[rows], CLASSES).float().repeat_interleave(DRAWS_AN_IMAGE, 0)
            image = rows.repeat_interleave(DRAWS_AN_IMAGE)
            m = prior_map[image, torch.randint(v2.POINTS, image.shape, generator=generator)]
            t = torch.randint(td.TRAIN_STEPS, image.shape, generator=generator)
            t[::2] = t[::2] // stride * stride
            e = torch.randn(y0.shape, generator=generator)
            a = abar[t, None]
            with half_precision():
                found = model.eps(f, a.sqrt() * y0 + (1 - a).sqrt() * e, t, m)
            return F.mse_loss(found.float(), e)
        return loss

    return wide_denoiser.train(build, loss_of, feature_dim, updates, seed, start)


def write(folder: pathlib.Path, parts: Encoders, model: v2.Denoiser, feature_dim: int, updates: int) -> None:
    """One Lightning-like file; no optimizer state."""
    state = {f"model.{n}": v for n, v in model.published().items()}
    state |= {f"aux_model.{n}": v for n, v in parts.prior.state_dict().items()}
    config = {
        "data": {"dataset": "APTOS", "num_classes": CLASSES},
        "model": {"arch": "resnet18", "feature_dim": feature_dim, "hidden_dim": feature_dim, "num_k": td.PATCHES},
        "diffusion": {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02, "timesteps": td.TRAIN_STEPS,
                      "include_guidance": True},
    }
    saved = {"epoch": 1, "global_step": updates, "pytorch-lightning_version": "1.9.0", "state_dict": state,
             "hyper_parameters": {"hparams": config}}
    torch.save(saved, source(folder))


def source(folder: pathlib.Path) -> pathlib.Path:
    """What `fusedx compile` reads."""
    return folder / "last.ckpt"


@torch.inference_mode()
def chain_accuracy(model: v2.Denoiser, known: Features, labels: Tensor, count: int, seed: int) -> tuple[float, float]:
    """Right answers of the first `count` images with one draw each, and of DRAWS draws' mean scores; products in bfloat16."""
    f = model.fused(known.image[:count], known.regions[:count]).repeat_interleave(DRAWS, 0)
    m = v2.dense(known.y_global[:count], known.y_local[:count]).repeat_interleave(DRAWS, 0)
    u = torch.rand(2, len(f), CLASSES, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + 2))
    with half_precision():
        found = v2.ddim(model, f, m, v2.dense(u[0], u[1])).unflatten(0, (-1, DRAWS))
    return drawn.accuracy(found[:, 0], labels[:count]), drawn.accuracy(found.mean(1), labels[:count])
