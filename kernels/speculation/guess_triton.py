"""Guesses of a posterior chain's states, a whole window at once: see triton.py for the formulas."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _compose(scale, shift, next_scale, next_shift):
    """y -> next_scale (scale y + shift) + next_shift."""
    return scale * next_scale, next_scale * shift + next_shift


@triton.jit
def held_rows(values, source, chains, chain, CLASSES: tl.constexpr, PADDED_CLASSES: tl.constexpr):
    """Rows [len(source), PADDED_CLASSES] of at or eps for a vector of steps; zeros for a step below zero."""
    k = tl.arange(0, PADDED_CLASSES)[None, :]
    mask = (source >= 0)[:, None] & (k < CLASSES)
    return tl.load(values + (source[:, None] * chains + chain) * CLASSES + k, mask=mask, other=0.0)


@triton.jit
def guess_posterior(
    y, i, blend, at, eps, coefficients, order, p, noise, evaluated, steps, chains, chain,
    STEPS: tl.constexpr, CLASSES: tl.constexpr, PADDED_CLASSES: tl.constexpr,
):  # fmt: skip
    """[STEPS, PADDED_CLASSES]: the state y of step i, and guesses of the states of the steps behind it."""
    j = tl.arange(0, STEPS)
    k = tl.arange(0, PADDED_CLASSES)[None, :]
    n = i + j - 1  # the step that leads to state j
    inside = (j > 0) & (n < steps)
    own = coefficients + tl.load(order + n, mask=inside, other=0) * 6
    q = tl.load(own, mask=inside, other=1.0)
    s = tl.load(own + 1, mask=inside, other=1.0)
    g0 = tl.load(own + 2, mask=inside, other=0.0)
    g1 = tl.load(own + 3, mask=inside, other=0.0)
    g2 = tl.load(own + 4, mask=inside, other=0.0)
    sigma = tl.load(own + 5, mask=inside, other=0.0)
    drawn = (inside & (n + 1 < steps))[:, None] & (k < CLASSES)
    draw = tl.load(noise + ((n[:, None] + 1) * chains + chain) * CLASSES + k, mask=drawn, other=0.0)

    source = tl.where(inside, tl.minimum(n, evaluated - 1), -1)  # whose eps is held, -1 for none
    known = source >= 0
    theirs = coefficients + tl.load(order + source, mask=known, other=0) * 6
    q_j = tl.load(theirs, mask=known, other=1.0)[:, None]
    s_j = tl.load(theirs + 1, mask=known, other=0.0)[:, None]
    e = held_rows(eps, source, chains, chain, CLASSES, PADDED_CLASSES)
    e = tl.where(tl.abs(e) < 1e30, e, 0.0)  # an overflow in one guess must not spoil those behind it
    y_j = held_rows(at, source, chains, chain, CLASSES, PADDED_CLASSES)
    mean = p[None, :]
    y0 = (y_j - (1.0 - q_j) * mean - s_j * e) / q_j
    blend = tl.where(known & (s > 0.0), blend, 0.0)
    e = (1.0 - blend)[:, None] * e - (blend / tl.where(s > 0.0, s, 1.0))[:, None] * ((1.0 - q)[:, None] * mean + q[:, None] * y0)
    scale = tl.where(inside, g0 * (1.0 - blend) / q + g1, 1.0)
    shift = g2[:, None] * mean + sigma[:, None] * draw - (g0 / q)[:, None] * ((1.0 - q)[:, None] * mean + s[:, None] * e)
    shift = tl.where(inside[:, None], shift, 0.0)
    scales, shifts = tl.associative_scan((tl.broadcast_to(scale[:, None], shift.shape), shift), 0, _compose)
    return tl.where(j[:, None] == 0, y[None, :], scales * y[None, :] + shifts)
