"""A trained denoiser of published width (feature_dim 6144) from two processor cores: trained narrow, widened, trained on.

1. The encoders are frozen and their outputs computed once, so an image is a few dozen numbers and only the layers behind them train.
2. They are trained NARROW units wide, where an update costs a 256th.
3. Widening keeps the function (Net2WiderNet, arXiv 1511.05641): every unit is copied F/NARROW times, and each weight that reads a
   unit is divided at random among the unit's copies, a different division for every reader.  No two rows of the wide matrices are
   alike then, but copies of one unit still compute the same; a few per cent of noise on their step embeddings and biases tells
   them apart.
4. All 94 million numbers are trained on together, in bfloat16 products, at rates that follow the fan-in (maximal update
   parametrisation, arXiv 2203.03466): an Adam step of size r moves the output of a layer of n inputs by about r n.

The result is a wide network of all different, dense weights which computes something learnt.  It is not what hundreds of epochs at
full width would give: its matrices lie near matrices of rank NARROW.
"""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from drawn_training import Trainer, say

NARROW = 384
RATE, RATE_WIDTH = 3e-3, 128     # of a layer of RATE_WIDTH inputs
TELL_APART = 0.03                # relative noise on the copies' embeddings and biases
SETTLE = 30                      # batches that the running statistics of the norms are averaged over at the end
READS_UNITS = ("lin2.lin.weight", "lin3.lin.weight", "lin4.weight")
Loss = Callable[[], Tensor]      # draws a batch; called in train mode


def train(build: Callable[[int], nn.Module], loss_of: Callable[[nn.Module], Loss], feature_dim: int, updates: tuple[int, int],
          seed: int, start: float) -> nn.Module:
    """build(feature_dim) makes the network with its frozen parts, loss_of(net) its loss; updates: narrow, then at full width."""
    width = min(NARROW, feature_dim)
    if feature_dim % width:
        raise SystemExit(f"--feature-dim must be a multiple of {width}, got {feature_dim}")
    net = build(width)
    run(net, width, loss_of(net), updates[0], 1.0, f"{width} wide", start)
    if feature_dim > width:
        wide = build(feature_dim)
        wide.load_state_dict(widened(net, wide, torch.Generator().manual_seed(seed + 3)))
        net = wide
    run(net, feature_dim, loss_of(net), updates[1], 0.2, f"{feature_dim} wide", start)
    settle(net, loss_of(net))
    return net.eval()


def run(net: nn.Module, feature_dim: int, loss: Loss, updates: int, rate: float, name: str, start: float) -> None:
    """`updates` steps of AdamW on the parameters of `net` that are not frozen."""
    free = {n: p for n, p in net.named_parameters() if p.requires_grad}
    reading = [p for n, p in free.items() if n in READS_UNITS]
    rest = [p for n, p in free.items() if n not in READS_UNITS]
    wide_rate = rate * RATE * min(1.0, RATE_WIDTH / feature_dim)
    trainer = Trainer([{"params": rest}, {"params": reading, "lr": wide_rate}], rate * RATE, updates, fused=True)
    recent = torch.zeros(())
    for i in range(updates):
        norms_to(net, training=True)
        value = loss()
        trainer.step(value)
        recent = value.detach() if i == 0 else 0.98 * recent + 0.02 * value.detach()
        if (i + 1) % max(1, updates // 8) == 0 or i + 1 == updates:
            say(f"{name}, update {i + 1}/{updates}: squared error {float(recent):.4f}", start)


def widened(narrow: nn.Module, wide: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
    """The state of `wide`: unit j is a copy of the narrow network's unit j % width."""
    state = narrow.state_dict()
    for name, shape in ((n, v.shape) for n, v in wide.state_dict().items()):
        value = state[name]
        for axis, size in enumerate(shape):
            times = size // value.shape[axis] if value.ndim else 1
            if times > 1 and name in READS_UNITS and axis == 1:
                value = divided(value, times, generator)
            elif times > 1:
                value = value.repeat(*(times if k == axis else 1 for k in range(value.ndim)))
                if name.endswith(("embed.weight", "lin.bias")):
                    value = value * (1 + TELL_APART * torch.randn(value.shape, generator=generator))
        state[name] = value
    return state


def divided(weight: Tensor, times: int, generator: torch.Generator) -> Tensor:
    """[O,I] -> [O,times*I]: each weight in `times` random positive parts that add up to it."""
    parts = torch.empty(weight.shape[0], times, weight.shape[1]).exponential_(generator=generator)
    return (parts / parts.sum(1, keepdim=True) * weight[:, None]).flatten(1)


def trained_norms(net: nn.Module) -> list[nn.Module]:
    """The batch norms whose parameters are trained; those of the frozen encoders keep their statistics."""
    return [m for m in net.modules() if isinstance(m, nn.BatchNorm1d) and m.weight.requires_grad]


def norms_to(net: nn.Module, training: bool) -> None:
    for norm in trained_norms(net):
        norm.train(training)


@torch.no_grad()
def settle(net: nn.Module, loss: Loss) -> None:
    """The running statistics afresh, as plain means over SETTLE batches of the finished weights."""
    norms = trained_norms(net)
    momentum = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    norms_to(net, training=True)
    for _ in range(SETTLE):
        loss()
    norms_to(net, training=False)
    for norm, value in zip(norms, momentum, strict=True):
        norm.momentum = value
