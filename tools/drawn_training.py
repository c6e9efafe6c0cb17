"""What the training tools share: drawn pictures as tensors, the optimizer, the prior encoder's training, the authors' configuration.

Pictures are uint8 [N,3,224,224], their labels [N] (the grade); `index % CLASSES` is a picture's grade, so every grade is equally frequent.
"""
from __future__ import annotations

import math
import multiprocessing
import pathlib
import sys
import time

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "python")]
import fundus  # noqa: E402
import torch_diffmic as td  # noqa: E402

CLASSES = len(fundus.GRADES)
WIDTH = 8                # channels after the first convolution; 64 as published
BATCH = 32
DRAWS = 16               # draws averaged in the evaluation
HELD_OUT_SEED = 900_000  # added to --seed
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


# ---- Pictures ---------------------------------------------------------------------------------------------------

def preprocess(image: Image.Image) -> np.ndarray:
    """Centre square, 224x224: uint8 [224,224,3]."""
    image = image.convert("RGB")
    side = min(image.size)
    left, top = (round((v - side) / 2) for v in image.size)
    square = image.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((224, 224), Image.Resampling.BILINEAR))


def render_one(job: tuple[int, int]) -> np.ndarray:
    seed, index = job
    return preprocess(Image.fromarray(fundus.draw(seed, index, index % CLASSES)))


def render(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """`count` pictures, grades in turn: uint8 [N,3,224,224] and labels [N]."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pictures = np.stack(pool.map(render_one, [(seed, i) for i in range(count)], chunksize=25))
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous(), torch.arange(count) % CLASSES


def normalise(images: Tensor) -> Tensor:
    return (images.float() / 255 - MEAN[:, None, None]) / STD[:, None, None]


def batches(count: int, generator: torch.Generator) -> list[Tensor]:
    order = torch.randperm(count, generator=generator)
    return [order[i:i + BATCH] for i in range(0, count - BATCH + 1, BATCH)]


def augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """One of the eight symmetries of the square, chosen for the whole batch."""
    k = int(torch.randint(8, (), generator=generator))
    return torch.rot90(images if k < 4 else images.flip(3), k % 4, (2, 3))


# ---- Training ---------------------------------------------------------------------------------------------------

class Trainer:
    """AdamW with a linear warm-up and a cosine to zero."""

    def __init__(self, parameters: list[nn.Parameter] | list[dict], lr: float, steps: int, **options: bool) -> None:
        self.optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.02, **options)
        warm = max(1, min(60, steps // 10))
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda i: min((i + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * min(1.0, i / steps))))

    def step(self, loss: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_([p for g in self.optimizer.param_groups for p in g["params"]], 5.0)
        self.optimizer.step()
        self.schedule.step()


def quiet_residuals(net: nn.Module) -> None:
    """Start every residual block as the identity; deep narrow networks then learn from the first steps."""
    for block in net.modules():
        if isinstance(block, td.ResidualBlock):
            nn.init.zeros_(getattr(block, f"bn{block.depth}").weight)


def half_precision() -> torch.autocast:
    """bfloat16 arithmetic in convolutions and matrix products; weights and sums stay float32."""
    return torch.autocast("cpu", torch.bfloat16)


def say(text: str, start: float) -> None:
    print(f"[{time.monotonic() - start:6.1f} s] {text}", flush=True)


def train_prior(aux: td.PriorEncoder, images: Tensor, labels: Tensor, held: tuple[Tensor, Tensor], epochs: int, seed: int,
                start: float) -> None:
    """Cross entropy on the global, local and fused logits."""
    quiet_residuals(aux)
    generator = torch.Generator().manual_seed(seed)
    trainer = Trainer(list(aux.parameters()), 3e-3, epochs * (len(images) // BATCH))
    for epoch in range(epochs):
        aux.train()
        total = right = seen = 0.0
        for rows in batches(len(images), generator):
            with half_precision():
                out = aux(normalise(augmented(images[rows], generator)))
            target = labels[rows]
            loss = sum(F.cross_entropy(y.float(), target) for y in (out.y_global, out.y_local, out.y_fusion))
            trainer.step(loss)
            total += float(loss.detach()) * len(rows)
            right += float((out.y_fusion.argmax(1) == target).sum())
            seen += len(rows)
        text = f"prior epoch {epoch + 1}/{epochs}: loss {total / seen:.3f}, training accuracy {right / seen:.3f}"
        if (epoch + 1) % 4 == 0 or epoch + 1 == epochs:
            text += f", held-out {accuracy(priors(aux, held[0]), held[1]):.3f}"
        say(text, start)


@torch.inference_mode()
def priors(aux: td.PriorEncoder, images: Tensor) -> Tensor:
    aux.eval()
    return torch.cat([aux(normalise(part)).prior for part in images.split(50)])


def accuracy(scores: Tensor, labels: Tensor) -> float:
    return float((scores.argmax(1) == labels).float().mean())


# ---- Results ----------------------------------------------------------------------------------------------------

V1_CONFIG = """\
!!python/object:argparse.Namespace
data: !!python/object:argparse.Namespace
  dataset: APTOS
  label_min_max:
  - 0.001
  - 0.999
  num_classes: {classes}
diffusion: !!python/object:argparse.Namespace
  apply_aux_cls: true
  beta_end: 0.02
  beta_schedule: linear
  beta_start: 0.0001
  include_guidance: true
  noise_prior: false
  test_timesteps: {steps}
  timesteps: {train_steps}
model: !!python/object:argparse.Namespace
  arch: resnet18
  data_dim: 150528
  feature_dim: {features}
  hidden_dim: {features}
  type: simple
"""


def write_v1(out: pathlib.Path, aux: td.PriorEncoder, model: td.ConditionalDenoiser, features: int, steps: int, epoch: int,
             step: int) -> None:
    """The three files of the authors' layout; no optimizer state."""
    torch.save([aux.state_dict(), {}], out / "aux_ckpt_best.pth")
    torch.save([model.state_dict(), {}, epoch, step], out / "ckpt_best.pth")
    (out / "config.yml").write_text(V1_CONFIG.format(classes=CLASSES, steps=steps, train_steps=td.TRAIN_STEPS, features=features))


def size(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())
