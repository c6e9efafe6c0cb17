"""One conditional layer of the denoiser, written for reading.

    out[r, n] = softplus(a[t_r, n] * (sum_k W[n, k] u[r, k] + h[i_r, n]) + c[t_r, n]) * f[i_r, n]

a and c fold the layer's bias b, its embedding E of the time step and its batch normalisation: softplus(BN(E[t] (W u + b)))
with BN(x) = s x + m is softplus(a_t (W u) + c_t) with a_t = s E[t] and c_t = s E[t] b + m.  h is a part of the product
that is constant along a chain (W1_p p of the prior p), and f the image feature.

softplus is PyTorch's: log(1 + exp(x)), and x itself above the threshold of 20.
"""

from __future__ import annotations

import numpy as np


def conditional_layer(
    u: np.ndarray,
    weight: np.ndarray,
    a: np.ndarray,
    c: np.ndarray,
    t: np.ndarray,
    *,
    h: np.ndarray | None = None,
    f: np.ndarray | None = None,
    image: np.ndarray | None = None,
) -> np.ndarray:
    """u [R, K], weight [N, K], a and c [T, N], t int [R], h and f [I, N], image int [R] -> [R, N]."""
    x = u @ weight.T
    if h is not None:
        x = x + h[image]
    x = softplus(a[t] * x + c[t])
    return x if f is None else x * f[image]


def projected_layer(
    u: np.ndarray,
    weight: np.ndarray,
    a: np.ndarray,
    c: np.ndarray,
    t: np.ndarray,
    weight4: np.ndarray,
    bias4: np.ndarray,
    *,
    h: np.ndarray | None = None,
    f: np.ndarray | None = None,
    image: np.ndarray | None = None,
) -> np.ndarray:
    """The layer and the product after it: weight4 [C, N], bias4 [C] -> float64 [R, C], summed in double precision."""
    x = conditional_layer(u, weight, a, c, t, h=h, f=f, image=image)
    return x.astype(np.float64) @ weight4.astype(np.float64).T + bias4


def tangent_layer(
    u: np.ndarray,
    du: np.ndarray,
    weight: np.ndarray,
    a: np.ndarray,
    c: np.ndarray,
    t: np.ndarray,
    *,
    h: np.ndarray | None = None,
    f: np.ndarray | None = None,
    image: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The layer and its forward-mode derivative along D directions: u [R, K], du [R, D, K] -> [R, N], [R, D, N].

    With z = a (W u + h) + c, the derivative of the layer along du is a * sigmoid(z) * (W du) * f.  W is read once for value and
    directions where the product is compiled.
    """
    x = u @ weight.T
    if h is not None:
        x = x + h[image]
    z = a[t] * x + c[t]
    slope = a[t] * sigmoid(z)
    value, tangents = softplus(z), du @ weight.T
    if f is None:
        return value, slope[:, None] * tangents
    return value * f[image], (slope * f[image])[:, None] * tangents


def softplus(x: np.ndarray) -> np.ndarray:
    """log(1 + exp(x)) without overflow; linear above 20."""
    return np.where(x > 20, x, np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))))


def sigmoid(x: np.ndarray) -> np.ndarray:
    """The slope of softplus as PyTorch has it: 1 / (1 + exp(-x)) without overflow, and 1 above 20."""
    e = np.exp(-np.abs(x))
    return np.where(x > 20, np.ones_like(x), np.where(x < 0, e, np.ones_like(x)) / (1 + e))
