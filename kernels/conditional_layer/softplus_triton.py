"""softplus(x) = log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|)) for the Triton kernels, in fp32 to about two units in the last place.

Only + * fma and the hardware's 2^x: no external library, so it runs under Triton's interpreter too.  The fused operations are
spelled out, so that the bits do not hang on what the compiler contracts.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.44269502162933349609375)  # 1 / ln 2 rounded to fp32
LOG2E_REST = tl.constexpr(1.925963033500011e-08)  # 1 / ln 2 - LOG2E
LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def softplus(x):
    """fp32 of any shape.  Not-a-number stays not-a-number.

    Above 20 PyTorch returns x itself; so does this, since log1p(exp(-20)) = 2e-9 is less than half a unit of 20.
    """
    # -87: its exponential, 1.6e-38, is the last comfortably normal float; it also keeps infinity out of exp_negative.
    tail = log1p_unit(exp_negative(tl.maximum(-tl.abs(x), -87.0)))
    return tl.where(x < 0.0, 0.0, x) + tail  # not maximum(x, 0), which drops a not-a-number


@triton.jit
def exp_negative(z):
    """exp(z) for z in [-87, 0]: 2^p (1 + d ln 2) with p + d = z / ln 2, so that the rounding of p costs nothing."""
    p = z * LOG2E
    d = tl.fma(z, LOG2E_REST, tl.fma(z, LOG2E, -p))
    e = tl.exp2(p)
    return tl.fma(e, d * LN2, e)


@triton.jit
def log1p_unit(e):
    """log(1 + e) for e in [0, 1]: e + e^2 g(e), g the polynomial through (log1p(e) - e) / e^2 at nine Chebyshev nodes of [0, 1].

    Its error is 2.3e-8 of log1p(e); the leading term carries no rounding error.
    """
    g = -0.004466211423277855
    g = tl.fma(e, g, 0.025224054232239723)
    g = tl.fma(e, g, -0.06675772368907928)
    g = tl.fma(e, g, 0.11561845242977142)
    g = tl.fma(e, g, -0.15847565233707428)
    g = tl.fma(e, g, 0.198541060090065)
    g = tl.fma(e, g, -0.24986526370048523)
    g = tl.fma(e, g, 0.3333284258842468)
    g = tl.fma(e, g, -0.4999999701976776)
    return tl.fma(e * g, e, e)
