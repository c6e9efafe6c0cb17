"""Noise schedules: the betas of a checkpoint, and the few float64 numbers that each step of a chain needs.

Betas, alphas and alpha_bar are float32 because the published code trains and samples with float32 tables; everything derived
from them is float64.  Deriving the coefficients in float32 costs 2e-5 to 5e-5 in the final state (the posterior's g2 cancels
at small t), and they are only a few numbers a step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fusedx.engine.errors import ConfigError
from fusedx.kernels.step import COEFFICIENTS


def _linspace(start: float, end: float, n: int) -> np.ndarray:
    """float32 [n], evenly spaced as PyTorch spaces it: from each end toward the middle, one fused multiply-add an element.

    ``numpy.linspace`` rounds differently in the last bit, which is visible in alpha_bar after a thousand products.
    """
    first, last = np.float32(start), np.float32(end)
    step = np.float64(np.float32((last - first) / np.float32(n - 1))) if n > 1 else np.float64(0)
    i = np.arange(n, dtype=np.float64)
    rising = (np.float64(first) + step * i).astype(np.float32)
    falling = (np.float64(last) - step * (n - 1 - i)).astype(np.float32)
    return np.where(i < n // 2, rising, falling)


def _linear(start: float, end: float, n: int) -> np.ndarray:
    return _linspace(start, end, n)


def _const(start: float, end: float, n: int) -> np.ndarray:
    return np.full(n, end, np.float32)


def _quad(start: float, end: float, n: int) -> np.ndarray:
    return _linspace(math.sqrt(start), math.sqrt(end), n) ** 2


def _jsd(start: float, end: float, n: int) -> np.ndarray:
    return np.float32(1) / np.arange(n, 0, -1, dtype=np.float32)


def _sigmoid(start: float, end: float, n: int) -> np.ndarray:
    # Rounded to float32 after each operation of the published expression, as tensors round.
    x = _linspace(-6.0, 6.0, n)
    exp = np.exp(-x.astype(np.float64)).astype(np.float32)
    gate = np.float32(1) / (np.float32(1) + exp)
    return gate * np.float32(end - start) + np.float32(start)


def _cosine(start: float, end: float, n: int) -> np.ndarray:
    def c(t: float) -> float:
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    return np.array([min(1 - c((i + 1) / n) / c(i / n), 0.999) for i in range(n)], np.float32)


def _cosine_anneal(start: float, end: float, n: int) -> np.ndarray:
    last = max(n - 1, 1)
    return np.array([start + 0.5 * (end - start) * (1 - math.cos(i / last * math.pi)) for i in range(n)], np.float32)


#: Published names of the beta schedules.  ``cosine`` differs from ``cosine_reverse`` in sqrt(1 - alpha_bar) alone.
BETA_SCHEDULES = {
    "linear": _linear,
    "const": _const,
    "quad": _quad,
    "jsd": _jsd,
    "sigmoid": _sigmoid,
    "cosine": _cosine,
    "cosine_reverse": _cosine,
    "cosine_anneal": _cosine_anneal,
}


@dataclass(frozen=True, slots=True)
class Schedule:
    """What a checkpoint says about its diffusion process, and how many steps of it are run.

    ``steps`` is the number of denoiser evaluations: the first ``steps`` entries of the table for the posterior chain (v1),
    the number of evenly strided timesteps for DDIM (v2).
    """

    beta_schedule: str
    beta_start: float
    beta_end: float
    train_timesteps: int
    steps: int

    def __post_init__(self) -> None:
        if self.beta_schedule not in BETA_SCHEDULES:
            raise ConfigError(f"unknown beta_schedule {self.beta_schedule!r}; known: {', '.join(BETA_SCHEDULES)}")
        if not isinstance(self.train_timesteps, int) or not 2 <= self.train_timesteps <= 100_000:
            raise ConfigError(f"train_timesteps must be an integer from 2 to 100000, got {self.train_timesteps!r}")
        if not isinstance(self.steps, int) or isinstance(self.steps, bool) or not 1 <= self.steps <= self.train_timesteps:
            raise ConfigError(f"steps must be an integer from 1 to {self.train_timesteps} (train_timesteps), got {self.steps!r}")
        for name in ("beta_start", "beta_end"):
            value = getattr(self, name)
            if not isinstance(value, float) or not 0.0 < value < 1.0:
                raise ConfigError(f"{name} must be a number between 0 and 1, got {value!r}")

    def betas(self) -> np.ndarray:
        """float32 [train_timesteps]."""
        return BETA_SCHEDULES[self.beta_schedule](self.beta_start, self.beta_end, self.train_timesteps)

    def alphas(self) -> tuple[np.ndarray, np.ndarray]:
        """(alpha, alpha_bar), float32 [train_timesteps]; the running product is kept in float64 and rounded at each entry."""
        alphas = np.float32(1) - self.betas()
        return alphas, np.cumprod(alphas, dtype=np.float64).astype(np.float32)


def _published_sqrt(x: np.ndarray) -> np.ndarray:
    """float32 square root that leans down by 1.5e-11 relative, so that a near tie rounds down.

    The square root that made the published runs' tables is not correctly rounded: where the exact root of the linear schedule's
    entry 14 lies 0.00016 of a unit above a rounding boundary it returns the float below.  A correctly rounded root differs there
    in one bit, and the final state by 1.3e-8; this one agrees with all golden trajectories to 1e-15.
    """
    return (np.sqrt(x.astype(np.float64)) * (1 - 2.0**-36)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class PosteriorCoefficients:
    """float64 [steps] each, indexed by t = 0 .. steps-1; entry 0 of g0, g1, g2 and sigma is unused (the last step has no noise).

    y0  = (y - (1 - q_t) p - s_t eps) / q_t
    y  <- g0_t y0 + g1_t y + g2_t p + sigma_t z
    """

    q: np.ndarray
    s: np.ndarray
    g0: np.ndarray
    g1: np.ndarray
    g2: np.ndarray
    sigma: np.ndarray


@dataclass(frozen=True, slots=True)
class ChainProgram:
    """A chain as a device runs it.

    family: "posterior" or "ddim".  order int64 [steps]: the row of the timestep tables that each step uses.  coefficients float64
    [rows of the tables, names], columns as in ``fusedx.kernels.step.COEFFICIENTS``.
    """

    family: str
    order: np.ndarray
    coefficients: np.ndarray


def chain_program(schedule: Schedule, *, v2: bool) -> ChainProgram:
    """DiffMIC's chain goes down the table from its last row, DiffMIC-v2's table is in the order of its steps."""
    family = "ddim" if v2 else "posterior"
    k = ddim_coefficients(schedule) if v2 else posterior_coefficients(schedule)
    order = np.arange(schedule.steps)
    return ChainProgram(family, order if v2 else order[::-1], np.stack([getattr(k, name) for name in COEFFICIENTS[family]], axis=1))


def posterior_coefficients(schedule: Schedule) -> PosteriorCoefficients:
    """Coefficients of the chain that starts at t = steps-1 (DiffMIC, arXiv 2303.10610, and CARD, arXiv 2206.07275)."""
    alphas32, alpha_bar32 = schedule.alphas()
    s32 = _published_sqrt(np.float32(1) - alpha_bar32)
    if schedule.beta_schedule == "cosine":
        s32 = s32 * np.float32(0.9999)
    n = schedule.steps
    alpha = alphas32[:n].astype(np.float64)
    s = s32[:n].astype(np.float64)
    q = np.sqrt(1.0 - s * s)
    if not (np.all(q > 0) and np.all(s > 0)):
        t = int(np.flatnonzero(~((q > 0) & (s > 0)))[0])
        raise ConfigError(
            f"beta schedule {schedule.beta_schedule!r} with {n} steps is singular at step {t} (alpha_bar {alpha_bar32[t]}); use fewer steps"
        )
    s_prev = np.concatenate([[0.0], s[:-1]])
    q_prev = np.concatenate([[1.0], q[:-1]])
    variance = s * s
    return PosteriorCoefficients(
        q=q,
        s=s,
        g0=(1 - alpha) * q_prev / variance,
        g1=s_prev**2 * np.sqrt(alpha) / variance,
        g2=1 + (q - 1) * (np.sqrt(alpha) + q_prev) / variance,
        sigma=np.sqrt(s_prev**2 * (1 - alpha) / variance),
    )


@dataclass(frozen=True, slots=True)
class DDIMCoefficients:
    """``timesteps`` int64 [steps], descending; the rest float64 [steps], indexed by step.

    x0  = clamp((y - sqrt_one_minus * eps) / sqrt_alpha_bar, -1, 1)
    y  <- sqrt_alpha_bar_prev * x0 + sqrt_one_minus_prev * eps
    """

    timesteps: np.ndarray
    sqrt_alpha_bar: np.ndarray
    sqrt_one_minus: np.ndarray
    sqrt_alpha_bar_prev: np.ndarray
    sqrt_one_minus_prev: np.ndarray


def ddim_coefficients(schedule: Schedule) -> DDIMCoefficients:
    """DDIM, eta = 0, "leading" spacing (arXiv 2010.02502; the defaults of diffusers 0.20)."""
    _, alpha_bar = schedule.alphas()
    stride = schedule.train_timesteps // schedule.steps
    timesteps = np.arange(schedule.steps, dtype=np.int64)[::-1] * stride
    previous = timesteps - stride
    now = alpha_bar[timesteps]
    before = np.where(previous >= 0, alpha_bar[np.maximum(previous, 0)], np.float32(1))
    return DDIMCoefficients(
        timesteps=np.ascontiguousarray(timesteps),
        sqrt_alpha_bar=np.sqrt(now).astype(np.float64),
        sqrt_one_minus=np.sqrt(np.float32(1) - now).astype(np.float64),
        sqrt_alpha_bar_prev=np.sqrt(before).astype(np.float64),
        sqrt_one_minus_prev=np.sqrt(np.float32(1) - before).astype(np.float64),
    )
