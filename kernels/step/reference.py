"""Noise-schedule updates, elementwise on the state.  The state and every coefficient are float64: they are a few numbers a step.

Shapes: y, eps, p, z are [..., C]; the coefficients are scalars of one step.
"""

from __future__ import annotations

import numpy as np

#: Bits after the binary point of the state as the denoiser sees it, by the precision of its weights: as fine as the arithmetic behind it
#: can tell apart.  The final state moved by 4e-7 in float formats and by 2e-4 in integer ones, whose own error is 9e-4 (docs/measured.md).
STATE_BITS = {"fp32": 18, "bf16": 18, "fp16": 18, "int8": 10, "int4": 10}


def on_grid(y: np.ndarray, bits: int | None) -> np.ndarray:
    """float64 y to the nearest multiple of 2^-bits, ties to even; None leaves it alone.

    Adding 1.5 * 2^(52 - bits) leaves no bit below 2^-bits in a double (of values beyond 2^(50 - bits) fewer), and no library has a say.
    """
    if bits is None:
        return y
    shift = 1.5 * 2.0 ** (52 - bits)
    return (y + shift) - shift


def posterior_step(
    y: np.ndarray,
    eps: np.ndarray,
    p: np.ndarray,
    z: np.ndarray,
    *,
    q: float,
    s: float,
    g0: float,
    g1: float,
    g2: float,
    sigma: float,
) -> np.ndarray:
    """One posterior step toward the prior mean p, with noise z.

    y0 = (y - (1 - q) p - s eps) / q;  y' = g0 y0 + g1 y + g2 p + sigma z   (DiffMIC, arXiv 2303.10610, eq. 8-9)
    """
    return g0 * posterior_last_step(y, eps, p, q=q, s=s) + g1 * y + g2 * p + sigma * z


def posterior_last_step(y: np.ndarray, eps: np.ndarray, p: np.ndarray, *, q: float, s: float) -> np.ndarray:
    """The estimate y0 itself, which the chain returns at t = 0."""
    return (y - (1.0 - q) * p - s * eps) / q


def ddim_step(
    y: np.ndarray,
    eps: np.ndarray,
    *,
    sqrt_alpha_bar: float,
    sqrt_one_minus: float,
    sqrt_alpha_bar_prev: float,
    sqrt_one_minus_prev: float,
) -> np.ndarray:
    """One deterministic DDIM step (arXiv 2010.02502, eq. 12, eta = 0), the estimate clamped to [-1, 1].

    x0 = clamp((y - sqrt_one_minus eps) / sqrt_alpha_bar, -1, 1);  y' = sqrt_alpha_bar_prev x0 + sqrt_one_minus_prev eps
    eps is not derived anew from the clamped x0.
    """
    x0 = np.clip((y - sqrt_one_minus * eps) / sqrt_alpha_bar, -1.0, 1.0)
    return sqrt_alpha_bar_prev * x0 + sqrt_one_minus_prev * eps
