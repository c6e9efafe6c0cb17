"""The parallel sampler between two evaluations, in Triton: many steps of a chain at once, the sequential chain's bits as the result.

A chain of T steps has a *front*: the states up to it are known to be the sequential chain's.  A *sweep* evaluates eps for a window of W
steps a chain from guesses of their states.  Then, chain by chain:

    collect   keep each row's eps, and the grid values g that it was evaluated at
    advance   from the front: while the step's kept eps was evaluated at exactly the grid values of its state, take it and move on;
              guess the states of the steps behind, and hand the first W of them that need evaluating to the next sweep

The first step that a sweep evaluates is always exact, so each sweep moves each front by one step at least; a guess decides how far
fronts move and never what a state is.  Prior art: ParaDiGMS (arXiv 2305.16317); speculation on exact values is this engine's own.

A guess of eps at step i, where it was last evaluated, or for a new step at the last one evaluated, j, from (y_j, eps_j):

    y0 = (y_j - (1 - q_j) p - s_j eps_j) / q_j
    e  = (1 - l) eps_j + l (y - (1 - q_i) p - q_i y0) / s_i

l = 0 holds eps and l = 1 holds the estimate y0; l is fitted to how eps changed in the last sweeps, s (d eps . d y) / |d y|^2 on average.
e is affine in y, and so is a posterior step: the guesses of a window are one scan of affine maps.  A DDIM step clamps: its guesses hold
eps and are walked one by one; there are few.

R chains, W rows of a sweep each, C classes, T steps.  The current CUDA device must be that of the tensors, and the current stream
orders the launches.  Nothing here waits for the device.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from fusedx.kernels.speculation import AHEAD
from fusedx.kernels.speculation.guess_triton import guess_posterior, held_rows
from fusedx.kernels.speculation.memory import Speculation
from fusedx.kernels.step import COEFFICIENTS
from fusedx.kernels.step.triton import Update, moved, on_grid, total
from fusedx.kernels.tensor_arguments import check

#: Changes of a state below this say nothing about the slope of eps; weight that the slope's past keeps with each sweep.
_LEAST_CHANGE, _MEMORY = tl.constexpr(1e-4), tl.constexpr(0.5)


#: Numbers that one program guesses: more of them would not stay in its registers.
_MOST_GUESSES = 1024


@triton.jit
def _collect_kernel(
    partial,  # f32 [R W, tiles, CLASSES]
    bias4,  # f64 [CLASSES]
    coefficients,  # f64 [T, 6 or 4]
    step,  # i32 [R W], of the chain; -1 where the row is idle
    t,  # i32 [R W], row of the tables
    y,  # f64 [R W, CLASSES], on the grid
    evaluated,  # i32 [R]: steps that have been evaluated
    at,  # f64 [T, R, CLASSES]
    eps,  # f64 [T, R, CLASSES]
    slope,  # f64 [R W, 2]: 1 and the slope that this row saw, or zeros
    chains,
    tiles,
    WINDOW: tl.constexpr,
    COLUMNS: tl.constexpr,
    CLASSES: tl.constexpr,
    PADDED_CLASSES: tl.constexpr,
    PADDED_TILES: tl.constexpr,
):
    row = tl.program_id(0)
    i = tl.load(step + row)
    if i >= 0:
        k = tl.arange(0, PADDED_CLASSES)
        real = k < CLASSES
        now = total(partial, bias4, row, tiles, CLASSES, PADDED_CLASSES, PADDED_TILES)
        g = tl.load(y + row * CLASSES + k, mask=real, other=0.0)
        chain = row // WINDOW
        again = i < tl.load(evaluated + chain)
        place = (i * chains + chain) * CLASSES + k
        dy = g - tl.load(at + place, mask=real & again, other=0.0)
        change = now - tl.load(eps + place, mask=real & again, other=0.0)
        s = tl.load(coefficients + tl.load(t + row) * COLUMNS + 1)
        seen = s * tl.sum(change * dy, axis=0) / tl.sum(dy * dy, axis=0)
        moved_enough = tl.max(tl.abs(dy), axis=0) > _LEAST_CHANGE
        use = again & moved_enough & (seen > -10.0) & (seen < 10.0)  # no not-a-number either
        tl.store(slope + row * 2, tl.where(use, 1.0, 0.0))
        tl.store(slope + row * 2 + 1, tl.where(use, seen, 0.0))
        tl.store(at + place, g, mask=real)
        tl.store(eps + place, now, mask=real)
    else:
        tl.store(slope + row * 2, 0.0)
        tl.store(slope + row * 2 + 1, 0.0)


@triton.jit
def _differ(a, b):
    """Where two values on the grid differ; a not-a-number is like another, so that a chain of them ends."""
    return (a != b) & ((a == a) | (b == b))


@triton.jit
def _kept(at, i, evaluated, chains, chain, CLASSES: tl.constexpr, PADDED_CLASSES: tl.constexpr):
    """The grid values that step i was last evaluated at; zeros where it was not."""
    k = tl.arange(0, PADDED_CLASSES)
    return tl.load(at + (i * chains + chain) * CLASSES + k, mask=(k < CLASSES) & (i < evaluated), other=0.0)


@triton.jit
def _holds(kept, y, i, evaluated, BITS: tl.constexpr, CLASSES: tl.constexpr, PADDED_CLASSES: tl.constexpr):
    """Whether step i's eps was evaluated at exactly what the denoiser sees of y."""
    real = tl.arange(0, PADDED_CLASSES) < CLASSES
    return (i < evaluated) & (tl.sum(tl.where(real & _differ(on_grid(y, BITS), kept), 1, 0), axis=0) == 0)


@triton.jit
def _noise(noise, i, steps, chains, chain, CLASSES: tl.constexpr, PADDED_CLASSES: tl.constexpr):
    """The draw that step i adds, zeros where there is none."""
    k = tl.arange(0, PADDED_CLASSES)
    if noise is None:
        return tl.zeros((PADDED_CLASSES,), tl.float64)
    else:
        return tl.load(noise + ((i + 1) * chains + chain) * CLASSES + k, mask=(k < CLASSES) & (i + 1 < steps), other=0.0)


@triton.jit
def _advance_kernel(
    states,  # f64 [T+1, R, CLASSES]
    at,  # f64 [T, R, CLASSES]
    eps,  # f64 [T, R, CLASSES]
    progress,  # i32 [R, 3]: front, sweeps, rows evaluated
    evaluated,  # i32 [R]
    fit,  # f64 [R, 2]: weight and weighted sum of the slopes seen
    slope,  # f64 [R W, 2]
    step,  # i32 [R W]
    t,  # i32 [R W]
    y_next,  # f64 [R W, CLASSES]
    coefficients,  # f64 [T, 6 or 4]
    order,  # i32 [T]: row of the tables that each step uses
    mean,  # f64 [I, CLASSES] or None for zeros
    image,  # i32 [R]
    noise,  # f64 [T, R, CLASSES]; None for ddim
    steps,
    chains,
    FAMILY: tl.constexpr,
    BITS: tl.constexpr,
    WINDOW: tl.constexpr,
    STEPS: tl.constexpr,  # that are guessed
    CLASSES: tl.constexpr,
    PADDED_CLASSES: tl.constexpr,
):
    chain = tl.program_id(0)
    k = tl.arange(0, PADDED_CLASSES)
    real = k < CLASSES
    w = tl.arange(0, WINDOW)
    rows = chain * WINDOW + w
    known = tl.maximum(tl.load(evaluated + chain), tl.max(tl.load(step + rows), axis=0) + 1)
    tl.store(evaluated + chain, known)

    seen = tl.sum(tl.load(slope + rows * 2), axis=0)
    weight = tl.load(fit + chain * 2)
    total_slope = tl.load(fit + chain * 2 + 1)
    if seen > 0.0:
        weight = _MEMORY * weight + seen
        total_slope = _MEMORY * total_slope + tl.sum(tl.load(slope + rows * 2 + 1), axis=0)
        tl.store(fit + chain * 2, weight)
        tl.store(fit + chain * 2 + 1, total_slope)
    blend = tl.where(weight > 0.0, total_slope / tl.where(weight > 0.0, weight, 1.0), 0.0)
    blend = tl.minimum(tl.maximum(blend, -0.5), 1.5)

    if mean is None:
        p = tl.zeros((PADDED_CLASSES,), tl.float64)
    else:
        p = tl.load(mean + tl.load(image + chain) * CLASSES + k, mask=real, other=0.0)

    i = tl.load(progress + chain * 3)
    y = tl.load(states + (i * chains + chain) * CLASSES + k, mask=real, other=0.0)
    kept = _kept(at, i, known, chains, chain, CLASSES, PADDED_CLASSES)
    holds = _holds(kept, y, i, known, BITS, CLASSES, PADDED_CLASSES)
    while holds:  # all of a step's reads before its arithmetic: one wait for memory a step
        kept = _kept(at, i + 1, known, chains, chain, CLASSES, PADDED_CLASSES)
        e = tl.load(eps + (i * chains + chain) * CLASSES + k, mask=real, other=0.0)
        z = _noise(noise, i, steps, chains, chain, CLASSES, PADDED_CLASSES)
        y = moved(y, e, coefficients, tl.load(order + i), p, z, i + 1 == steps, FAMILY)
        i += 1
        tl.store(states + (i * chains + chain) * CLASSES + k, y, mask=real)
        holds = _holds(kept, y, i, known, BITS, CLASSES, PADDED_CLASSES)
    tl.store(progress + chain * 3, i)

    if FAMILY == "posterior":
        guess = guess_posterior(
            y, i, blend, at, eps, coefficients, order, p, noise, known, steps, chains, chain, STEPS, CLASSES, PADDED_CLASSES
        )
        g = on_grid(guess, BITS)
        j = tl.arange(0, STEPS)
        n = i + j
        held = held_rows(at, tl.where(n < known, n, -1), chains, chain, CLASSES, PADDED_CLASSES)
        misses = tl.sum(tl.where(real[None, :] & _differ(g, held), 1, 0), axis=1)
        needed = (n < steps) & ((j == 0) | (n >= known) | (misses > 0))
        place = tl.cumsum(needed.to(tl.int32), axis=0) - 1
        chosen = needed & (place < WINDOW)
        count = tl.sum(chosen.to(tl.int32), axis=0)
        row = chain * WINDOW + place
        tl.store(step + row, n, mask=chosen)
        tl.store(t + row, tl.load(order + n, mask=chosen, other=0), mask=chosen)
        tl.store(y_next + row[:, None] * CLASSES + k[None, :], g, mask=chosen[:, None] & real[None, :])
    else:
        count = 0
        n = i
        while (n < steps) & (count < WINDOW) & (n < i + STEPS):
            kept = _kept(at, n, known, chains, chain, CLASSES, PADDED_CLASSES)
            held = _holds(kept, y, n, known, BITS, CLASSES, PADDED_CLASSES)
            own = tl.load(order + n)
            if not held:
                row = chain * WINDOW + count
                tl.store(step + row, n)
                tl.store(t + row, own)
                tl.store(y_next + row * CLASSES + k, on_grid(y, BITS), mask=real)
                count += 1
            j = tl.minimum(n, known - 1)
            here = real & (j >= 0)
            source = tl.maximum(j, 0)
            e = tl.load(eps + (source * chains + chain) * CLASSES + k, mask=here, other=0.0)
            e = tl.where(tl.abs(e) < 1e30, e, 0.0)
            y = moved(y, e, coefficients, own, p, p, False, FAMILY)
            n += 1
    tl.store(step + rows, -1, mask=w >= count)
    if count > 0:
        tl.store(progress + chain * 3 + 1, tl.load(progress + chain * 3 + 1) + 1)
        tl.store(progress + chain * 3 + 2, tl.load(progress + chain * 3 + 2) + count)


def collect(s: Speculation, update: Update) -> None:
    """After the layers have run on s.y, s.t: keep their eps.  ``update.partial`` float32 [R W, tiles, C]; its mean is not used."""
    rows, classes = s.y.shape
    _check(s, update, rows)
    tiles = update.partial.shape[1]
    _collect_kernel[(rows,)](
        update.partial, update.bias4, update.coefficients, s.step, s.t, s.y, s.evaluated, s.at, s.eps, s.slope,
        s.evaluated.shape[0], tiles, **collect_tiling(s.window, classes, tiles, update.family),
    )  # fmt: skip


def advance(s: Speculation, update: Update, *, order: torch.Tensor, image: torch.Tensor, noise: torch.Tensor | None) -> None:
    """Move the fronts and choose the next sweep's rows.

    order int32 [T]; image int32 [R], of each chain; noise float64 [T,R,C], entry i+1 being added at step i, None for ddim.
    """
    steps, chains, classes = s.at.shape
    device = s.y.device
    _check(s, update, len(s.y))
    check("order", order, (steps,), (torch.int32,), device)
    check("image", image, (chains,), (torch.int32,), device)
    if (noise is None) != (update.family == "ddim"):
        raise ValueError("noise: a posterior chain needs float64 [T, R, C]" if noise is None else "noise: a ddim chain takes none")
    if noise is not None:
        check("noise", noise, (steps, chains, classes), (torch.float64,), device)
    _advance_kernel[(chains,)](
        s.states, s.at, s.eps, s.progress, s.evaluated, s.fit, s.slope, s.step, s.t, s.y, update.coefficients, order, update.mean,
        image, noise, steps, chains, FAMILY=update.family, BITS=s.bits, **advance_tiling(s.window, classes),
    )  # fmt: skip


def _check(s: Speculation, update: Update, rows: int) -> None:
    update.check(rows, s.y.shape[1], s.y.device)
    if len(update.coefficients) != len(s.at):
        raise ValueError(f"coefficients: expected a row for each of {len(s.at)} steps, got {len(update.coefficients)}")


def collect_tiling(window: int, classes: int, tiles: int, family: str) -> dict[str, int | bool]:
    """Sizes and compiler options of the collecting kernel."""
    return {
        "WINDOW": window,
        "COLUMNS": len(COEFFICIENTS[family]),
        "CLASSES": classes,
        "PADDED_CLASSES": max(2, triton.next_power_of_2(classes)),
        "PADDED_TILES": max(2, triton.next_power_of_2(tiles)),
        "num_warps": 4,
        "enable_fp_fusion": False,
    }


def advance_tiling(window: int, classes: int) -> dict[str, int | bool]:
    """The same of the advancing kernel: the accepted states' operations are the sequential chain's, each rounded."""
    padded = max(2, triton.next_power_of_2(classes))
    steps = max(window, min(AHEAD * window, _MOST_GUESSES // padded))
    return {
        "WINDOW": window,
        "STEPS": steps,
        "CLASSES": classes,
        "PADDED_CLASSES": padded,
        "num_warps": max(4, steps * padded // 128),  # four guesses a thread at most, which fit in its registers
        "enable_fp_fusion": False,
    }
