"""Arguments for the Triton operations and what they must compute, in float64; for the interpreter and for GPUs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from fusedx.kernels.conditional_layer import formats, reference
from fusedx.kernels.conditional_layer import triton as layer
from fusedx.kernels.conditional_layer.variants import Variant

TORCH = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
#: Unit roundoff of the activations, which the layer's output is rounded to.
UNIT = {"fp32": 2.0**-24, "bf16": 2.0**-9, "fp16": 2.0**-11, "fp8": 2.0**-11}


def activations(dtype: str) -> torch.dtype:
    """The activations' type for a weight format."""
    return TORCH[formats.FORMATS[dtype][1]]


@dataclass(frozen=True)
class Layer:
    """Tensors of one layer, as the launchers take them, and the numbers that they stand for."""

    dtype: str
    u: torch.Tensor
    weight: torch.Tensor
    a: torch.Tensor
    c: torch.Tensor
    t: torch.Tensor
    h: torch.Tensor
    f: torch.Tensor
    image: torch.Tensor
    weight4: torch.Tensor
    values: np.ndarray  # float64 [N, K]: what the weights stand for, the scale in a not included

    @property
    def core(self) -> tuple[torch.Tensor, ...]:
        return self.u, self.weight, self.a, self.c, self.t

    def run(self, variant: Variant, *, conditioned: bool = False, out: torch.Tensor | None = None, rows=slice(None)) -> torch.Tensor:
        """The layer's output for some of the rows, into memory that held not-a-number."""
        u, t, image = self.u[rows], self.t[rows].contiguous(), self.image[rows].contiguous()
        if out is None:
            out = torch.full((len(u), len(self.weight)), float("nan"), dtype=self.u.dtype, device=u.device)
        extra = {"h": self.h, "f": self.f, "image": image} if conditioned else {}
        layer.conditional_layer(u, self.weight, self.a, self.c, t, out=out, variant=variant, **extra)
        return out

    def run_projected(self, variant: Variant, rows=slice(None)) -> torch.Tensor:
        """Partial sums [R, tiles, C] for some of the rows, likewise."""
        u, t = self.u[rows], self.t[rows].contiguous()
        tiles = variant.partial_tiles(len(self.weight))
        partial = torch.full((len(u), tiles, len(self.weight4)), float("nan"), device=u.device)
        layer.projected_layer(u, self.weight, self.a, self.c, t, self.weight4, partial=partial, variant=variant)
        return partial

    def expected(self, dtype: type = np.float64, *, conditioned: bool = False) -> np.ndarray:
        """The reference in ``dtype``: float64 is the truth, float32 the plain computation that a kernel is compared with."""
        u, a, c, h, f = (x.cpu().double().numpy().astype(dtype) for x in (self.u, self.a, self.c, self.h, self.f))
        extra = {"h": h, "f": f, "image": self.image.cpu().numpy()} if conditioned else {}
        return reference.conditional_layer(u, self.values.astype(dtype), a, c, self.t.cpu().numpy(), **extra)

    def expected_tiles(self, tile: int, dtype: type = np.float64) -> np.ndarray:
        """[R, tiles, C]: the last layer's products summed over tiles of ``tile`` outputs."""
        x, w = self.expected(dtype).astype(np.float64), self.weight4.cpu().double().numpy()
        starts = range(0, x.shape[1], tile)
        return np.stack([x[:, s : s + tile] @ w[:, s : s + tile].T for s in starts], axis=1)


def make_layer(rows: int, outputs: int, inputs: int, dtype: str = "fp32", *, classes: int = 7, device: str = "cpu") -> Layer:
    """Random tensors, every row of a time step and an image of its own as far as they reach."""
    rng = np.random.default_rng([rows, outputs, inputs, classes])
    steps, images = 5, 3

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32)

    def tensor(x: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(x)).to(device)

    stored = formats.store(normal(outputs, inputs) / np.float32(inputs**0.5), dtype)
    bits = tensor(stored.bits)
    scale = np.float32(1) if stored.scale is None else stored.scale
    # What a kernel reads: e4m3 as value * 2^-8.  The rest of its worth is in a, and h is in the same units.
    values = formats.e4m3_as_fp16(stored.bits) if dtype == "fp8" else formats.value(stored, dtype)
    return Layer(
        dtype=dtype,
        u=tensor(normal(rows, inputs)).to(activations(dtype)),
        weight=bits.view(torch.bfloat16) if dtype == "bf16" else bits,
        a=tensor(normal(steps, outputs) * scale),
        c=tensor(normal(steps, outputs)),
        t=tensor(rng.integers(0, steps, rows).astype(np.int32)),
        h=tensor(normal(images, outputs) / scale),
        f=tensor(normal(images, outputs)),
        image=tensor(rng.integers(0, images, rows).astype(np.int32)),
        weight4=tensor(normal(classes, outputs)),
        values=values.astype(np.float64),
    )


def assert_near(got: torch.Tensor, truth: np.ndarray, plain: np.ndarray, unit: float, floor: float = 1e-6) -> None:
    """Error at most twice that of the plain fp32 computation, plus the rounding of the output, plus a floor; says where if not."""
    got_64 = got.cpu().double().numpy()
    assert got_64.shape == truth.shape
    scale = np.abs(truth).max()
    allowed = 2 * np.abs(plain - truth).max() + 2 * unit * np.abs(truth) + floor * scale
    error = np.abs(got_64 - truth)
    wrong = np.argwhere(~(error <= allowed))
    if len(wrong):
        at = tuple(wrong[0])
        where = dict(zip(("row", "output or tile", "class"), map(int, at), strict=False))
        raise AssertionError(f"{len(wrong)} of {error.size} wrong, first at {where}: expected {truth[at]}, got {got_64[at]}")
