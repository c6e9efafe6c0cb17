"""The kernels between sweeps under the interpreter, without a denoiser: any function of (grid values, step) stands for one.

What they must give is the sequential chain's bits, whatever the function; and where it is smooth, in few sweeps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from fusedx.engine.sampler.guess import Picard
from fusedx.engine.sampler.parallel import Speculation as HostSpeculation
from fusedx.engine.sampler.process import DDIMProcess, PosteriorProcess, Process
from fusedx.engine.schedule import DDIMCoefficients, PosteriorCoefficients, Schedule, chain_program, ddim_coefficients
from fusedx.kernels.speculation.memory import Speculation
from fusedx.kernels.speculation.triton import advance, collect
from fusedx.kernels.step import on_grid
from fusedx.kernels.step.triton import Update

#: (grid values [N,C], step of the chain [N]) -> eps [N,C], a row at a time.
Eps = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Problem:
    """R chains of one process.  ``bits`` of the grid."""

    process: Process
    family: str
    coefficients: np.ndarray
    order: np.ndarray
    mean: np.ndarray
    noise: np.ndarray
    bits: int

    @property
    def steps(self) -> int:
        return self.process.steps

    def sequential(self, eps: Eps) -> np.ndarray:
        """float64 [T+1,R,C] by numpy."""
        states = [self.process.start]
        for i in range(self.steps):
            at = np.full(len(states[0]), i)
            states.append(self.process.update(i, states[-1], eps(on_grid(states[-1], self.bits), at)))
        return np.array(states)


def problem(family: str, steps: int, chains: int, classes: int, bits: int = 18, only: int | None = None) -> Problem:
    """``only``: that one of the chains, by itself."""
    rng = np.random.default_rng([steps, chains, classes])
    mean, noise = rng.dirichlet(np.ones(classes), chains), rng.standard_normal((steps, chains, classes))
    if only is not None:
        mean, noise = mean[only, None], np.ascontiguousarray(noise[:, only, None])
    schedule = Schedule("linear", 1e-4, 0.02, 1000, steps)
    program = chain_program(schedule, v2=family == "ddim")
    process: Process = PosteriorProcess(PosteriorCoefficients(*program.coefficients.T), mean, noise) if family == "posterior" else (
        DDIMProcess(DDIMCoefficients(ddim_coefficients(schedule).timesteps, *program.coefficients.T), noise[0])
    )
    order = np.ascontiguousarray(program.order.astype(np.int32))
    return Problem(process, family, program.coefficients, order, mean, noise, bits)


@dataclass
class Run:
    """What happened: states [T+1,R,C], and for every sweep the steps [R,W] and grid values [R,W,C] that were evaluated."""

    states: np.ndarray
    progress: np.ndarray
    sweeps: list[tuple[np.ndarray, np.ndarray]]


def run(p: Problem, eps: Eps, window: int, wanted: int | None = None) -> Run:
    """``wanted``: how many of the chains, all of them by default."""
    chains, classes = p.process.start.shape
    s = Speculation.allocate(p.steps, chains, window, classes, p.bits, torch.device("cpu"))
    for memory in (s.states, s.at, s.eps, s.y):  # nothing may be read that was not written
        memory.fill_(float("nan"))
    s.y.fill_(0.0)
    coefficients, mean, order = (torch.from_numpy(np.ascontiguousarray(a)) for a in (p.coefficients, p.mean, p.order))
    partial, bias = torch.zeros(chains * window, 1, classes), torch.zeros(classes, dtype=torch.float64)
    update = Update(p.family, coefficients, bias, partial, None if p.family == "ddim" else mean)
    image = torch.arange(chains, dtype=torch.int32)
    noise = None if p.family == "ddim" else torch.from_numpy(p.noise)
    front = torch.zeros(chains, dtype=torch.int32)
    front[chains if wanted is None else wanted :] = p.steps
    s.begin(torch.from_numpy(p.process.start), front)
    advance(s, update, order=order, image=image, noise=noise)
    seen = []
    for _ in range(p.steps + 1):
        steps = s.step.numpy().copy()
        if (steps < 0).all():
            break
        assert np.array_equal(p.order[steps[steps >= 0]], s.t.numpy()[steps >= 0])
        seen.append((steps.reshape(chains, window), s.y.numpy().copy().reshape(chains, window, classes)))
        with np.errstate(all="ignore"):
            partial[:, 0] = torch.from_numpy(eps(s.y.numpy(), np.maximum(steps, 0)).astype(np.float32))
        collect(s, update)
        advance(s, update, order=order, image=image, noise=noise)
    return Run(s.states.numpy(), s.progress.numpy(), seen)


def _single(eps: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Eps:
    """Rounded to float32, as partial sums are."""
    return lambda y, i: eps(y, i[:, None]).astype(np.float32).astype(np.float64)


def _poisoned(value: float, at: int) -> Eps:
    return _single(lambda y, i: np.where(i == at, value, 0.3 * np.sin(y) + 0.01 * i))


EPS: dict[str, Eps] = {
    "smooth": _single(lambda y, i: 0.4 * np.tanh(y) + np.sin(0.05 * i)),
    "blind": _single(lambda y, i: np.cos(0.3 * i) + 0 * y),
    "steep": _single(lambda y, i: 3 * np.sin(1e7 * y)),
    "saturating": _single(lambda y, i: np.tanh(1e4 * (y - 0.1))),
    "other at every step": _single(lambda y, i: np.where(i % 2, 5.0, -5.0) + y),
    "all classes count": _single(lambda y, i: np.sign(y.sum(axis=1, keepdims=True)) * np.ones_like(y)),
    "knows the answer": _single(lambda y, i: 40.0 * (y - 0.5)),
    "not a number": _poisoned(np.nan, 3),
    "infinite": _poisoned(np.inf, 2),
    "huge": _poisoned(1e35, 4),
}


@pytest.mark.parametrize("family", ["posterior", "ddim"])
@pytest.mark.parametrize("name", EPS)
def test_the_bits_of_the_sequential_chain(family, name):
    p = problem(family, 13, 2, 3)
    with np.errstate(all="ignore"):
        expected, got = p.sequential(EPS[name]), run(p, EPS[name], 4)
    assert np.array_equal(got.states, expected, equal_nan=True)
    assert (got.progress[:, 0] == 13).all()
    rows = sum((steps >= 0).sum(axis=1) for steps, _ in got.sweeps)
    assert np.array_equal(got.progress[:, 2], rows) and (got.progress[:, 1] <= 13).all()


@pytest.mark.parametrize("family", ["posterior", "ddim"])
@pytest.mark.parametrize(("steps", "chains", "classes", "window", "bits"), [
    (1, 1, 2, 4, 18), (2, 3, 15, 2, 18), (5, 1, 4, 16, 10), (33, 1, 2, 8, 10), (9, 5, 8, 2, 18),
])  # fmt: skip
def test_any_shape(family, steps, chains, classes, window, bits):
    p = problem(family, steps, chains, classes, bits)
    assert np.array_equal(run(p, EPS["smooth"], window).states, p.sequential(EPS["smooth"]))


@pytest.mark.parametrize("family", ["posterior", "ddim"])
def test_a_chain_does_not_see_the_others_nor_its_window(family):
    p = problem(family, 12, 3, 4)
    together = run(p, EPS["smooth"], 4).states
    for which in range(3):
        alone = run(problem(family, 12, 3, 4, only=which), EPS["smooth"], 8).states
        assert np.array_equal(alone[:, 0], together[:, which])


def test_chains_that_are_not_wanted_do_nothing():
    p = problem("posterior", 12, 3, 4)
    got = run(p, EPS["smooth"], 4, wanted=2)
    assert np.array_equal(got.states[:, :2], p.sequential(EPS["smooth"])[:, :2])
    assert got.progress[2].tolist() == [12, 0, 0] and all((steps[2] < 0).all() for steps, _ in got.sweeps)


@pytest.mark.parametrize("family", ["posterior", "ddim"])
@pytest.mark.parametrize("name", ["smooth", "blind", "saturating"])
def test_it_guesses_what_the_host_guesses(family, name):
    """Sweep by sweep the same steps at the same grid values, but for rounding, up to the first that rounds to another step's list."""
    p, eps = problem(family, 24, 1, 3), EPS[name]
    got, host = run(p, eps, 8), HostSpeculation(p.process, 0, p.bits, Picard(p.process, 0))
    same = []
    while not host.done:
        host.walk(8)
        wanted = host.wanted.tolist()
        if not wanted:
            continue
        steps, points = got.sweeps[min(host.sweeps, len(got.sweeps) - 1)]
        same.append(steps[0][steps[0] >= 0].tolist() == wanted)
        if all(same):
            np.testing.assert_allclose(points[0, : len(wanted)], host.points, rtol=0, atol=2.0**-12)
        host.receive(eps(host.points, host.wanted), np.zeros((0, 3, 3)))
    assert all(same[: min(3, len(same))])
    assert abs(len(got.sweeps) - host.sweeps) <= 2


def test_what_is_smooth_takes_few_sweeps():
    p = problem("posterior", 40, 1, 3, bits=10)
    assert len(run(p, EPS["smooth"], 16).sweeps) <= 13
    assert len(run(p, EPS["blind"], 16).sweeps) <= 13


@pytest.mark.parametrize("family", ["posterior", "ddim"])
def test_a_wrong_guess_is_noticed(family):
    """The negative control: a kept eps that belongs to another grid value must not be taken."""
    p = problem(family, 6, 1, 2)
    chains, classes = p.process.start.shape
    s = Speculation.allocate(6, 1, 4, classes, p.bits, torch.device("cpu"))
    partial = torch.zeros(4, 1, classes)
    coefficients, mean, order = (torch.from_numpy(np.ascontiguousarray(a)) for a in (p.coefficients, p.mean, p.order))
    update = Update(p.family, coefficients, torch.zeros(classes, dtype=torch.float64), partial, None if family == "ddim" else mean)
    noise = None if family == "ddim" else torch.from_numpy(p.noise)
    arguments = {"order": order, "image": torch.zeros(1, dtype=torch.int32), "noise": noise}
    for unit, moved in ((0.0, 1), (2.0**-p.bits, 0)):
        s.begin(torch.from_numpy(p.process.start), torch.zeros(1, dtype=torch.int32))
        advance(s, update, **arguments)
        collect(s, update)
        s.at[0, 0, 1] += unit
        advance(s, update, **arguments)
        assert (int(s.progress[0, 0]) >= 1) == bool(moved)


def test_arguments_that_do_not_fit_are_named():
    p = problem("posterior", 4, 2, 3)
    s = Speculation.allocate(4, 2, 4, 3, 18, torch.device("cpu"))
    update = Update("posterior", torch.from_numpy(p.coefficients), torch.zeros(3, dtype=torch.float64), torch.zeros(8, 1, 3))
    good = {"order": torch.from_numpy(p.order), "image": torch.zeros(2, dtype=torch.int32), "noise": torch.from_numpy(p.noise)}
    wrong = [
        ("order: expected int32 .4.", {"order": good["order"][:3]}),
        ("image: expected int32 .2.", {"image": torch.zeros(8, dtype=torch.int32)}),
        ("noise: a posterior chain needs", {"noise": None}),
        ("noise: expected float64 .4, 2, 3.", {"noise": good["noise"][:, :1]}),
    ]
    for message, change in wrong:
        with pytest.raises(ValueError, match=message):
            advance(s, update, **(good | change))
    with pytest.raises(ValueError, match="partial: expected float32"):
        collect(s, Update("posterior", update.coefficients, update.bias4, torch.zeros(2, 1, 3)))
    with pytest.raises(ValueError, match="coefficients: expected a row for each of 4 steps, got 3"):
        collect(s, Update("posterior", update.coefficients[:3], update.bias4, update.partial))
    for window in (0, 1, 3, 48):
        with pytest.raises(ValueError, match="window: expected a power of two from 2"):
            Speculation.allocate(4, 2, window, 3, 18, torch.device("cpu"))
