"""The chain kernel's plan in plain numpy: the same parts, the same order of every sum, one block after another.

Written to be read beside ``chain.cuh`` and to be compared with it: the kernel, compiled for a CPU, gives these very bits.  On a GPU
the tensor core may round the sixteen products of one mma in another order; everything else is fixed.

Arrays as the kernel reads them: packed weights, tables of row stride K, R rows, C classes, T steps, M conditions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from fusedx.kernels.chain.layout import TILE, WARPS
from fusedx.kernels.chain.pack import unpack_weight
from fusedx.kernels.chain.plan import ChainPlan

#: Where the k-th product of a tensor core step lies among its 16 inputs (format.cuh permutes them).
MMA_ORDER = [4 * q + 2 * pair + i for pair in range(2) for q in range(4) for i in range(2)]


@dataclass(frozen=True, slots=True)
class ChainInputs:
    """What ``params.cuh`` points at.  float32 unless said otherwise.

    weight: packed uint8, layers 2 and 3; scale, shift: three of [table rows, K]; weight_y, weight4 [C, K]; bias4 float64 [C];
    constant, feature [M, K]; entry int32 [R]; table_row int32 [T]; coefficients float64 [table rows, 6]; mean float64 [M, C] or
    None; noise float64 [T, R, C] or None (DDIM); start float64 [R, C].
    """

    weight: tuple[np.ndarray, np.ndarray]
    scale: tuple[np.ndarray, np.ndarray, np.ndarray]
    shift: tuple[np.ndarray, np.ndarray, np.ndarray]
    weight_y: np.ndarray
    weight4: np.ndarray
    bias4: np.ndarray
    constant: np.ndarray
    feature: np.ndarray
    entry: np.ndarray
    table_row: np.ndarray
    coefficients: np.ndarray
    mean: np.ndarray | None
    noise: np.ndarray | None
    start: np.ndarray


def chain(plan: ChainPlan, x: ChainInputs, *, family: str = "posterior") -> Iterator[np.ndarray]:
    """The state float64 [R, C] after each step; family "posterior" or "ddim"."""
    weights = [values(plan.format.name, unpack_weight(w, plan.format.name, plan.shape.feature_dim)) for w in x.weight]
    y = x.start
    for step, t in enumerate(x.table_row):
        u = first_layer(plan, x, y.astype(np.float32), t)
        u = second_layer(plan, x, weights[0], u, t)
        partial = third_layer(plan, x, weights[1], u, t)
        eps = x.bias4 + sum_tiles(partial)
        y = update(x, y, eps, step, ddim=family == "ddim")
        yield y


def first_layer(plan: ChainPlan, x: ChainInputs, y: np.ndarray, t: int) -> np.ndarray:
    """y [R, C] -> activations [R, K], by every block."""
    total = np.zeros((len(y), plan.shape.k), np.float32)
    for c in range(y.shape[1]):
        total = fma(x.weight_y[c], y[:, c, None], total)
    out = softplus(fma(x.scale[0][t], total + x.constant[x.entry], x.shift[0][t])) * x.feature[x.entry]
    return rounded(plan.format.name, out)


def second_layer(plan: ChainPlan, x: ChainInputs, weight: np.ndarray, u: np.ndarray, t: int) -> np.ndarray:
    """Activations [R, K] -> [R, K], each block its tiles; zero beyond the last tile, as gather_hidden leaves it."""
    hidden = np.zeros_like(u)
    hidden[:, : plan.shape.tiles * TILE] = np.nan
    for outputs in shares(plan):
        sums = tile_sums(plan, weight[outputs], u)
        hidden[:, outputs] = rounded(plan.format.name, softplus(fma(x.scale[1][t, outputs], sums, x.shift[1][t, outputs])))
    return hidden


def third_layer(plan: ChainPlan, x: ChainInputs, weight: np.ndarray, u: np.ndarray, t: int) -> np.ndarray:
    """Activations [R, K] -> partial layer 4, [R, C, tiles]."""
    partial = np.full((len(u), len(x.weight4), plan.shape.tiles), np.nan, np.float32)
    for outputs in shares(plan):
        sums = tile_sums(plan, weight[outputs], u)
        u3 = softplus(fma(x.scale[2][t, outputs], sums, x.shift[2][t, outputs])).reshape(len(u), 1, -1, TILE)
        w4 = x.weight4[:, outputs].reshape(len(x.weight4), -1, TILE)
        total = np.zeros_like(partial[:, :, outputs.start // TILE : outputs.stop // TILE])
        for n in range(TILE):
            total = fma(w4[..., n], u3[..., n], total)
        partial[:, :, outputs.start // TILE : outputs.stop // TILE] = total
    return partial


def shares(plan: ChainPlan) -> Iterator[slice]:
    """Outputs of each block."""
    tiles, blocks = plan.shape.tiles, plan.blocks
    for block in range(blocks):
        yield slice(block * tiles // blocks * TILE, (block + 1) * tiles // blocks * TILE)


def tile_sums(plan: ChainPlan, weight: np.ndarray, u: np.ndarray) -> np.ndarray:
    """weight [N, K], u [R, K] -> [R, N]: each warp its eighth of K, step by step; the warps' parts in ascending order."""
    multiply = _fma_steps if plan.format.name == "fp32" else _mma_steps
    parts = multiply(weight.reshape(len(weight), WARPS, -1), u.reshape(len(u), 1, WARPS, -1))  # [R, N, 8]
    total = parts[..., 0]
    for warp in range(1, WARPS):
        total = total + parts[..., warp]
    return total


def _mma_steps(w: np.ndarray, u: np.ndarray) -> np.ndarray:
    total = np.zeros((len(u), *w.shape[:2]), np.float32)
    for step in range(0, w.shape[-1], 16):
        for k in MMA_ORDER:
            total = total + w[..., step + k] * u[..., step + k]  # exact products of 8- or 11-bit mantissas
    return total


def _fma_steps(w: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Two lanes an output, four inputs in turn each."""
    lanes = [np.zeros((len(u), *w.shape[:2]), np.float32) for _ in range(2)]
    for step in range(0, w.shape[-1], 8):
        for half in range(2):
            for k in range(step + 4 * half, step + 4 * half + 4):
                lanes[half] = fma(w[..., k], u[..., k], lanes[half])
    return lanes[0] + lanes[1]


def sum_tiles(partial: np.ndarray) -> np.ndarray:
    """[R, C, tiles] -> float64 [R, C]: 32 lanes in turn, then lanes 16, 8, 4, 2, 1 apart."""
    short = -partial.shape[-1] % 32
    lanes = np.zeros((*partial.shape[:-1], 32))
    padded = np.pad(partial.astype(np.float64), ((0, 0), (0, 0), (0, short)))
    for first in range(0, padded.shape[-1], 32):
        lanes = lanes + padded[..., first : first + 32]
    for mask in (16, 8, 4, 2, 1):
        lanes = lanes + lanes[..., np.arange(32) ^ mask]
    return lanes[..., 0]


def update(x: ChainInputs, y: np.ndarray, eps: np.ndarray, step: int, *, ddim: bool) -> np.ndarray:
    """One step of the state; formulas: kernels/step/reference.py."""
    k = x.coefficients[x.table_row[step]]
    if ddim:
        x0 = np.clip((y - k[1] * eps) / k[0], -1.0, 1.0)
        return k[2] * x0 + k[3] * eps
    mean = 0.0 if x.mean is None else x.mean[x.entry]
    y0 = (y - (1.0 - k[0]) * mean - k[1] * eps) / k[0]
    if step == len(x.table_row) - 1:
        return y0
    assert x.noise is not None
    return k[2] * y0 + k[3] * y + k[4] * mean + k[5] * x.noise[step + 1]


def values(name: str, stored: np.ndarray) -> np.ndarray:
    """What stored weights are worth as the kernel multiplies them, float32: e4m3 as its value times 2^-8."""
    if name == "bf16":
        return (stored.astype(np.uint32) << 16).view(np.float32)
    if name == "fp8":
        bits = stored.astype(np.uint16)
        stored = ((bits & 0x80) << 8 | (bits & 0x7F) << 7).view(np.float16)
    return stored.astype(np.float32)


def rounded(name: str, x: np.ndarray) -> np.ndarray:
    """float32 -> the activation format and back."""
    if name == "fp32":
        return x
    if name != "bf16":
        return x.astype(np.float16).astype(np.float32)
    bits = x.view(np.uint32)
    return np.where(np.isnan(x), x, ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32))


def fma(a: ArrayLike, b: ArrayLike, c: ArrayLike) -> np.ndarray:
    """a b + c in float32, rounded once but for ties that double precision makes, one in 2^29."""
    return np.add(np.multiply(a, b, dtype=np.float64), c).astype(np.float32)


def softplus(x: np.ndarray) -> np.ndarray:
    """softplus.cuh, operation by operation."""
    f32 = np.float32
    minus = -np.abs(x)
    return np.where(x > 0, x, f32(0)) + _log1p_unit(_exp_negative(np.where(minus < -87, f32(-87), minus)))


def _exp_negative(z: np.ndarray) -> np.ndarray:
    f32 = np.float32
    n = fma(z, f32(1.44269504), f32(12582912)) - f32(12582912)
    r = fma(n, f32(2.12194440e-4), fma(n, f32(-0.693359375), z))
    p = np.full_like(r, 1 / 5040)
    for coefficient in (720, 120, 24, 6):
        p = fma(p, r, f32(1) / f32(coefficient))
    p = fma(p, r, f32(0.5))
    return np.ldexp(fma(r * r, p, r) + f32(1), np.nan_to_num(n).astype(np.int32))


def _log1p_unit(e: np.ndarray) -> np.ndarray:
    f32 = np.float32
    large = e > f32(0.41421356)
    f = np.where(large, fma(f32(0.5), e, f32(-0.5)), e)
    p = np.full_like(f, 7.0376836292e-2)
    for coefficient in (-1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1, 2.0000714765e-1,
                        -2.4999993993e-1, 3.3333331174e-1):
        p = fma(p, f, f32(coefficient))
    z = f * f
    tail = fma(z * f, p, f32(-0.5) * z)
    return np.where(large, f32(0.693359375) + (f + (tail + f32(-2.12194440e-4))), f + tail)
