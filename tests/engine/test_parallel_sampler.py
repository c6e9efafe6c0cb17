"""The parallel sampler against the sequential one: the same bits, whatever the denoiser does to its guesses."""

from __future__ import annotations

import numpy as np
import pytest

from fusedx.engine.backends import Condition
from fusedx.engine.chain_runner import HostChains
from fusedx.engine.manifest import Network
from fusedx.engine.sampler import Plan
from fusedx.engine.schedule import Schedule
from fusedx.kernels.step import STATE_BITS, on_grid

FAMILIES = ("diffmic-v1", "diffmic-v2")


class Denoiser:
    """eps by a function of (y [R,C], step [R], p [R,C]); counts its calls and rows."""

    name = "toy"

    def __init__(self, function) -> None:
        self.function = function
        self.calls: list[int] = []

    def condition(self, prior: np.ndarray, feature: np.ndarray) -> Condition:
        return Condition(prior, feature)

    def eps(self, y: np.ndarray, step: np.ndarray, condition: Condition, entry: np.ndarray) -> np.ndarray:
        self.calls.append(len(y))
        return np.concatenate([self.function(y[r], int(step[r]), condition.constant[entry[r]])[None] for r in range(len(y))])


def smooth(y: np.ndarray, step: int, p: np.ndarray) -> np.ndarray:
    return np.tanh(np.roll(y, 1) - y + p + step / 50)


def knows_the_answer(y: np.ndarray, step: int, p: np.ndarray) -> np.ndarray:
    """Of a trained denoiser's kind: near the end eps follows the state steeply."""
    return (y - (p > p.mean())) / (0.02 + step / 100)


def steep(y: np.ndarray, step: int, p: np.ndarray) -> np.ndarray:
    return 300.0 * np.sin(300.0 * y)


def saturated(y: np.ndarray, step: int, p: np.ndarray) -> np.ndarray:
    return np.sign(y - 0.1) * 5.0


def jumping(y: np.ndarray, step: int, p: np.ndarray) -> np.ndarray:
    """Embeddings that have nothing to do with each other from one step to the next."""
    return np.cos(y + 1e4 * np.sin(1e3 * step)) * (1.0 + step % 3)


def hashed(y: np.ndarray, step: int, p: np.ndarray) -> np.ndarray:
    """Any change of the input changes everything: no guess is ever right."""
    seed = np.frombuffer(np.ascontiguousarray(y).tobytes(), np.uint32)
    return np.random.default_rng([*seed.tolist(), step]).normal(size=y.shape)


def overflowing(y: np.ndarray, step: int, p: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        return np.exp(y * y * 50.0) - np.exp(y * 90.0)


ADVERSARIES = (smooth, knows_the_answer, steep, saturated, jumping, hashed, overflowing)


def chains(family: str, function, steps: int, classes: int, precision: str | None = "fp32", **network) -> HostChains:
    shape = Network(family, classes, 4, "resnet18", "resnet18", 64, vit_width=64, vit_depth=1, **network)
    return HostChains(shape, Schedule("linear", 1e-4, 0.02, 1000, steps), Denoiser(function), precision)


def problem(family: str, steps: int, classes: int, images: int = 1, draws: int = 1) -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng([steps, classes, images, draws])
    feature = np.ones((images, 4))
    if family == "diffmic-v1":
        prior = rng.dirichlet(np.ones(classes), images)
        return {"prior": prior, "feature": feature}, rng.normal(size=(steps, draws, images, classes))
    ends = {name: rng.normal(size=(images, classes)) for name in ("y_global", "y_local")}
    return ends | {"fused_feature": feature}, rng.random((2, draws, images, classes))


def same(runner: HostChains, encoded: dict[str, np.ndarray], noise: np.ndarray, plan: Plan) -> int:
    """Check all states; -> calls of the denoiser that the parallel run took."""
    with np.errstate(all="ignore"):
        expected = runner.run(encoded, noise, keep=True)
        runner.denoiser.calls.clear()
        got = runner.run(encoded, noise, keep=True, plan=plan)
        ends = runner.run(encoded, noise, keep=False, plan=plan)
    calls = len(runner.denoiser.calls) // 2
    assert got.states.tobytes() == expected.states.tobytes() and got.scores.tobytes() == expected.scores.tobytes()
    assert ends.states.tobytes() == expected.states[[0, -1]].tobytes()
    assert np.all(got.work.rows >= got.work.sweeps) and calls <= got.work.sweeps.sum()
    return calls


@pytest.mark.parametrize("function", ADVERSARIES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("precision", [None, "fp32", "int8"])
def test_every_state_is_the_sequential_chains(function, family: str, precision: str | None) -> None:
    steps = 60 if family == "diffmic-v1" else 10
    for rows in (2, 7, 16, 64):
        calls = same(chains(family, function, steps, 5, precision), *problem(family, steps, 5), Plan(rows))
        assert calls <= steps * (6 if rows < 6 else 1) + 1


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("steps", [1, 2, 3, 250, 1000])
@pytest.mark.parametrize("classes", [2, 15])
def test_any_length_and_number_of_classes(family: str, steps: int, classes: int) -> None:
    same(chains(family, smooth, steps, classes), *problem(family, steps, classes), Plan(32))


def test_it_is_worth_something() -> None:
    for function, most in ((smooth, 60), (knows_the_answer, 110)):
        runner = chains("diffmic-v1", function, 250, 5)
        assert same(runner, *problem("diffmic-v1", 250, 5), Plan(16)) < most


def test_no_guess_is_right_and_it_still_ends() -> None:
    runner = chains("diffmic-v1", hashed, 60, 5)
    assert same(runner, *problem("diffmic-v1", 60, 5), Plan(16)) == 60


@pytest.mark.parametrize("rows", [2, 16, 64])
@pytest.mark.parametrize("family", FAMILIES)
def test_alone_or_in_company(family: str, rows: int) -> None:
    steps = 40 if family == "diffmic-v1" else 10
    runner = chains(family, knows_the_answer, steps, 5)
    encoded, noise = problem(family, steps, 5, images=3, draws=4)
    together = runner.run(encoded, noise, keep=True, plan=Plan(rows)).states
    assert max(runner.denoiser.calls) <= max(rows, 3 * 4 * (6 if family == "diffmic-v2" else 1))
    for i in range(3):
        for d in range(4):
            one = {name: x[i : i + 1] for name, x in encoded.items()}
            alone = runner.run(one, noise[:, d : d + 1, i : i + 1], keep=True, plan=Plan(rows)).states
            assert alone[:, 0, 0].tobytes() == together[:, d, i].tobytes()


def test_noise_prior() -> None:
    same(chains("diffmic-v1", smooth, 30, 5, noise_prior=True), *problem("diffmic-v1", 30, 5), Plan(16))


def test_a_run_that_gains_too_little_is_finished_one_by_one_and_says_so() -> None:
    runner = chains("diffmic-v1", hashed, 60, 5)
    encoded, noise = problem("diffmic-v1", 60, 5, images=2)
    got = runner.run(encoded, noise, keep=True, plan=Plan(32, least_gain=2.0))
    assert got.work.sequential_steps.tolist() == [[53, 53]] and got.work.rows.max() < 60 + 8 * 16
    assert got.states.tobytes() == runner.run(encoded, noise, keep=True).states.tobytes()
    good = chains("diffmic-v1", smooth, 60, 5)
    assert good.run(encoded, noise, keep=False, plan=Plan(32, least_gain=2.0)).work.sequential_steps.tolist() == [[0, 0]]


def test_the_residual_is_measured_anew() -> None:
    runner = chains("diffmic-v1", knows_the_answer, 30, 5)
    encoded, noise = problem("diffmic-v1", 30, 5, images=2, draws=3)
    states = runner.run(encoded, noise, keep=True, plan=Plan(16)).states
    assert runner.residual(encoded, noise, states).tolist() == [[0.0, 0.0]] * 3
    wrong = states.copy()
    wrong[17, 1, 0, 2] += 1e-9
    residual = runner.residual(encoded, noise, wrong)
    assert residual[1, 0] > 5e-10 and np.count_nonzero(residual) == 1


@pytest.mark.parametrize("bits", sorted(set(STATE_BITS.values())))
def test_the_grid(bits: int) -> None:
    rng = np.random.default_rng(bits)
    y = np.concatenate([rng.normal(scale=s, size=1000) for s in (1e-6, 1.0, 1e3)])
    expected = np.rint(y * 2.0**bits) / 2.0**bits
    assert on_grid(y, bits).tobytes() == (expected + 0.0).tobytes()  # -0.0 becomes 0.0
    ties = (np.arange(-9, 9) + 0.5) * 2.0**-bits
    assert np.array_equal(on_grid(ties, bits), np.rint(ties * 2.0**bits) / 2.0**bits)
    special = np.array([0.0, np.inf, -np.inf, np.nan, 1e300, -1e300])
    assert np.array_equal(on_grid(special, bits), special, equal_nan=True)
    assert on_grid(y, None) is y
    values = np.unique(on_grid(rng.normal(size=1000), bits))
    assert np.array_equal(values.astype(np.float32), values)  # a layer's float32 holds it exactly
