"""torch: eager, compiled, and with the two wide layers quantised dynamically."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cpu_bench.contender import Form, library_form
from cpu_bench.problem import Eps, Problem

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Denoiser(nn.Module):
    """Layers 1 to 4 from folded tables, all in one dtype."""

    def __init__(self, problem: Problem, dtype: torch.dtype) -> None:
        super().__init__()
        tables = problem.tables

        def linear(weight: np.ndarray, bias: np.ndarray | None = None) -> nn.Linear:
            layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=dtype, device="meta")
            layer.weight = nn.Parameter(_tensor(weight, dtype), requires_grad=False)
            if bias is not None:
                layer.bias = nn.Parameter(_tensor(bias, dtype), requires_grad=False)
            return layer

        self.first, self.second, self.third = linear(tables.weight_y), linear(tables.weight2), linear(tables.weight3)
        self.fourth = linear(tables.weight4, tables.bias4)
        self.constant, self.feature = _tensor(problem.constant, dtype), _tensor(problem.feature, dtype)

    def forward(self, y: Tensor, a1: Tensor, c1: Tensor, a2: Tensor, c2: Tensor, a3: Tensor, c3: Tensor) -> Tensor:
        u = F.softplus(torch.addcmul(c1, a1, self.first(y) + self.constant)) * self.feature
        u = F.softplus(torch.addcmul(c2, a2, self.second(u)))
        u = F.softplus(torch.addcmul(c3, a3, self.third(u)))
        return self.fourth(u)


def forms(threads: int) -> list[Form]:
    """All of torch's."""
    torch.set_num_threads(threads)
    found = [library_form("torch eager", p, "", lambda problem, p=p: _eps(problem, p, lambda model: model)) for p in DTYPES]
    found.append(library_form("torch eager", "int8", "torch.ao dynamic quantisation", _dynamic_int8))
    found += [library_form("torch.compile", p, "frozen", lambda problem, p=p: _eps(problem, p, _compiled)) for p in DTYPES]
    return found


def _compiled(model: Denoiser) -> Callable[..., Tensor]:
    """Frozen, so that the weights may be laid out as the compiler likes."""
    if not any(map(shutil.which, ("g++", "clang++", "c++"))):
        raise RuntimeError("torch.compile needs a C++ compiler, and there is none")
    torch._dynamo.config.recompile_limit = 64  # one compiled form a contender, all of one function
    return torch.compile(model, fullgraph=True, dynamic=False, options={"freezing": True})


def _dynamic_int8(problem: Problem) -> Eps:
    """int8 weights, one scale an output; activations quantised a tensor, so that a row depends on its neighbours."""

    def quantise(model: Denoiser) -> nn.Module:
        wanted = torch.ao.quantization.per_channel_dynamic_qconfig
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a later release without it
            return torch.ao.quantization.quantize_dynamic(model, {"second": wanted, "third": wanted}, inplace=True)

    return _eps(problem, "fp32", quantise)


def _eps(problem: Problem, precision: str, ready: Callable[[Denoiser], Callable[..., Tensor]]) -> Eps:
    dtype = DTYPES[precision]
    function = ready(Denoiser(problem, dtype).eval())

    @cache
    def layer_tables(t: int) -> tuple[Tensor, ...]:
        return tuple(_tensor(row, dtype) for row in problem.layer_tables(t).values())

    @torch.inference_mode()
    def eps(y: np.ndarray, t: int) -> np.ndarray:
        return function(torch.from_numpy(y).to(dtype), *layer_tables(t)).double().numpy()

    return eps


def _tensor(array: np.ndarray, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(np.array(array)).to(dtype)
