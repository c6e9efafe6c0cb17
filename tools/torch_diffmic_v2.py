"""What DiffMIC-v2 has beyond v1 (torch_diffmic.py), in plain torch, as the training code needs it.

Written from a description of the method (10.1109/TMI.2025.3530399); only the state-dict names follow the released checkpoints. The
denoiser's 1x1 convolutions over a 6x6 map are linear layers over its points here, which is the same arithmetic; `published` gives
their weights the two axes of length one that a checkpoint has. Shapes in comments: B images, R rows, C classes, F feature_dim, Np = 6.
"""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torch_diffmic import PATCHES, TRAIN_STEPS, DenoiserLayers, holder, linear_schedule, resnet

POINTS = 6   # side of the map = distinct distances |i-j|
# How many of the 36 points have each distance.
COUNTS = torch.tensor([6.0, 10.0, 8.0, 6.0, 4.0, 2.0], dtype=torch.float64)
PATCH, TOKENS, HEAD = 16, 196, 64


class Block(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = holder(qkv=nn.Linear(width, 3 * width), proj=nn.Linear(width, width))
        self.mlp = holder(fc1=nn.Linear(width, 4 * width), fc2=nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.attn.qkv(self.norm1(x)).unflatten(2, (3, -1, HEAD)).permute(2, 0, 3, 1, 4)  # [B,heads,196,64] each
        x = x + self.attn.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.mlp.fc2(F.gelu(self.mlp.fc1(self.norm2(x))))


class VisionTrunk(nn.Module):
    """EfficientSAM's trunk without its neck (arXiv 2312.00863); width 384 and 12 blocks as published."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.patch_embed = holder(proj=nn.Conv2d(3, width, PATCH, PATCH))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, TOKENS + 1, width))
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        """[B,3,224,224] -> the tokens' mean [B,width]; the table's first row belongs to a class token that is not used."""
        x = self.patch_embed.proj(x).flatten(2).transpose(1, 2) + self.pos_embed[:, 1:]
        for block in self.blocks:
            x = block(x)
        return x.mean(1)


class Denoiser(DenoiserLayers):
    """Image trunk, region trunk, fusion, and the denoiser of a point of the map."""

    def __init__(self, num_classes: int, feature_dim: int, width: int, vit_width: int, vit_depth: int) -> None:
        super().__init__()
        self.encoder_x = holder(f=VisionTrunk(vit_width, vit_depth), g=nn.Linear(vit_width, feature_dim))
        self.norm = nn.BatchNorm1d(feature_dim)
        self.encoder_x_l = holder(f=resnet(18, width, pool=True), g=nn.Linear(8 * width, feature_dim))
        self.norm_l = nn.BatchNorm1d(feature_dim)
        self.cond_weight = nn.Parameter(torch.zeros(1, feature_dim, PATCHES + 1))
        self.add_layers(num_classes, feature_dim)

    def fused(self, image: Tensor, regions: Tensor) -> Tensor:
        """Trunk outputs [B,vit_width], [B,6,8*width] -> [B,F]."""
        whole = self.norm(self.encoder_x.g(image))[:, None]
        parts = self.norm_l(self.encoder_x_l.g(regions).flatten(0, 1)).unflatten(0, (-1, PATCHES))
        share = self.cond_weight[0].softmax(1).T                      # [7,F]
        return (torch.cat([whole, parts], 1) * share).sum(1)

    def eps(self, f: Tensor, y: Tensor, t: Tensor, m: Tensor) -> Tensor:
        """Points y [R,C] with the prior map's values m [R,C] there; the prior comes first, unlike in v1."""
        return self.layers(torch.cat([m, y], 1), f, t)

    def published(self) -> dict[str, Tensor]:
        """The state dict as a checkpoint has it."""
        convolutions = ("encoder_x.g.weight", *(f"lin{k}.lin.weight" for k in (1, 2, 3)), "lin4.weight")
        return {n: v[:, :, None, None] if n in convolutions else v for n, v in self.state_dict().items()}


def dense(at_zero: Tensor, at_one: Tensor) -> Tensor:
    """[B,C], [B,C] -> [B,6,C]: (1-d) a + d b for d = 0, 1/5 .. 1."""
    d = torch.arange(POINTS, dtype=at_zero.dtype)[:, None] / (POINTS - 1)
    return (1 - d) * at_zero[:, None] + d * at_one[:, None]


def ddim(model: Denoiser, f: Tensor, m: Tensor, start: Tensor, steps: int = 10) -> Tensor:
    """DDIM without noise, clamped, from the start map [B,6,C] with the prior map m; returns the map's mean, float64 [B,C]."""
    abar = torch.from_numpy(linear_schedule().abar)
    stride = TRAIN_STEPS // steps
    y, rows = start.double(), f.repeat_interleave(POINTS, 0)
    for t in np.arange(steps)[::-1] * stride:
        now, before = abar[t], abar[t - stride] if t >= stride else torch.ones((), dtype=torch.float64)
        times = torch.full((len(rows),), int(t))
        e = model.eps(rows, y.flatten(0, 1).to(f.dtype), times, m.flatten(0, 1)).double().view_as(y)
        x0 = ((y - (1 - now).sqrt() * e) / now.sqrt()).clamp(-1, 1)
        y = before.sqrt() * x0 + (1 - before).sqrt() * e
    return (y * COUNTS[:, None]).sum(1) / COUNTS.sum()
