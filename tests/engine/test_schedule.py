"""Schedules against the expressions of the published code, evaluated in torch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fusedx.engine.errors import ConfigError
from fusedx.engine.schedule import BETA_SCHEDULES, Schedule, ddim_coefficients, posterior_coefficients


def published(kind: str, b0: float, b1: float, n: int) -> torch.Tensor:
    def c(t: float) -> float:
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    cosine = torch.tensor([min(1 - c((i + 1) / n) / c(i / n), 0.999) for i in range(n)])
    return {
        "linear": torch.linspace(b0, b1, n),
        "const": b1 * torch.ones(n),
        "quad": torch.linspace(b0**0.5, b1**0.5, n) ** 2,
        "jsd": 1.0 / torch.linspace(n, 1, n),
        "sigmoid": torch.sigmoid(torch.linspace(-6, 6, n)) * (b1 - b0) + b0,
        "cosine": cosine,
        "cosine_reverse": cosine,
        "cosine_anneal": torch.tensor([b0 + 0.5 * (b1 - b0) * (1 - math.cos(i / (n - 1) * math.pi)) for i in range(n)]),
    }[kind]


@pytest.mark.parametrize("n", [2, 3, 50, 999, 1000])
@pytest.mark.parametrize(("b0", "b1"), [(1e-4, 0.02), (5e-4, 0.03), (1e-5, 0.01)])
@pytest.mark.parametrize("kind", BETA_SCHEDULES)
def test_betas(kind: str, b0: float, b1: float, n: int) -> None:
    got = Schedule(kind, b0, b1, n, 1).betas()
    expected = published(kind, b0, b1, n).numpy()
    assert got.dtype == np.float32
    if kind == "sigmoid":  # torch's vectorised sigmoid is itself one unit off the correctly rounded value on some machines
        np.testing.assert_allclose(got, expected, rtol=3e-7)
    else:
        np.testing.assert_array_equal(got, expected)


def test_alpha_bar_is_the_float32_rounding_of_a_wide_product() -> None:
    alphas, alpha_bar = Schedule("linear", 1e-4, 0.02, 1000, 10).alphas()
    np.testing.assert_array_equal(alpha_bar, torch.from_numpy(alphas).cumprod(0).numpy())


def test_cosine_alone_scales_its_root() -> None:
    a, b = (posterior_coefficients(Schedule(k, 1e-4, 0.02, 1000, 100)) for k in ("cosine", "cosine_reverse"))
    np.testing.assert_allclose(a.s, 0.9999 * b.s, rtol=1e-6)
    assert not np.array_equal(a.s, b.s)


def test_posterior_coefficients_satisfy_their_identities() -> None:
    k = posterior_coefficients(Schedule("linear", 1e-4, 0.02, 1000, 250))
    np.testing.assert_allclose(k.q**2 + k.s**2, 1, rtol=1e-15)
    # A state that sits at its mean stays there: with y0 = p and y = p, y' = p.  The float32 tables hold this to 1e-4 only.
    np.testing.assert_allclose((k.g0 + k.g1 + k.g2)[1:], 1, atol=2e-4)
    assert all(getattr(k, name).dtype == np.float64 for name in ("q", "s", "g0", "g1", "g2", "sigma"))


def test_ddim_timesteps() -> None:
    assert ddim_coefficients(Schedule("linear", 1e-4, 0.02, 1000, 10)).timesteps.tolist() == list(range(900, -1, -100))
    k = ddim_coefficients(Schedule("linear", 1e-4, 0.02, 1000, 7))
    assert k.timesteps.tolist() == [852, 710, 568, 426, 284, 142, 0]
    assert k.sqrt_alpha_bar_prev[-1] == 1 and k.sqrt_one_minus_prev[-1] == 0


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"beta_schedule": "lineer"}, "unknown beta_schedule"),
        ({"steps": 0}, "steps"),
        ({"steps": 1001}, "steps"),
        ({"steps": True}, "steps"),
        ({"beta_start": 0.0}, "beta_start"),
        ({"beta_end": float("nan")}, "beta_end"),
        ({"train_timesteps": 1}, "train_timesteps"),
    ],
)
def test_impossible_schedules_are_refused(change: dict, text: str) -> None:
    settings = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02, "train_timesteps": 1000, "steps": 10} | change
    with pytest.raises(ConfigError, match=text):
        Schedule(**settings)


def test_a_singular_schedule_says_where() -> None:
    with pytest.raises(ConfigError, match="singular at step 999"):
        posterior_coefficients(Schedule("jsd", 1e-4, 0.02, 1000, 1000))
