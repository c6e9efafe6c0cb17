"""DiffMIC v1 in plain torch: the benchmark's baseline and the training code of the demonstration model.

Written from a description of the method (arXiv 2303.10610); only the state-dict names follow the released
checkpoints. `width` is the channel count after the first convolution: 64 as published, less for a small model,
and every other channel count scales with it. Shapes in comments: B images, C classes, F feature_dim, T' steps.

    prior = PriorEncoder(num_classes=5)(x).prior                     # [B,C]
    y = sample_released(ConditionalDenoiser(5, 6144), x, prior, z)   # z [T',B,C], y float64 [B,C]
"""
from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

PATCHES = 6     # regions of the local branch
TILE = 32       # side of a region in pixels = stride of the saliency map
TRAIN_STEPS = 1000


# ---- ResNet -----------------------------------------------------------------------------------------------------

def conv(c_in: int, c_out: int, k: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, k, stride, k // 2, bias=False)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions (ResNet-18), or 1x1, 3x3, 1x1 with a four-fold output (ResNet-50, stride in the 3x3)."""

    def __init__(self, c_in: int, width: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        c_out = 4 * width if bottleneck else width
        if bottleneck:
            plan = [(c_in, width, 1, 1), (width, width, 3, stride), (width, c_out, 1, 1)]
        else:
            plan = [(c_in, width, 3, stride), (width, c_out, 3, 1)]
        for i, step in enumerate(plan, start=1):
            setattr(self, f"conv{i}", conv(*step))
            setattr(self, f"bn{i}", nn.BatchNorm2d(step[1]))
        self.depth = len(plan)
        projects = stride != 1 or c_in != c_out
        self.downsample = nn.Sequential(conv(c_in, c_out, 1, stride), nn.BatchNorm2d(c_out)) if projects else None

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for i in range(1, self.depth + 1):
            h = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(h))
            if i < self.depth:
                h = F.relu(h)
        return F.relu(h + (x if self.downsample is None else self.downsample(x)))


def resnet(layers: int, width: int, pool: bool) -> nn.Sequential:
    """Children 0..7 (conv1, bn1, relu, maxpool, layer1..4) and, with `pool`, child 8; no classifier."""
    bottleneck, depths = {18: (False, (2, 2, 2, 2)), 50: (True, (3, 4, 6, 3))}[layers]
    stem = nn.Conv2d(3, width, 7, 2, 3, bias=False)
    children: list[nn.Module] = [stem, nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    c_in = width
    for level, depth in enumerate(depths):
        w = width * 2**level
        blocks = []
        for i in range(depth):
            blocks.append(ResidualBlock(c_in, w, stride=2 if level and not i else 1, bottleneck=bottleneck))
            c_in = 4 * w if bottleneck else w
        children.append(nn.Sequential(*blocks))
    if pool:
        children.append(nn.AdaptiveAvgPool2d(1))
    net = nn.Sequential(*children)
    for m in net.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
    return net


def holder(**parts: nn.Module) -> nn.Module:
    """A module that only gives its parts their place in the state dict."""
    module = nn.Module()
    for name, part in parts.items():
        module.add_module(name, part)
    return module


# ---- Prior encoder ----------------------------------------------------------------------------------------------

@dataclasses.dataclass(frozen=True)
class PriorOutput:
    saliency: Tensor   # [B,C,7,7]
    cells: Tensor      # [B,6] linear index into the 7x7 grid, in the order chosen
    attention: Tensor  # [B,6]
    y_global: Tensor   # [B,C] logits
    y_local: Tensor    # [B,C] logits

    @property
    def y_fusion(self) -> Tensor:
        return (self.y_global + self.y_local) / 2

    @property
    def prior(self) -> Tensor:
        return self.y_fusion.softmax(1)


def choose_cells(saliency: Tensor, count: int = PATCHES) -> Tensor:
    """[B,C,7,7] -> [B,count]: repeatedly the cell with the largest sum of min-max scaled maps, lowest index on a tie.

    A chosen cell counts as zero afterwards. A map without range (0/0 in the original) contributes nothing.
    """
    maps = saliency.flatten(2)                                       # [B,C,49]
    low, high = maps.amin(2, keepdim=True), maps.amax(2, keepdim=True)
    span = torch.where(high > low, high - low, torch.ones_like(low))
    score = ((maps - low) / span).sum(1)                             # [B,49]
    chosen = []
    for _ in range(count):
        best = score.argmax(1, keepdim=True)                         # the first of equals
        score = score.scatter(1, best, 0.0)
        chosen.append(best)
    return torch.cat(chosen, 1)


def crop_tiles(x: Tensor, cells: Tensor) -> Tensor:
    """Channel 0 of x [B,3,224,224] at the chosen cells, repeated to three channels: [B*6,3,32,32]."""
    b, _, height, width = x.shape
    tiles = x[:, 0].reshape(b, height // TILE, TILE, width // TILE, TILE).transpose(2, 3).flatten(1, 2)
    picked = tiles[torch.arange(b, device=x.device)[:, None], cells]  # [B,6,32,32]
    return picked.flatten(0, 1)[:, None].expand(-1, 3, -1, -1)


class PriorEncoder(nn.Module):
    """Global saliency branch plus gated attention over its six most salient tiles (the "auxiliary" model)."""

    def __init__(self, num_classes: int, width: int = 64, attention_width: int = 128, layers: int = 50) -> None:
        super().__init__()
        c = {50: 32, 18: 8}[layers] * width  # 2048 as published; 512 in DiffMIC-v2, whose branches have 18 layers
        self.ds_net = holder(f=resnet(layers, width, pool=False))
        self.left_postprocess_net = holder(gn_conv_last=nn.Conv2d(c, num_classes, 1, bias=False))
        self.dn_resnet = holder(f=resnet(layers, width, pool=False))
        self.mil_attn_V = nn.Linear(c, attention_width, bias=False)
        self.mil_attn_U = nn.Linear(c, attention_width, bias=False)
        self.mil_attn_w = nn.Linear(attention_width, 1, bias=False)
        self.classifier_linear = nn.Linear(c, num_classes, bias=False)

    def forward(self, x: Tensor) -> PriorOutput:
        saliency = self.left_postprocess_net.gn_conv_last(self.ds_net.f(x))
        cells = choose_cells(saliency.detach())
        h = self.dn_resnet.f(crop_tiles(x, cells)).mean((2, 3)).unflatten(0, (-1, PATCHES))  # [B,6,c]
        gate = self.mil_attn_U(h).sigmoid() * self.mil_attn_V(h).tanh()
        attention = self.mil_attn_w(gate).squeeze(2).softmax(1)
        y_local = self.classifier_linear((attention[:, :, None] * h).sum(1))
        return PriorOutput(saliency, cells, attention, saliency.mean((2, 3)), y_local)


# ---- Denoiser ---------------------------------------------------------------------------------------------------

class ConditionalLinear(nn.Module):
    """E[t] * (W x + b)"""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.lin = nn.Linear(c_in, c_out)
        self.embed = nn.Embedding(TRAIN_STEPS + 1, c_out)
        nn.init.uniform_(self.embed.weight)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.embed(t) * self.lin(x)


class DenoiserLayers(nn.Module):
    """What v1 and v2 have in common behind the image feature: three layers of width F, and the projection to C classes."""

    def add_layers(self, num_classes: int, feature_dim: int) -> None:
        """Last in the state dict, after what a subclass has of its own."""
        self.lin1 = ConditionalLinear(2 * num_classes, feature_dim)
        self.unetnorm1 = nn.BatchNorm1d(feature_dim)
        self.lin2 = ConditionalLinear(feature_dim, feature_dim)
        self.unetnorm2 = nn.BatchNorm1d(feature_dim)
        self.lin3 = ConditionalLinear(feature_dim, feature_dim)
        self.unetnorm3 = nn.BatchNorm1d(feature_dim)
        self.lin4 = nn.Linear(feature_dim, num_classes)

    def layers(self, x: Tensor, f: Tensor, t: Tensor) -> Tensor:
        """State and prior side by side x [R,2C], feature f [R,F], step t [R] -> [R,C]."""
        u = F.softplus(self.unetnorm1(self.lin1(x, t))) * f
        u = F.softplus(self.unetnorm2(self.lin2(u, t)))
        u = F.softplus(self.unetnorm3(self.lin3(u, t)))
        return self.lin4(u)


class ConditionalDenoiser(DenoiserLayers):
    """The noise in y_t [B,C], given the image x [B,3,224,224], the step t [B] and the prior p [B,C]."""

    def __init__(self, num_classes: int, feature_dim: int, width: int = 64) -> None:
        super().__init__()
        self.encoder_x = holder(f=resnet(18, width, pool=True), g=nn.Linear(8 * width, feature_dim))
        self.norm = nn.BatchNorm1d(feature_dim)
        self.add_layers(num_classes, feature_dim)

    def feature(self, x: Tensor) -> Tensor:
        """[B,F]; depends on neither y nor t."""
        return self.norm(self.encoder_x.g(self.encoder_x.f(x).flatten(1)))

    def eps(self, f: Tensor, y: Tensor, t: Tensor, p: Tensor) -> Tensor:
        return self.layers(torch.cat([y, p], 1), f, t)

    def forward(self, x: Tensor, y: Tensor, t: Tensor, p: Tensor) -> Tensor:
        """As released: the image feature is computed again at every call."""
        return self.eps(self.feature(x), y, t, p)


# ---- Chain ------------------------------------------------------------------------------------------------------

@dataclasses.dataclass(frozen=True)
class Schedule:
    """float32 tables cast to float64; every coefficient of a step is computed from them in float64."""

    alpha: np.ndarray  # [1000]
    abar: np.ndarray   # [1000]
    s: np.ndarray      # [1000] sqrt(1 - abar)

    @property
    def q(self) -> np.ndarray:
        return np.sqrt(1.0 - self.s**2)


def linear_schedule(beta_start: float = 1e-4, beta_end: float = 0.02) -> Schedule:
    betas = torch.linspace(beta_start, beta_end, TRAIN_STEPS, dtype=torch.float32)
    alpha = 1.0 - betas
    # As torch does on the CPU: the running product in float64, each entry rounded (all in float32 costs 5e-5 in y).
    abar = alpha.double().cumprod(0).float().numpy()
    # numpy's float32 square root is correctly rounded; torch's CPU one can be a unit in the last place off (4e-7 in y).
    s = np.sqrt(np.float32(1.0) - abar)
    return Schedule(alpha.double().numpy(), abar.astype(np.float64), s.astype(np.float64))


def chain(eps: Callable[[Tensor, int], Tensor], p: Tensor, z: Tensor, schedule: Schedule | None = None,
          noise_prior: bool = False, trajectory: list[Tensor] | None = None) -> Tensor:
    """Runs the T' = len(z) steps from y = p + z[0]; eps(y [B,C] float64, t) -> [B,C]. Returns float64 logits [B,C]."""
    sch = schedule or linear_schedule()
    alpha, s, q = sch.alpha, sch.s, sch.q
    z = z.double()
    mean = torch.zeros_like(p, dtype=torch.float64) if noise_prior else p.double()
    y = mean + z[0]
    steps = len(z)
    for t in range(steps - 1, -1, -1):
        if trajectory is not None:
            trajectory.append(y)
        y0 = (y - (1 - q[t]) * mean - s[t] * eps(y, t).double()) / q[t]
        if t == 0:
            y = y0
            break
        g0 = (1 - alpha[t]) * q[t - 1] / s[t] ** 2
        g1 = s[t - 1] ** 2 * np.sqrt(alpha[t]) / s[t] ** 2
        g2 = 1 + (q[t] - 1) * (np.sqrt(alpha[t]) + q[t - 1]) / s[t] ** 2
        variance = s[t - 1] ** 2 * (1 - alpha[t]) / s[t] ** 2
        y = g0 * y0 + g1 * y + g2 * mean + np.sqrt(variance) * z[steps - t]
    if trajectory is not None:
        trajectory.append(y)
    return y


def _times(y: Tensor, t: int) -> Tensor:
    return torch.full((len(y),), t, dtype=torch.long, device=y.device)


def sample_released(model: ConditionalDenoiser, x: Tensor, p: Tensor, z: Tensor, schedule: Schedule | None = None,
                    noise_prior: bool = False, trajectory: list[Tensor] | None = None) -> Tensor:
    """The chain as released: T' evaluations of the image encoder."""
    return chain(lambda y, t: model(x, y.to(x.dtype), _times(y, t), p), p, z, schedule, noise_prior, trajectory)


def sample_hoisted(model: ConditionalDenoiser, f: Tensor, p: Tensor, z: Tensor, schedule: Schedule | None = None,
                   noise_prior: bool = False, trajectory: list[Tensor] | None = None) -> Tensor:
    """The same chain from the image feature f = model.feature(x), computed once by the caller."""
    return chain(lambda y, t: model.eps(f, y.to(f.dtype), _times(y, t), p), p, z, schedule, noise_prior, trajectory)
