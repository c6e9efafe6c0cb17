"""The sampling loop: prior, feature, noise, steps, prediction.

Two chains, each readable alone.  Rows are (draw, image) pairs for DiffMIC and (draw, image, map point) triples for DiffMIC-v2;
all of them share every evaluation of the denoiser.  The state and every coefficient are float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fusedx.engine.backends import Denoiser
from fusedx.engine.manifest import MAP_POINTS
from fusedx.engine.schedule import DDIMCoefficients, PosteriorCoefficients
from fusedx.kernels.step import ddim_step, posterior_last_step, posterior_step

#: |i-j| takes six values on the 6x6 map; how many of the 36 points have each.
DISTANCE = np.abs(np.subtract.outer(np.arange(MAP_POINTS), np.arange(MAP_POINTS)))
POINT_COUNTS = np.bincount(DISTANCE.ravel())


@dataclass(frozen=True, slots=True)
class Chains:
    """Result of D draws for each of B images.

    scores float64 [D,B,C]: the final state (v2: its mean over the 36 map points).
    states float64 [S,D,B,C] (v1) or [S,D,B,6,C] (v2, by distance |i-j|): the start and, if kept, the state after every step;
    otherwise the start and the end alone.
    """

    scores: np.ndarray
    states: np.ndarray


def posterior_chain(
    denoiser: Denoiser,
    k: PosteriorCoefficients,
    prior: np.ndarray,
    feature: np.ndarray,
    noise: np.ndarray,
    *,
    noise_prior: bool = False,
    keep: bool = False,
) -> Chains:
    """DiffMIC.  prior float64 [B,C], feature [B,F], noise float64 [T,D,B,C]: noise[0] starts, noise[i] is used at t = T-i.

    ``noise_prior``: the chain's mean is zero instead of the prior, which the denoiser still sees.
    """
    steps, draws, images, classes = noise.shape
    condition = denoiser.condition(prior, feature)
    entry = np.tile(np.arange(images, dtype=np.int32), draws)
    mean = np.zeros_like(prior) if noise_prior else prior

    y = mean + noise[0]
    states = [y]
    for t in range(steps - 1, -1, -1):
        step = np.full(draws * images, t, np.int32)
        eps = denoiser.eps(y.reshape(-1, classes), step, condition, entry).reshape(y.shape)
        if t > 0:
            z = noise[steps - t]
            y = posterior_step(y, eps, mean, z, q=k.q[t], s=k.s[t], g0=k.g0[t], g1=k.g1[t], g2=k.g2[t], sigma=k.sigma[t])
        else:
            y = posterior_last_step(y, eps, mean, q=k.q[0], s=k.s[0])
        if keep or t == 0:
            states.append(y)
    return Chains(scores=y, states=np.stack(states))


def ddim_chain(
    denoiser: Denoiser,
    k: DDIMCoefficients,
    y_global: np.ndarray,
    y_local: np.ndarray,
    feature: np.ndarray,
    noise: np.ndarray,
    *,
    keep: bool = False,
) -> Chains:
    """DiffMIC-v2.  y_global, y_local float64 [B,C] (logits), feature [B,F], noise [2,D,B,C] = (u_global, u_local).

    The prior map and the start map depend on |i-j| alone and every layer is pointwise, so six points stand for thirty-six.
    """
    _, draws, images, classes = noise.shape
    prior = dense_points(y_global, y_local)
    condition = denoiser.condition(prior.reshape(-1, classes), np.repeat(feature, MAP_POINTS, axis=0))
    entry = np.tile(np.arange(images * MAP_POINTS, dtype=np.int32), draws)

    y = dense_points(noise[0], noise[1])
    states = [y]
    for i in range(len(k.timesteps)):
        step = np.full(entry.size, i, np.int32)
        eps = denoiser.eps(y.reshape(-1, classes), step, condition, entry).reshape(y.shape)
        y = ddim_step(
            y,
            eps,
            sqrt_alpha_bar=k.sqrt_alpha_bar[i],
            sqrt_one_minus=k.sqrt_one_minus[i],
            sqrt_alpha_bar_prev=k.sqrt_alpha_bar_prev[i],
            sqrt_one_minus_prev=k.sqrt_one_minus_prev[i],
        )
        if keep or i == len(k.timesteps) - 1:
            states.append(y)
    return Chains(scores=map_mean(y), states=np.stack(states))


def dense_points(at_zero: np.ndarray, at_one: np.ndarray) -> np.ndarray:
    """[...,C], [...,C] -> [...,6,C]: (1-d) a + d b for d = 0, 1/5 .. 1; d and 1-d are float32 values, as published."""
    d = (np.arange(MAP_POINTS, dtype=np.float32) / np.float32(MAP_POINTS - 1))[:, None]
    near, far = (np.float32(1) - d).astype(np.float64), d.astype(np.float64)
    return near * at_zero[..., None, :] + far * at_one[..., None, :]


def map_mean(points: np.ndarray) -> np.ndarray:
    """[...,6,C] -> [...,C]: mean over the 36 points of the map, summed in a fixed order."""
    total = np.zeros_like(points[..., 0, :])
    for distance, count in enumerate(POINT_COUNTS):
        total = total + count * points[..., distance, :]
    return total / POINT_COUNTS.sum()


def dense_map(points: np.ndarray) -> np.ndarray:
    """[...,6,C] -> the whole map [...,C,6,6]."""
    return np.moveaxis(points, -2, -1)[..., DISTANCE]
