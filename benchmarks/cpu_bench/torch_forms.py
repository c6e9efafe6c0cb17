"""torch: eager, compiled, and dynamically quantised."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cpu_bench.problem import Problem

Eps = Callable[[np.ndarray, int], np.ndarray]


class Denoiser(nn.Module):
    """Layers 1 to 4 from folded tables, all in one dtype."""

    def __init__(self, problem: Problem, dtype: torch.dtype) -> None:
        super().__init__()
        tables = problem.tables

        def tensor(array: np.ndarray) -> Tensor:
            return torch.from_numpy(np.array(array)).to(dtype)

        def linear(weight: np.ndarray, bias: np.ndarray | None = None) -> nn.Linear:
            layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=dtype, device="meta")
            layer.weight = nn.Parameter(tensor(weight), requires_grad=False)
            if bias is not None:
                layer.bias = nn.Parameter(tensor(bias), requires_grad=False)
            return layer

        self.first, self.second, self.third = linear(tables.weight_y), linear(tables.weight2), linear(tables.weight3)
        self.fourth = linear(tables.weight4, tables.bias4)
        self.constant, self.feature = tensor(problem.constant), tensor(problem.feature)
        rows = [problem.order[0], problem.order[-1]]
        self.base = min(rows)
        part = slice(self.base, max(rows) + 1)
        for k in (1, 2, 3):
            setattr(self, f"scale{k}", tensor(getattr(tables, f"scale{k}")[part]))
            setattr(self, f"shift{k}", tensor(getattr(tables, f"shift{k}")[part]))

    def steps_tables(self, t: int) -> tuple[Tensor, ...]:
        """Scale and shift of each layer at row ``t``."""
        t -= self.base
        return tuple(getattr(self, f"{kind}{k}")[t] for k in (1, 2, 3) for kind in ("scale", "shift"))

    def forward(self, y: Tensor, a1: Tensor, c1: Tensor, a2: Tensor, c2: Tensor, a3: Tensor, c3: Tensor) -> Tensor:
        u = F.softplus(torch.addcmul(c1, a1, self.first(y) + self.constant)) * self.feature
        u = F.softplus(torch.addcmul(c2, a2, self.second(u)))
        u = F.softplus(torch.addcmul(c3, a3, self.third(u)))
        return self.fourth(u)


def eager(problem: Problem, dtype: torch.dtype) -> Callable[[], np.ndarray]:
    """The module as it is."""
    model = Denoiser(problem, dtype)
    return _chain(problem, model, model, dtype)


def compiled(problem: Problem, dtype: torch.dtype, **options: object) -> Callable[[], np.ndarray]:
    """torch.compile with its weights frozen, so that it may lay them out as it likes."""
    model = Denoiser(problem, dtype).eval()
    function = torch.compile(model, fullgraph=True, dynamic=False, options={"freezing": True, **options})
    return _chain(problem, model, function, dtype)


def dynamic_int8(problem: Problem) -> Callable[[], np.ndarray]:
    """torch.ao's dynamic quantisation of the two wide layers: int8 weights, activations quantised a tensor."""
    model = Denoiser(problem, torch.float32)
    per_channel = torch.ao.quantization.per_channel_dynamic_qconfig
    quantised = torch.ao.quantization.quantize_dynamic(model, {"second": per_channel, "third": per_channel})
    return _chain(problem, quantised, quantised, torch.float32)


def _chain(problem: Problem, model: Denoiser, function: Callable[..., Tensor], dtype: torch.dtype) -> Callable[[], np.ndarray]:
    start = torch.from_numpy(problem.start)
    updates = [(a, b, torch.from_numpy(n)) for a, b, n in problem.updates()]
    tables = [model.steps_tables(t) for t in problem.order]

    @torch.inference_mode()
    def run(first_eps: bool = False) -> np.ndarray:
        y = start
        for (a, b, n), step in zip(updates, tables, strict=True):
            eps = function(y.to(dtype), *step).double()
            if first_eps:
                return eps.numpy()
            y = torch.add(n + a * y, eps, alpha=b)
        return y.numpy()

    return run
