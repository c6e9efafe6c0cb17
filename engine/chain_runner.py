"""Who runs the chain of diffusion steps: one interface, so that the engine does not know on which device it happens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np

from fusedx.engine.backends import Condition, Denoiser
from fusedx.engine.manifest import MAP_POINTS, Network
from fusedx.engine.sampler import SEQUENTIAL, Chains, Plan, Work, dense_points, map_mean
from fusedx.engine.sampler.guess import GUESSES
from fusedx.engine.sampler.parallel import parallel
from fusedx.engine.sampler.process import DDIMProcess, PosteriorProcess, Process
from fusedx.engine.sampler.sequential import sequential
from fusedx.engine.sampler.solvers import SOLVERS, FewerDDIM, nodes, solve
from fusedx.engine.schedule import DDIMCoefficients, PosteriorCoefficients, Schedule, chain_program, ddim_coefficients
from fusedx.kernels.step import STATE_BITS, on_grid

#: The encoder's outputs by name.  A runner on a device may be given ones that have never left it.
Encoded = Mapping[str, np.ndarray]


class ChainRunner(Protocol):
    """The encoder's outputs and noise in, final states out.

    ``name`` and ``precision`` (of the weights) are what a prediction's provenance reports.
    """

    name: str
    precision: str

    def run(self, encoded: Encoded, noise: np.ndarray, *, keep: bool, plan: Plan = SEQUENTIAL) -> Chains:
        """noise float64 [T,D,B,C] (v1) or [2,D,B,C] = (u_global, u_local) (v2); ``keep`` every state of the chain.

        The plan decides how long it takes and nothing else.
        """

    def eps(self, encoded: Encoded, y: np.ndarray, step: int) -> np.ndarray:
        """The denoiser alone at row ``step`` of the timestep tables; y float64 [B,C] (v1) or [B,6,C] (v2) -> the same shape."""


@runtime_checkable
class Certified(Protocol):
    """A runner that can say afterwards how well kept states follow from each other."""

    def residual(self, encoded: Encoded, noise: np.ndarray, states: np.ndarray) -> np.ndarray:
        """float64 [D,B]: the largest |y_{i+1} - G_i(y_i)| over steps and classes of kept states, every eps evaluated anew."""


@runtime_checkable
class Solving(Protocol):
    """A runner that can also take few steps in place of many, by a solver of ``sampler.solvers``."""

    def solve(self, encoded: Encoded, noise: np.ndarray, solver: str, steps: int, *, keep: bool) -> Chains:
        """As ``run``, from the same start, of which alone the noise is used: approximate."""


class HostChains:
    """The samplers on a :class:`Denoiser`: the chain as it is written for reading; safe to call from several threads."""

    def __init__(
        self, network: Network, schedule: Schedule, denoiser: Denoiser, precision: str | None = None, coefficients: np.ndarray | None = None
    ) -> None:
        """precision: of the weights, which sets the grid that the denoiser sees its state on; None is the reference, without one.
        coefficients float64 [T, columns] of a compiled model, ordered as by ``chain_program``; None derives them from the schedule."""
        self.name = denoiser.name
        self.precision = precision or "fp32"
        self.denoiser = denoiser
        self._bits = STATE_BITS[precision] if precision else None
        self._noise_prior = network.noise_prior
        v2 = network.family == "diffmic-v2"
        columns = (chain_program(schedule, v2=v2).coefficients if coefficients is None else coefficients).T
        self._ddim = DDIMCoefficients(ddim_coefficients(schedule).timesteps, *columns) if v2 else None
        self._posterior = None if v2 else PosteriorCoefficients(*columns)

    def run(self, encoded: Encoded, noise: np.ndarray, *, keep: bool, plan: Plan = SEQUENTIAL) -> Chains:
        """See :class:`ChainRunner`."""
        process, condition, entry = self.problem(encoded, noise)
        if plan.sequential:
            states = sequential(self.denoiser, process, condition, entry, bits=self._bits, keep=keep)
            sweeps = rows = alone = np.full(len(entry), process.steps)
        else:
            guess = GUESSES[plan.variant]
            states, sweeps, rows, alone = parallel(self.denoiser, process, condition, entry, guess, bits=self._bits, plan=plan)
            states = states if keep else states[[0, -1]]
        return self._chains(states, noise, sweeps, rows, alone)

    def solve(self, encoded: Encoded, noise: np.ndarray, solver: str, steps: int, *, keep: bool) -> Chains:
        """See :class:`Solving`."""
        process, condition, entry = self.problem(encoded, noise)
        if self._ddim is not None:
            fewer = FewerDDIM(self._ddim, process.start, steps)
            states = sequential(self.denoiser, fewer, condition, entry, bits=self._bits, keep=keep)
        else:
            assert self._posterior is not None and isinstance(process, PosteriorProcess)
            k = nodes(self._posterior.q, self._posterior.s, steps)

            def eps(y: np.ndarray, row: int) -> np.ndarray:
                return self.denoiser.eps(on_grid(y, self._bits), np.full(len(y), row, np.int32), condition, entry)

            states = solve(eps, k, process.mean, process.start, SOLVERS[solver](k))
            states = states if keep else states[[0, -1]]
        return self._chains(states, noise, *[np.full(len(entry), steps)] * 3)

    def _chains(self, states: np.ndarray, noise: np.ndarray, sweeps: np.ndarray, rows: np.ndarray, alone: np.ndarray) -> Chains:
        """states [S,N,C] and counts [N] of N chains in the order of :meth:`problem`."""
        draws, images, classes = noise.shape[1:]
        points = len(sweeps) // (draws * images)
        by_point = (draws, images, points)
        states = states.reshape(-1, *(by_point if self._ddim else by_point[:2]), classes)
        work = Work(sweeps.reshape(by_point).max(-1), rows.reshape(by_point).sum(-1), alone.reshape(by_point).sum(-1))
        return Chains(map_mean(states[-1]) if self._ddim else states[-1], states, work)

    def residual(self, encoded: Encoded, noise: np.ndarray, states: np.ndarray) -> np.ndarray:
        """See :class:`Certified`."""
        process, condition, entry = self.problem(encoded, noise)
        flat = states.reshape(process.steps + 1, len(entry), -1)
        worst = np.zeros(len(entry))
        for i in range(process.steps):
            step = np.full(len(entry), process.table_row(i), np.int32)
            y = process.update(i, flat[i], self.denoiser.eps(on_grid(flat[i], self._bits), step, condition, entry))
            worst = np.maximum(worst, np.abs(y - flat[i + 1]).max(axis=1))
        return worst.reshape(*noise.shape[1:3], -1).max(axis=-1)

    def problem(self, encoded: Encoded, noise: np.ndarray) -> tuple[Process, Condition, np.ndarray]:
        """The chains of a request in the order (draw, image[, map point]), their condition, and each one's entry of it."""
        draws, images, classes = noise.shape[1:]
        prior, feature = entries(encoded, v2=self._ddim is not None)
        condition = self.denoiser.condition(prior, feature)
        entry = np.tile(np.arange(len(prior), dtype=np.int32), draws)
        if self._ddim is not None:
            return DDIMProcess(self._ddim, dense_points(noise[0], noise[1]).reshape(-1, classes)), condition, entry
        assert self._posterior is not None
        mean = np.zeros((draws * images, classes)) if self._noise_prior else np.tile(prior, (draws, 1))
        return PosteriorProcess(self._posterior, mean, noise.reshape(len(noise), -1, classes)), condition, entry

    def eps(self, encoded: Encoded, y: np.ndarray, step: int) -> np.ndarray:
        """See :class:`ChainRunner`."""
        prior, feature = entries(encoded, v2=self._ddim is not None)
        condition = self.denoiser.condition(prior, feature)
        rows = y.reshape(-1, y.shape[-1])
        entry = np.arange(len(rows), dtype=np.int32)
        return self.denoiser.eps(rows, np.full(len(rows), step, np.int32), condition, entry).reshape(y.shape)


def logits(encoded: Encoded) -> tuple[np.ndarray, np.ndarray]:
    """(y_global, y_local), float64 [B,C] each: the two ends of DiffMIC-v2's prior map."""
    return encoded["y_global"].astype(np.float64), encoded["y_local"].astype(np.float64)


def entries(encoded: Encoded, *, v2: bool) -> tuple[np.ndarray, np.ndarray]:
    """(prior float64 [M,C], feature [M,F]): one entry an image, for v2 one an (image, map point)."""
    feature = np.repeat(encoded["fused_feature"], MAP_POINTS, axis=0) if v2 else encoded["feature"]
    return priors(encoded, v2=v2), feature


def priors(encoded: Encoded, *, v2: bool) -> np.ndarray:
    """float64 [M,C]: the prior of each entry."""
    if not v2:
        return encoded["prior"].astype(np.float64)
    dense = dense_points(*logits(encoded))
    return dense.reshape(-1, dense.shape[-1])
