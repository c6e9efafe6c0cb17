"""Parallel sampling in every variant: the sequential chain's bits whatever the denoiser does, and fewer evaluations where it is benign."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pytest

from fusedx.engine.backends import Condition
from fusedx.engine.errors import UnavailableError
from fusedx.engine.sampler.guess import GUESSES
from fusedx.engine.sampler.held import Held
from fusedx.engine.sampler.newton import Newton, Stale
from fusedx.engine.sampler.parallel import parallel
from fusedx.engine.sampler.plan import Plan
from fusedx.engine.sampler.process import DDIMProcess, PosteriorProcess, Process
from fusedx.engine.sampler.sequential import sequential
from fusedx.engine.schedule import DDIMCoefficients, Schedule, ddim_coefficients, posterior_coefficients

FAMILIES = ("posterior", "ddim")


class Smooth:
    """eps = tanh(A y + B p + step / 50) in float64, row by row, with its Jacobian; counts rows."""

    name = "smooth"

    def __init__(self, classes: int, gain: float = 1.0) -> None:
        rng = np.random.default_rng(classes)
        self.a, self.b = gain * rng.normal(size=(classes, classes)) / classes**0.5, rng.normal(size=(classes, classes))
        self.evaluations: list[tuple[int, int]] = []  # (rows without, rows with Jacobian)

    def condition(self, prior: np.ndarray, feature: np.ndarray) -> Condition:
        return Condition(prior, feature)

    def inner(self, y: np.ndarray, step: int, p: np.ndarray) -> np.ndarray:
        return self.a @ y + self.b @ p + step / 50

    def value(self, y: np.ndarray, step: int, p: np.ndarray) -> np.ndarray:
        return np.tanh(self.inner(y, step, p))

    def slope(self, y: np.ndarray, step: int, p: np.ndarray) -> np.ndarray:
        return (1 - np.tanh(self.inner(y, step, p)) ** 2)[:, None] * self.a

    def _each(self, f: Callable, y: np.ndarray, step: np.ndarray, condition: Condition, entry: np.ndarray) -> np.ndarray:
        return np.stack([f(y[r], int(step[r]), condition.constant[entry[r]]) for r in range(len(y))])

    def eps(self, y: np.ndarray, step: np.ndarray, condition: Condition, entry: np.ndarray) -> np.ndarray:
        self.evaluations.append((len(y), 0))
        return self._each(self.value, y, step, condition, entry)

    def eps_and_jacobian(self, y: np.ndarray, step: np.ndarray, condition: Condition, entry: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.evaluations.append((0, len(y)))
        return self._each(self.value, y, step, condition, entry), self._each(self.slope, y, step, condition, entry)


class Cliff(Smooth):
    """Jumps where a number crosses zero, and the slope says nothing of it."""

    def value(self, y: np.ndarray, step: int, p: np.ndarray) -> np.ndarray:
        return super().value(y, step, p) + 3 * np.sign(np.sum(y) - 0.1 * step)


class Restless(Smooth):
    """Another function at every step: nothing carries over from the step before."""

    def inner(self, y: np.ndarray, step: int, p: np.ndarray) -> np.ndarray:
        return 100 * np.sin(1000.0 * step) + (-1) ** step * super().inner(y, step, p)


class Liar(Smooth):
    """A Jacobian that is wrong, in a way of its own at every step."""

    def slope(self, y: np.ndarray, step: int, p: np.ndarray) -> np.ndarray:
        return [-1e6, 1e300, np.nan, np.inf, -1.0, 0.0][step % 6] * np.ones((len(y), len(y)))


class Steep(Smooth):
    """A slope of a thousand, so that the state runs away."""

    def value(self, y: np.ndarray, step: int, p: np.ndarray) -> np.ndarray:
        return 1e3 * self.a @ y

    def slope(self, y: np.ndarray, step: int, p: np.ndarray) -> np.ndarray:
        return 1e3 * self.a


class Broken(Smooth):
    """Not a number from the middle of the table on."""

    def value(self, y: np.ndarray, step: int, p: np.ndarray) -> np.ndarray:
        return super().value(y, step, p) if step % 7 else np.full_like(y, np.nan)


DENOISERS = {
    "smooth": Smooth, "flat": functools.partial(Smooth, gain=0.0), "saturated": functools.partial(Smooth, gain=1e4),
    "cliff": Cliff, "restless": Restless, "liar": Liar, "steep": Steep, "broken": Broken,
}  # fmt: skip


def problem(family: str, classes: int, steps: int, chains: int = 1, seed: int = 0) -> tuple[Process, np.ndarray]:
    """(process, prior [N,C])."""
    rng = np.random.default_rng([classes, steps, seed])
    schedule = Schedule("linear", 1e-4, 0.02, 1000, steps)
    prior = rng.random((chains, classes))
    if family == "ddim":
        return DDIMProcess(ddim_coefficients(schedule), 2 * rng.normal(size=(chains, classes))), prior
    return PosteriorProcess(posterior_coefficients(schedule), prior, rng.normal(size=(steps, chains, classes))), prior


def both(
    denoiser: Smooth, process: Process, prior: np.ndarray, variant: str, bits: int | None, rows: int, least_gain: float = 0.0
) -> tuple[np.ndarray, ...]:
    """Check every state against the sequential chain's; -> sweeps, rows, sequential steps."""
    condition, entry = denoiser.condition(prior, prior), np.arange(len(prior), dtype=np.int32)
    with np.errstate(all="ignore"):
        expected = sequential(denoiser, process, condition, entry, bits=bits, keep=True)
        denoiser.evaluations.clear()
        states, *work = parallel(denoiser, process, condition, entry, GUESSES[variant], bits=bits, plan=Plan(rows, variant, least_gain))
    if states.tobytes() != expected.tobytes():
        step, chain, c = np.argwhere(~((states == expected) | (np.isnan(states) & np.isnan(expected))))[0]
        raise AssertionError(f"state {step} chain {chain} class {c}: expected {expected[step, chain, c]!r}, got {states[step, chain, c]!r}")
    return tuple(work)


@pytest.mark.parametrize(("bits", "first"), [(None, 2), (18, 3), (10, 4)])
@pytest.mark.parametrize("variant", GUESSES)
@pytest.mark.parametrize("kind", DENOISERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_bits_of_the_sequential_chain(family: str, kind: str, variant: str, bits: int | None, first: int) -> None:
    for classes in (*range(first, 15, 3), 15):
        steps = 10 if family == "ddim" else (20, 31, 7)[classes // 3 % 3]
        process, prior = problem(family, classes, steps, chains=1 + classes % 2)
        sweeps, rows, alone = both(DENOISERS[kind](classes), process, prior, variant, bits, rows=(64, 5, 1000)[classes // 3 % 3])
        assert (sweeps >= 1).all() and (sweeps <= steps).all() and not alone.any(), "a sweep must advance a step at least"


@pytest.mark.parametrize("variant", GUESSES)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 60, 250, 1000])
def test_any_number_of_steps(steps: int, family: str, variant: str) -> None:
    process, prior = problem(family, 3, steps)
    for rows in (1, 2, 16, 4000):
        if steps < 1000 or rows > 2:
            sweeps, _, _ = both(Smooth(3, 0.3), process, prior, variant, 18, rows)
            assert sweeps[0] <= steps and (rows < 16 or steps < 60 or sweeps[0] < steps)


@pytest.mark.parametrize("variant", GUESSES)
@pytest.mark.parametrize("classes", [2, 15])
def test_states_exactly_at_the_kinks_of_the_clamp(classes: int, variant: str) -> None:
    """eps = 0 and every estimate 1 or -1 to the bit, or one grid point beside it, at the start and after every step that returns there."""
    k = ddim_coefficients(Schedule("linear", 1e-4, 0.02, 1000, 10))
    rng = np.random.default_rng(0)
    for side in (-(2.0**-18), 0.0, 2.0**-18):
        start = k.sqrt_alpha_bar[0] * (rng.choice([-1.0, 1.0], (3, classes)) + side)
        process, prior = DDIMProcess(k, start), np.ones((3, classes))
        estimate = process.updates(np.zeros(3, int), start, np.zeros_like(start), 0) / k.sqrt_alpha_bar_prev[0]
        assert np.abs(np.abs(estimate) - 1).max() <= 2.0**-17
        for gain in (0.0, 1e-3, 1.0):
            both(Smooth(classes, gain), process, prior, variant, 18, 1000)
            both(Nailed(classes, k), process, prior, variant, 18, 1000)


class Nailed(Smooth):
    """eps for which the estimate is exactly at a kink, whatever the state: x0 = 1 or -1 by turns."""

    def __init__(self, classes: int, k: DDIMCoefficients) -> None:
        super().__init__(classes)
        self.k = k

    def value(self, y: np.ndarray, step: int, p: np.ndarray) -> np.ndarray:
        return (y - (-1) ** step * self.k.sqrt_alpha_bar[step]) / self.k.sqrt_one_minus[step]

    def slope(self, y: np.ndarray, step: int, p: np.ndarray) -> np.ndarray:
        return np.eye(len(y)) / self.k.sqrt_one_minus[step]


@pytest.mark.parametrize("variant", GUESSES)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_chain_has_the_same_bits_in_any_company(family: str, variant: str) -> None:
    process, prior = problem(family, 4, 20, chains=5)
    denoiser, entry = Smooth(4), np.arange(5, dtype=np.int32)
    states, *_ = parallel(denoiser, process, Condition(prior, prior), entry, GUESSES[variant], bits=18, plan=Plan(60, variant))
    for n in range(5):
        one = DDIMProcess(process._k, process.start[n : n + 1]) if isinstance(process, DDIMProcess) else PosteriorProcess(
            process._k, process._mean[n : n + 1], process._noise[:, n : n + 1])  # fmt: skip
        alone, *_ = parallel(denoiser, one, Condition(prior, prior), entry[n : n + 1], GUESSES[variant], bits=18, plan=Plan(60, variant))
        assert alone.tobytes() == states[:, n : n + 1].tobytes(), f"chain {n}"


@pytest.mark.parametrize("variant", GUESSES)
def test_rows_are_counted_and_bounded(variant: str) -> None:
    """A sweep has no more rows than the plan, Jacobians counted as C rows each; the work reported is what the denoiser was asked for."""
    process, prior = problem("posterior", 5, 60, chains=2)
    for rows in (1, 2, 5, 6, 12, 13, 40, 500):
        denoiser = Smooth(5)
        _, counted, _ = both(denoiser, process, prior, variant, 18, rows)
        assert counted.sum() == sum(plain + 6 * full for plain, full in denoiser.evaluations)
        assert max(plain + 6 * full for plain, full in denoiser.evaluations) <= max(rows, 2)
        assert variant != "picard" or not any(full for _, full in denoiser.evaluations)


def test_a_jacobian_pays_where_the_denoiser_is_smooth() -> None:
    """The full chain at once: Newton in fewer sweeps than held eps, the stale form with fewer rows than Newton."""
    for family, steps in (("posterior", 250), ("ddim", 10)):
        process, prior = problem(family, 5, steps)
        work = {variant: both(Smooth(5, 0.5), process, prior, variant, 18, 100_000) for variant in GUESSES}
        sweeps, rows = ({variant: int(w[n][0]) for variant, w in work.items()} for n in (0, 1))
        assert sweeps["newton"] < sweeps["picard"] and rows["stale"] < rows["newton"], (family, sweeps, rows)


def test_newton_on_a_linear_denoiser_needs_two_sweeps() -> None:
    """One for the slopes, one at the solution: the window's linear recurrence is solved at once, rounding to the grid included."""

    class Linear(Smooth):
        def value(self, y: np.ndarray, step: int, p: np.ndarray) -> np.ndarray:
            return 0.3 * self.a @ y + self.b @ p

        def slope(self, y: np.ndarray, step: int, p: np.ndarray) -> np.ndarray:
            return 0.3 * self.a

    process, prior = problem("posterior", 5, 250)
    both(Linear(5), process, prior, "newton", None, 100_000)  # without a grid the scan's last bits are not the walk's: right, if slow
    sweeps, _, _ = both(Linear(5), process, prior, "newton", 18, 100_000)
    assert sweeps[0] == 2


def test_a_sequential_finish_asks_for_no_jacobians() -> None:
    process, prior = problem("posterior", 3, 100)
    denoiser = Restless(3)
    _, _, alone = both(denoiser, process, prior, "newton", 18, 64, least_gain=1000.0)
    assert alone[0] > 0 and denoiser.evaluations[-1] == (1, 0)


@pytest.mark.parametrize("variant", ["newton", "stale"])
def test_a_denoiser_without_jacobians_is_refused_by_name(variant: str) -> None:
    class Plain:
        name = "plain"

        def condition(self, prior: np.ndarray, feature: np.ndarray) -> Condition:
            return Condition(prior, feature)

        def eps(self, y: np.ndarray, step: np.ndarray, condition: Condition, entry: np.ndarray) -> np.ndarray:
            return np.zeros_like(y)

    process, prior = problem("posterior", 3, 5)
    with pytest.raises(UnavailableError, match="need Jacobians, which backend plain has not; use variant picard"):
        parallel(Plain(), process, Condition(prior, prior), np.zeros(1, np.int32), GUESSES[variant], bits=18, plan=Plan(16, variant))


@pytest.mark.parametrize("family", FAMILIES)
def test_many_steps_at_once_are_the_steps(family: str) -> None:
    """updates, slopes and carried of the processes against update, differences and their definition."""
    process, _ = problem(family, 4, 10, chains=3)
    rng = np.random.default_rng(0)
    i, y, eps = np.arange(10), rng.normal(size=(10, 4)), rng.normal(size=(10, 4))
    for which in range(3):
        after = process.updates(i, y, eps, which)
        one_by_one = np.stack([process.update(n, y[n], eps[n], which) for n in i])
        np.testing.assert_allclose(after, one_by_one, rtol=1e-12)
        by_y, by_eps = process.slopes(i, y, eps, which)
        for slope, dy, de in ((by_y, 1e-6, 0.0), (by_eps, 0.0, 1e-6)):
            found = (process.updates(i, y + dy, eps + de, which) - process.updates(i, y - dy, eps - de, which)) / 2e-6
            np.testing.assert_allclose(found, slope, rtol=1e-6, atol=1e-6)
        j = np.array([0, 0, 1, 2, 2, 3, 5, 7, 8, 9])
        carried = process.carried(i, j, y[j], eps[j], which)
        assert np.array_equal(carried[i == j], y[j][i == j])
        if family == "posterior":  # the same estimate
            k, mean, last = process._k, process._mean[which], process.steps - 1
            before, after = (
                (state - (1 - k.q[t]) * mean - k.s[t] * eps[j]) / k.q[t]
                for t, state in (((last - j)[:, None], y[j]), ((last - i)[:, None], carried))
            )
            np.testing.assert_allclose(after, before)


def test_stale_slopes_are_few_and_the_nearest_serves() -> None:
    process, _ = problem("posterior", 2, 250)
    stale, newton = Stale(process, 0), Newton(process, 0)
    asked = np.array([i for i in range(250) if stale.wants_slope(i)])
    assert asked.tolist() == list(range(0, 250, 16)) and all(newton.wants_slope(i) for i in range(250))
    scale = np.array([process.eps_scale(i) for i in range(250)])
    stale.learn_slopes(asked[:3], np.array([1.0, 2.0, 3.0])[:, None, None] / scale[asked[:3], None, None] * np.ones((2, 2)))
    stale.learn_slopes(np.array([48]), np.full((1, 2, 2), np.inf))  # not believed
    i = np.array([0, 8, 9, 23, 25, 60, 249])
    assert not stale.wants_slope(0) and stale.wants_slope(48)
    np.testing.assert_allclose((stale._slope(i, 2) * scale[i, None, None])[:, 0, 0], [1, 1, 2, 2, 3, 3, 3])
    stale._slope(np.array([40, 41]), 2)
    assert list(stale._slopes) == [32], "what lies behind the front is dropped, but for the last"
    short, _ = problem("ddim", 2, 10)
    assert all(Stale(short, 0).wants_slope(i) for i in range(10))


def test_held_answers_are_exact() -> None:
    held = Held(3, 2, 18)
    nan, minus = np.array([np.nan, 1.0]), np.array([-0.0, 1.0])
    assert not held.answers(np.arange(3), np.zeros((3, 2))).any() and not held.answers_one(0, np.zeros(2))
    held.put(np.array([0, 1]), np.stack([nan, minus]), np.ones((2, 2)))
    assert held.answers_one(0, nan) and held.answers_one(1, minus) and not held.answers_one(1, np.array([0.0, 1.0]))
    assert held.answers(np.array([0, 1, 2]), np.stack([nan, minus, np.zeros(2)])).tolist() == [True, True, False]
