"""Few-step solvers against exact solutions, a direct transcription, and the samplers that they must not disturb."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fusedx.engine.backends import Condition
from fusedx.engine.chain_runner import HostChains, Solving
from fusedx.engine.errors import ConfigError
from fusedx.engine.manifest import Network
from fusedx.engine.sampler.solvers import SOLVERS, Nodes, chosen, nodes, solve
from fusedx.engine.sampling import Sampling
from fusedx.engine.schedule import Schedule, ddim_coefficients, posterior_coefficients


def network(family: str, classes: int, noise_prior: bool = False) -> Network:
    return Network(family, classes, 4, "resnet18", "resnet18", 64, noise_prior=noise_prior, vit_width=64, vit_depth=1)


class Smooth:
    """eps = tanh(y A + p B + mean(f) + step/10), row by row."""

    name = "smooth"

    def __init__(self, classes: int) -> None:
        self.a, self.b = 0.5 * np.random.default_rng(classes).normal(size=(2, classes, classes))

    def condition(self, prior: np.ndarray, feature: np.ndarray) -> Condition:
        return Condition(prior, feature)

    def eps(self, y: np.ndarray, step: np.ndarray, condition: Condition, entry: np.ndarray) -> np.ndarray:
        p, f = condition.constant[entry], condition.feature[entry]
        inner = (y[:, None] * self.a).sum(-1) + (p[:, None] * self.b).sum(-1) + f.mean(-1, keepdims=True) + step[:, None] / 10
        return np.tanh(inner)


def vp_nodes(count: int, last: float) -> Nodes:
    """Nodes of a continuous variance-preserving schedule, q = cos(pi t / 2), even in log(q / s) from t = 0.8 to ``last``."""
    ends = [math.log(1 / math.tan(math.pi / 2 * t)) for t in (0.8, last)]
    noisy = np.exp(-np.linspace(*ends, count))  # s / q
    return Nodes(np.arange(count)[::-1].copy(), 1 / np.sqrt(1 + noisy**2), noisy / np.sqrt(1 + noisy**2))


@pytest.mark.parametrize(("solver", "order"), [("ddim", 1), ("dpmpp-2m", 2), ("unipc", 2)])
@pytest.mark.parametrize("mean", [0.0, 0.7])
def test_order_of_convergence_on_a_gaussian_problem(solver: str, order: int, mean: float) -> None:
    """u_0 ~ N(m, v): eps = s (u - q m) / (q^2 v + s^2) is exact, and the ODE keeps (u - q m) / sqrt(q^2 v + s^2) constant."""
    m, v = np.array([0.3, -1.0]), np.array([0.2, 2.0])
    errors = []
    for count in (17, 33, 65, 129):
        k = vp_nodes(count, 0.1)
        by_row = dict(zip(k.rows.tolist(), zip(k.q, k.s, strict=True), strict=True))

        def eps(y: np.ndarray, row: int) -> np.ndarray:
            q, s = by_row[row]  # noqa: B023  # used within the loop's body
            return s * (y - mean - q * m) / (q * q * v + s * s)

        u = k.q[0] * m + np.array([[1.3, -0.4]]) * np.sqrt(k.q[0] ** 2 * v + k.s[0] ** 2)
        states = solve(eps, k, np.full((1, 2), mean), mean + u, SOLVERS[solver](k))
        exact = mean + k.q[-1] * m + np.array([[1.3, -0.4]]) * np.sqrt(k.q[-1] ** 2 * v + k.s[-1] ** 2)
        errors.append(np.abs(states[-2] - exact).max())
    rates = np.log2(np.array(errors[:-1]) / errors[1:])
    assert rates[-1] > order - 0.15 and (rates > order - 0.4).all() and errors[-1] < (1e-2, 1e-4)[order - 1], (errors, rates)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("count", [1, 2, 3, 250])
def test_a_denoiser_that_knows_the_answer_is_believed(solver: str, count: int) -> None:
    """If every estimate of y0 is the same, so is the result, whatever the solver and the number of steps."""
    k = posterior_coefficients(Schedule("linear", 1e-4, 0.02, 1000, 250))
    chain, answer, mean = nodes(k.q, k.s, count), np.array([[0.2, -3.0, 1.0]]), np.array([[0.5, 0.1, 0.4]])

    def eps(y: np.ndarray, row: int) -> np.ndarray:
        return (y - (1 - k.q[row]) * mean - k.q[row] * answer) / k.s[row]

    states = solve(eps, chain, mean, mean + np.array([[1.0, -2.0, 0.5]]), SOLVERS[solver](chain))
    assert states.shape == (count + 1, 1, 3)
    np.testing.assert_allclose(states[-1], answer, rtol=1e-9)


@pytest.mark.parametrize("noise_prior", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 60])
def test_ddim_with_all_steps_is_the_textbook_ddim(noise_prior: bool, steps: int) -> None:
    rng = np.random.default_rng(3)
    schedule, toy = Schedule("linear", 1e-4, 0.02, 1000, steps), Smooth(5)
    k, prior, feature = posterior_coefficients(schedule), rng.random((2, 5)), rng.random((2, 4))
    noise = rng.normal(size=(steps, 3, 2, 5))
    chains = HostChains(network("diffmic-v1", 5, noise_prior), schedule, toy)
    got = chains.solve({"prior": prior, "feature": feature}, noise, "ddim", steps, keep=True)
    assert isinstance(chains, Solving) and got.states.shape == (steps + 1, 3, 2, 5)
    for d in range(3):
        for i in range(2):
            m = np.zeros(5) if noise_prior else prior[i]
            y = m + noise[0, d, i]
            for t in range(steps - 1, -1, -1):
                eps = toy.eps(y[None], np.array([t]), Condition(prior, feature), np.array([i]))[0]
                y0 = (y - (1 - k.q[t]) * m - k.s[t] * eps) / k.q[t]
                y = y0 if t == 0 else k.q[t - 1] * (y0 - m) + k.s[t - 1] * eps + m
            np.testing.assert_allclose(got.scores[d, i], y, rtol=1e-9)


def test_v2_takes_fewer_of_its_own_steps() -> None:
    rng = np.random.default_rng(4)
    schedule, toy, k = Schedule("linear", 1e-4, 0.02, 1000, 10), Smooth(4), ddim_coefficients(Schedule("linear", 1e-4, 0.02, 1000, 10))
    encoded = {"y_global": rng.normal(size=(2, 4)), "y_local": rng.normal(size=(2, 4)), "fused_feature": rng.random((2, 4))}
    noise, chains = rng.random((2, 3, 2, 4)), HostChains(network("diffmic-v2", 4), schedule, toy, "fp32")
    whole = chains.run(encoded, noise, keep=True)
    all_ten = chains.solve(encoded, noise, "ddim", 10, keep=True)
    assert all_ten.states.tobytes() == whole.states.tobytes() and all_ten.scores.tobytes() == whole.scores.tobytes()
    exact = HostChains(network("diffmic-v2", 4), schedule, toy)
    process, condition, entry = exact.problem(encoded, noise)
    y, rows = process.start, [0, 3, 7]  # of ten, the noisier ends of three equal parts
    for i, row in enumerate(rows):
        eps = toy.eps(y, np.full(len(y), row), condition, entry)
        x0 = np.clip((y - k.sqrt_one_minus[row] * eps) / k.sqrt_alpha_bar[row], -1, 1)
        after = (k.sqrt_alpha_bar[rows[i + 1]], k.sqrt_one_minus[rows[i + 1]]) if i < 2 else (1.0, 0.0)
        y = after[0] * x0 + after[1] * eps
    np.testing.assert_allclose(exact.solve(encoded, noise, "ddim", 3, keep=False).states[-1].reshape(y.shape), y, rtol=1e-10)


@pytest.mark.parametrize("solver", SOLVERS)
def test_an_image_has_its_bits_in_any_batch(solver: str) -> None:
    rng = np.random.default_rng(5)
    schedule = Schedule("linear", 1e-4, 0.02, 1000, 40)
    chains = HostChains(network("diffmic-v1", 5), schedule, Smooth(5), "int8")
    prior, feature, noise = rng.random((7, 5)), rng.random((7, 4)), rng.normal(size=(40, 3, 7, 5))
    together = chains.solve({"prior": prior, "feature": feature}, noise, solver, 6, keep=False)
    for i in range(7):
        alone = chains.solve({"prior": prior[i : i + 1], "feature": feature[i : i + 1]}, noise[:, 1:2, i : i + 1], solver, 6, keep=False)
        assert alone.scores[0, 0].tobytes() == together.scores[1, i].tobytes()
    assert together.work is not None and (together.work.rows == 6).all()


@pytest.mark.parametrize("rows", [1, 2, 10, 60, 250])
def test_rows_are_distinct_and_start_at_the_last(rows: int) -> None:
    for count in range(1, rows + 1):
        picked = chosen(rows, count)
        assert len(set(picked.tolist())) == count and picked[0] == rows - 1 and (picked >= 0).all() and (np.diff(picked) < 0).all()
    assert chosen(rows, rows).tolist() == list(range(rows))[::-1]


def test_equal_noise_levels_are_refused() -> None:
    level = np.array([0.1, 0.2, 0.2, 0.3])
    with pytest.raises(ConfigError, match="as noisy at t = 1 as at t = 2"):
        nodes(np.sqrt(1 - level**2), level, 4)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"solver": "euler", "solver_steps": 5}, "solver must be one of published, ddim"),
        ({"solver": "ddim"}, "needs solver_steps"),
        ({"solver_steps": 5}, "solver_steps goes with a solver, ddim"),
        ({"solver": "unipc", "solver_steps": 0}, "solver_steps must be an integer"),
        ({"solver": "unipc", "solver_steps": True}, "solver_steps must be an integer"),
        ({"calibrated": 1}, "calibrated must be True or False"),
    ],
)
def test_impossible_settings(settings: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Sampling(**settings)
