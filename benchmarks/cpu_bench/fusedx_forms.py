"""fusedx's own chain in each of its precisions."""

from __future__ import annotations

import numpy as np

from cpu_bench.contender import FUSEDX, Form, Opened
from cpu_bench.problem import Problem
from fusedx.engine.backends.native import NativeChains
from fusedx.engine.denoiser import StoredDenoiser
from fusedx.engine.manifest import Network

_TABLES = ("coefficients", *(f"{kind}{k}" for kind in ("scale", "shift") for k in (1, 2, 3)))


def forms(network: Network, precisions: tuple[str, ...]) -> list[Form]:
    """One a precision."""
    return [Form(FUSEDX, p, "", lambda problem, p=p: _open(problem, network, p)) for p in precisions]


def _open(problem: Problem, network: Network, precision: str) -> Opened:
    stored = StoredDenoiser.pack(problem.tables, network, problem.coefficients, precision)
    encoded = {"prior": problem.prior, "feature": problem.feature}

    def chains(steps: int) -> NativeChains:
        arrays = {name: array[:steps] if name in _TABLES else array for name, array in stored.arrays.items()}
        return NativeChains(StoredDenoiser(network, precision, arrays))

    timed, noise = chains(problem.steps), np.ascontiguousarray(problem.noise[: problem.steps, None])
    return Opened(
        chain=lambda: timed.run(encoded, noise, keep=False).scores[0],
        eps=lambda: timed.eps(encoded, problem.start, problem.steps - 1),
        whole=lambda: chains(problem.tables.steps).run(encoded, problem.noise[:, None], keep=False).scores[0],
    )
