"""The chains against direct transcriptions of their definitions, on denoisers that are easy to reason about."""

from __future__ import annotations

import numpy as np
import pytest

from fusedx.engine import sampler
from fusedx.engine.backends import Condition
from fusedx.engine.chain_runner import HostChains
from fusedx.engine.manifest import Network
from fusedx.engine.schedule import Schedule, ddim_coefficients, posterior_coefficients


def network(family: str, classes: int, noise_prior: bool = False) -> Network:
    return Network(family, classes, 4, "resnet18", "resnet18", 64, noise_prior=noise_prior, vit_width=64, vit_depth=1)


class Toy:
    """eps = tanh(y A + p B + mean(f) + step/10): sees every argument, and records the rows it was given."""

    name = "toy"

    def __init__(self, classes: int) -> None:
        rng = np.random.default_rng(classes)
        self.a, self.b = rng.normal(size=(2, classes, classes))
        self.rows: list[int] = []

    def condition(self, prior: np.ndarray, feature: np.ndarray) -> Condition:
        return Condition(prior, feature)

    def eps(self, y: np.ndarray, step: np.ndarray, condition: Condition, entry: np.ndarray) -> np.ndarray:
        self.rows.append(len(y))
        return self.at(y, condition.constant[entry], condition.feature[entry], step)

    def at(self, y: np.ndarray, p: np.ndarray, f: np.ndarray, step: np.ndarray) -> np.ndarray:
        return np.tanh(y @ self.a + p @ self.b + f.mean(axis=-1, keepdims=True) + step[..., None] / 10)


@pytest.mark.parametrize("steps", [1, 2, 25])
@pytest.mark.parametrize("noise_prior", [False, True])
@pytest.mark.parametrize(("draws", "images"), [(1, 1), (3, 2)])
def test_posterior_chain(steps: int, noise_prior: bool, draws: int, images: int) -> None:
    rng = np.random.default_rng(0)
    schedule = Schedule("linear", 1e-4, 0.02, 1000, steps)
    toy, k = Toy(5), posterior_coefficients(schedule)
    prior, feature = rng.random((images, 5)), rng.random((images, 4))
    noise = rng.normal(size=(steps, draws, images, 5))
    shape, encoded = network("diffmic-v1", 5, noise_prior), {"prior": prior, "feature": feature}
    got = HostChains(shape, schedule, toy).run(encoded, noise, keep=True)
    assert got.states.shape == (steps + 1, draws, images, 5) and toy.rows == [draws * images] * steps
    for d in range(draws):
        for i in range(images):
            m = np.zeros(5) if noise_prior else prior[i]
            y = m + noise[0, d, i]
            for t in range(steps - 1, 0, -1):
                eps = toy.at(y, prior[i], feature[i], np.array(t))
                y0 = (y - (1 - k.q[t]) * m - k.s[t] * eps) / k.q[t]
                y = k.g0[t] * y0 + k.g1[t] * y + k.g2[t] * m + k.sigma[t] * noise[steps - t, d, i]
            y = (y - (1 - k.q[0]) * m - k.s[0] * toy.at(y, prior[i], feature[i], np.array(0))) / k.q[0]
            np.testing.assert_allclose(got.scores[d, i], y, rtol=1e-10)
    short = HostChains(shape, schedule, toy).run(encoded, noise, keep=False)
    assert short.states.shape[0] == 2 and short.scores.tobytes() == got.scores.tobytes()


@pytest.mark.parametrize(("draws", "images"), [(1, 1), (3, 2)])
def test_ddim_on_six_points_is_ddim_on_the_whole_map(draws: int, images: int) -> None:
    rng = np.random.default_rng(1)
    schedule = Schedule("linear", 1e-4, 0.02, 1000, 10)
    toy, k = Toy(4), ddim_coefficients(schedule)
    y_global, y_local, feature = rng.normal(size=(images, 4)), rng.normal(size=(images, 4)), rng.random((images, 4))
    noise = rng.random((2, draws, images, 4))
    encoded = {"y_global": y_global, "y_local": y_local, "fused_feature": feature}
    got = HostChains(network("diffmic-v2", 4), schedule, toy).run(encoded, noise, keep=True)
    assert toy.rows == [draws * images * 6] * 10
    d = np.float32(np.abs(np.subtract.outer(range(6), range(6)))) / np.float32(5)
    near, far = (np.float32(1) - d).astype(float)[..., None], d.astype(float)[..., None]
    clamped = 0
    for r in range(draws):
        for i in range(images):
            m, y = near * y_global[i] + far * y_local[i], near * noise[0, r, i] + far * noise[1, r, i]
            for s in range(10):
                eps = toy.at(y, m, np.broadcast_to(feature[i], (6, 6, 4)), np.full((6, 6), s))
                x0 = (y - k.sqrt_one_minus[s] * eps) / k.sqrt_alpha_bar[s]
                clamped += int((np.abs(x0) > 1).sum())
                y = k.sqrt_alpha_bar_prev[s] * np.clip(x0, -1, 1) + k.sqrt_one_minus_prev[s] * eps
            np.testing.assert_allclose(got.scores[r, i], y.mean(axis=(0, 1)), rtol=1e-10)
            np.testing.assert_allclose(sampler.dense_map(got.states)[-1, r, i], np.moveaxis(y, -1, 0), rtol=1e-10)
    assert clamped > 0  # otherwise this proves nothing about the clamp


def test_map_helpers() -> None:
    points = np.arange(6.0)[:, None] * np.ones(3)
    whole = sampler.dense_map(points)
    assert whole.shape == (3, 6, 6) and np.array_equal(whole[0], sampler.DISTANCE)
    np.testing.assert_allclose(sampler.map_mean(points), whole.mean(axis=(1, 2)))
    assert sampler.POINT_COUNTS.tolist() == [6, 10, 8, 6, 4, 2]
